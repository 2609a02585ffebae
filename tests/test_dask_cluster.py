"""xentcli.dask on a cluster of two processes: bits, killed workers, memory, a lost scheduler."""

import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
from distributed import Client

import xentcli
from xentcli.dask import cross_entropy, parts
from xentcli.dask.api import graph_of_loss
from xentcli.dask.cluster import local, run
from xentcli.dask.files import FileArray, from_file, store
from xentcli.dask.rows import How
from xentcli.dask.worker import share
from xentcli.engine.problem import Extras
from xentcli.errors import DataError, FileError, TargetError, UnavailableError
from xentcli.options import LossOptions

pytestmark = pytest.mark.slow  # every cluster is three processes

HEADER = 128
LIMIT = 512 << 20


@pytest.fixture(scope="module")
def client():
    """The cluster of two processes of one thread and 512 MiB that the tests of this file share."""
    with local(2, memory=LIMIT) as client:
        yield client


@pytest.fixture
def job(tmp_path, rng):
    """Logits in a file, targets, and the result of one machine."""
    x = (rng.standard_normal((400, 3000)) * 5).astype(np.float32)
    y = rng.integers(0, 3000, 400)
    y[::7] = -100
    np.save(tmp_path / "x.npy", x)
    return Job(tmp_path, x, y)


class Job:
    """The loss of a file of logits, written to another file."""

    def __init__(self, folder, x, y):
        self.folder, self.x, self.y = folder, x, y
        self.expected = xentcli.cross_entropy(x, y, backend="cpu")

    def graph(self, chunks, **options):
        source = FileArray.to_read(str(self.folder / "x.npy"), self.x.shape, self.x.dtype, HEADER)
        how = How("cpu", None, True)
        return graph_of_loss(
            from_file(source, chunks), self.y, LossOptions(**options), Extras(), how
        )

    def output(self, kind=FileArray, name="g.npy"):
        path = self.folder / name
        np.save(path, np.zeros_like(self.x))
        return kind(str(path), self.x.shape, self.x.dtype, HEADER)

    def written(self, name="g.npy"):
        return np.load(self.folder / name)


class KillsOnce(FileArray):
    """Kills its worker in the middle of the first write; a file remembers that it did."""

    def __setitem__(self, index, values):
        if first_time(Path(self.path).with_suffix(".killed")):
            rows = index[0]
            half = slice(rows.start, (rows.start + rows.stop) // 2)
            super().__setitem__((half, *index[1:]), values[: half.stop - half.start])
            os.kill(os.getpid(), signal.SIGKILL)
        super().__setitem__(index, values)


class KillsAlways(FileArray):
    def __setitem__(self, index, values):
        os.kill(os.getpid(), signal.SIGKILL)


def first_time(path):
    """Whether nobody asked this before, in any process."""
    try:
        Path(path).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def bits(*arrays):
    return [np.asarray(array).tobytes() for array in arrays]


@pytest.mark.parametrize("chunks", [(100, -1), (7, -1), ((1, 398, 1), -1)], ids=str)
def test_rows_on_two_workers_have_the_bits_of_one_machine(client, job, chunks):
    graph, seen = job.graph(chunks), []
    wanted = [graph.result, store(graph.grad, job.output()), graph.losses]
    progress = list(zip(graph.rows, graph.chunks, strict=True))
    result, _, losses = run(client, wanted, progress, lambda *rows: seen.append(rows))
    assert bits(result.loss, job.written()) == bits(job.expected.loss, job.expected.grad)
    assert (result.rows, result.ignored, result.notes) == (400, job.expected.ignored, ())
    assert bits(losses) == bits(xentcli.cross_entropy(job.x, job.y, reduction="none").loss)
    assert seen[-1] == (400, 400)
    assert seen == sorted(seen)


def test_a_worker_killed_while_it_writes_changes_no_bit(client, job):
    graph = job.graph((50, -1))
    before = set(client.nthreads())
    wanted = [graph.result, store(graph.grad, job.output(KillsOnce))]
    result, _ = run(client, wanted)
    assert (job.folder / "g.killed").exists()
    assert bits(result.loss, job.written()) == bits(job.expected.loss, job.expected.grad)
    client.wait_for_workers(2, timeout=60)
    assert set(client.nthreads()) != before


def test_a_worker_killed_between_the_phases_changes_no_bit(client, job, tmp_path):
    x = da.from_array(job.x, chunks=(200, 1000))
    expected = dask.compute(*cross_entropy(x, job.y), scheduler="sync")
    marker = tmp_path / "killed"
    client.run(die_after_the_first_phase, marker)
    try:
        loss, grad = dask.compute(*cross_entropy(x, job.y)[::2])
    finally:
        client.run(live_on)
    assert marker.exists()
    assert bits(loss, grad) == bits(expected[0], expected[2])
    client.wait_for_workers(2, timeout=60)


def die_after_the_first_phase(marker):
    """Let this worker die when it merges what the first phase found, unless another one did."""

    def deadly(found, plain=parts._merged_tops):
        if first_time(marker):
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(found)

    parts.plain, parts._merged_tops = parts._merged_tops, deadly


def live_on():
    parts._merged_tops = getattr(parts, "plain", parts._merged_tops)


def test_a_chunk_that_kills_its_workers_is_an_error(job):
    """On a cluster of its own, which may have no worker left."""
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}), local(2) as client:
        graph = job.graph((200, -1))
        with pytest.raises(UnavailableError, match="workers died one after the other"):
            run(client, [store(graph.grad, job.output(KillsAlways))])


