"""The loss, its gradient, softmax and report of dask arrays, with the bits of one machine.

Scheduling, retries, spilling and transport are dask's. Install it with the extra
`dask`: pip install 'xentcli[dask]'.

    from xentcli.dask import cross_entropy
    loss, losses, grad = cross_entropy(logits, targets)       # lazy: nothing is computed yet
    dask.array.store(grad, target), loss.compute()
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
