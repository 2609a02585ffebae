"""What a cluster costs: `python tests/dask_cost.py [FOLDER]` compares workers with one process.

The same work each time: float32 logits and targets in .npy files, the gradient into another. One
process with two threads is `xentcli.engine.stream` on the whole file, warm; workers have one thread
each. Both overwrite a file whose pages are in memory: less than that no command can take.
Seconds and processor seconds are medians of three, taken in turn; MiB is the largest worker.
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from xentcli.dask.api import graph_of_loss
from xentcli.dask.cluster import local, run
from xentcli.dask.files import FileArray, from_file, store
from xentcli.dask.rows import How
from xentcli.engine import stream
from xentcli.engine.cross_entropy import Run
from xentcli.engine.problem import Extras, build
from xentcli.engine.targets import Whole
from xentcli.files.opening import open_reader
from xentcli.options import LossOptions

HEADER = 128
# Rows, classes, chunks of rows, chunks of classes; the first is the job that has a limit.
JOBS = [
    (16384, 8192, 16, 1),
    (16384, 8192, 64, 1),
    (16384, 8192, 4, 1),
    (4096, 8192, 16, 1),
    (1024, 131072, 16, 1),
    (131072, 1024, 16, 1),
    (512, 8192, 2, 4),
]


def cpu():
    """Processor seconds of this process and of children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def worker_usage():
    """Processor seconds and MiB of a worker; `ru_maxrss` would be that of its parent, if larger."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return used.ru_utime + used.ru_stime, int(status["VmHWM"].split()[0]) / 1024


class Rows:
    """Takes the gradient, piece by piece."""

    def __init__(self, path):
        self.file = path.open("r+b")
        self.file.seek(HEADER)

    def write(self, values):
        self.file.write(values.data)


def alone(folder, y):
    """One process, two threads."""
    with open_reader(str(folder / "x.npy")) as reader:
        problem = build(reader.shape, Whole(y), LossOptions(), Extras())
        out = Rows(folder / "g.npy")
        streams = stream.Streams(reader, out=out)
        stream.cross_entropy(problem, streams, LossOptions(), Run("cpu", 2))
    out.file.close()


def on_cluster(client, folder, y, chunks):
    shape, dtype = (len(y), chunks[2]), np.dtype("f4")
    source = from_file(FileArray.to_read(str(folder / "x.npy"), shape, dtype, HEADER), chunks[:2])
    graph = graph_of_loss(source, y, LossOptions(), Extras(), How("auto", None, True))
    target = FileArray(str(folder / "g.npy"), shape, dtype, HEADER)
    run(client, [graph.result, store(graph.grad, target)])


def measured(work, usage):
    begin, used = time.perf_counter(), usage()
    work()
    return time.perf_counter() - begin, usage() - used


def compare(folder, job, workers):
    n, classes, row_chunks, class_chunks = job
    x = np.lib.format.open_memmap(folder / "x.npy", "w+", "f4", (n, classes))
    rng = np.random.default_rng(0)
    for first in range(0, n, 256):
        x[first : first + 256] = rng.normal(size=x[first : first + 256].shape)
    np.lib.format.open_memmap(folder / "g.npy", "w+", "f4", (n, classes))
    del x
    y, chunks = (
        rng.integers(0, classes, n),
        (-(-n // row_chunks), -(-classes // class_chunks), classes),
    )
    with local(workers) as client:

        def usage():
            return cpu() + sum(used for used, _ in client.run(worker_usage).values())

        def lazily():
            on_cluster(client, folder, y, chunks)

        lazily()
        pairs = [
            (measured(lambda: alone(folder, y), cpu), measured(lazily, usage)) for _ in range(3)
        ]
        memory = max(mib for _, mib in client.run(worker_usage).values())
    one, many = (np.median(np.array(side), axis=0) for side in zip(*pairs, strict=True))
    cells = [*job, workers, *(f"{v:.2f}" for v in (*one, *many, *(many / one))), f"{memory:.0f}"]
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    head = ["rows", "classes", "row chunks", "class chunks", "workers", "alone s", "cpu s"]
    head += ["cluster s", "cpu s", "ratio of s", "of cpu s", "MiB"]
    sys.stdout.write(f"| {' | '.join(head)} |\n|{'---|' * len(head)}\n")
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if sys.argv[1:] else None) as name:
        for job in JOBS:
            for workers in (1, 2):
                sys.stdout.write(compare(Path(name), job, workers) + "\n")
                sys.stdout.flush()
