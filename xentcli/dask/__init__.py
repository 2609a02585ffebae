"""The loss, its gradient, softmax and report of dask arrays, with the bits of one machine.

    import dask, dask.array as da
    from xentcli.dask import cross_entropy
    loss, losses, grad = cross_entropy(da.from_zarr("logits.zarr"), targets)  # nothing is computed
    loss, _ = dask.compute(loss, grad.to_zarr("grad.zarr", compute=False))

Scheduling, retries, spilling and transport are dask's. Install it with the extra `dask`:
pip install 'xentcli[dask]'. A kernel is compiled once per machine, and kept in the cache folder
that all its workers share. Each task uses its share of its worker's threads.

Memory. A task needs its chunk of logits, the gradient of it, and once more as much for what waits
to be written: chunks of which three times both do not fit into a worker are an error when the graph
is built. Chunks of 32 to 256 MiB work well.

What limits 10¹² logits, on paper: float32, 7.6 million rows of 131,072 classes, 4 TB to read and
4 TB of gradient to write, in 15,000 chunks of 256 MiB.

- Disks and networks: 100 workers that read and write 1 GB/s each need 80 s for these bytes; the
  kernels, at 1 to 3 GB/s a core, no longer. This comes first.
- The scheduler: five small tasks for each chunk, 2 to 4 ms of its one core (measured with 1,000
  and 10,000 chunks): 15,000 chunks take 30 to 60 s. A million chunks of 4 MiB would take an hour,
  and 10 GB of memory for their tasks: chunks should grow with the data.
- What travels, with whole rows: the class weights once for each worker, 1 KB for each chunk, and
  8 bytes a row for the losses if they are asked for. With parts of the classes, for each row 32
  bytes of each part in the first phase, 130 in the second, 200 to each part for its gradient:
  2.7 GB a part for these rows. The logits of a row's parts stay in memory between the phases, which
  NumPy computes: 40 ns a logit, 100 with the gradient, so that 10¹² logits take 11 or 27 hours of
  one core.
- Targets: 8 bytes a row or less; each chunk checks its own.
- `report` keeps up to 24 bytes a row on the worker that ends it, 180 MB.
"""

from __future__ import annotations

from xentcli.errors import UnavailableError

try:
    import dask.array  # noqa: F401 (whether it is there)
except ImportError as error:
    what = f"dask cannot be imported: {error}"
    raise UnavailableError("dask", what, "pip install 'xentcli[dask]'") from error

from xentcli.dask.api import LazyLoss, cross_entropy, report, softmax

__all__ = ["LazyLoss", "cross_entropy", "report", "softmax"]