def test_errors_of_workers_name_row_and_file(client, job):
    job.y[317] = 3000
    with pytest.raises(TargetError, match=r"1 of 400 targets is outside 0 to 2999; first: row 317"):
        run(client, [job.graph((100, -1)).result])
    job.y[317] = 0
    graph = job.graph((100, -1))
    np.save(job.folder / "x.npy", job.x + 1)
    with pytest.raises(FileError, match=r"x\.npy: was changed while it was read"):
        run(client, [graph.result])
    graph = job.graph((100, -1))
    (job.folder / "x.npy").unlink()
    with pytest.raises(FileError, match=r"x\.npy: reading failed"):
        run(client, [graph.result])


def test_a_chunk_too_large_for_a_worker_is_an_error_before_the_work(client):
    x = da.ones((4096, 131072), dtype=np.float32, chunks=(4096, -1))
    with pytest.raises(DataError) as error:
        cross_entropy(x, np.zeros(4096, int))
    hint = "use logits.rechunk((170, 131072))"
    what = "its largest chunk, (4096, 131072), needs 12288 MiB in a worker; the limit is 512 MiB"
    assert str(error.value) == f"logits: {what} per thread ({hint})"
    cross_entropy(x.rechunk((170, 131072)), np.zeros(4096, int))


def test_logits_larger_than_the_memory_of_all_workers(client, rng):
    """Logits that are kept in the workers' memory are spilled to their disks."""
    rows, classes = 704, 1 << 18
    x = da.random.default_rng(1).random((rows, classes), dtype=np.float32, chunks=(32, -1))
    y = rng.integers(0, classes, rows)
    kept = x.persist()
    graph = graph_of_loss(kept, y, LossOptions(), Extras(), How("cpu", None, False))
    result = run(client, [graph.result])[0]
    spilled = client.run(lambda dask_worker: dask_worker.data.spilled_total.disk)
    assert sum(spilled.values()) > 0
    part = xentcli.cross_entropy(x[:32].compute(), y[:32], backend="cpu", reduction="none").loss
    assert bits(graph.losses[:32].compute()) == bits(part)
    assert result.rows == rows


def test_kernels_use_the_threads_of_their_worker(client):
    assert client.submit(share, pure=False).result() == 1
    with local(1, threads=4) as other:
        assert other.submit(share, pure=False).result() == 4
    assert share() is None  # outside a worker, in the main thread: all cores


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are those of glibc")
def test_workers_of_this_machine_use_the_memory_of_one_chunk_for_the_next(client):
    """Otherwise the kernel gives each chunk new pages, which takes as long as the work."""
    later = [client.submit(faults_of_chunks, pure=False).result() for _ in range(3)][-1]
    assert later < 64, "of 16 MiB and 32 MiB, which have 48 huge pages at least"
    assert client.submit(os.environ.get, "OMP_NUM_THREADS").result() == "1"


def faults_of_chunks():
    """Page faults while several arrays of a chunk's size are filled."""
    import resource

    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for _ in range(4):
        np.empty(1 << 25, np.uint8).fill(1), np.empty(1 << 24, np.uint8).fill(1)
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before


def test_a_scheduler_that_is_gone_is_an_error(tmp_path):
    """And what was written has no final name: only the client renames, after everything."""
    settings = {"distributed.comm.timeouts.connect": "2s"}
    environment = {**os.environ, "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "2s"}
    file, command = tmp_path / "scheduler.json", [sys.executable, "-m"]
    common = ["--scheduler-file", str(file), "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
    scheduler = [*command, "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    worker = [*command, "distributed.cli.dask_worker", "--nthreads", "2", "--no-nanny"]
    quiet = {"env": environment, "stderr": subprocess.DEVNULL}
    with dask.config.set(settings), subprocess.Popen([*scheduler, *common], **quiet) as first:
        try:
            with subprocess.Popen([*worker, *common], **quiet) as second:
                try:
                    lose_the_scheduler(file, first)
                finally:
                    second.kill()
        finally:
            first.kill()


def lose_the_scheduler(file, process):
    with Client(scheduler_file=str(file)) as client:
        client.wait_for_workers(1, timeout=60)
        x = da.ones((40, 1000), chunks=(1, 1000))
        graph = graph_of_loss(
            x, np.zeros(40, int), LossOptions(), Extras(), How("numpy", None, False)
        )
        waits = dask.delayed(time.sleep)(3600)  # on one of the two threads
        parts_done = list(zip(graph.rows, graph.chunks, strict=True))
        with pytest.raises(UnavailableError, match="connection to the scheduler was lost"):
            run(client, [graph.result, waits], parts_done, lambda *_: process.kill())
