"""`--cluster` and `--workers`: the bits of one machine, whatever happens to the workers."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cli import (
    TIMEOUT,
    assert_error,
    assert_unchanged,
    contents,
    environment,
    run,
    started,
    temporaries,
    wait_for,
)
from helpers import assert_same_bits

zarr = pytest.importorskip("zarr", reason="zarr 3 needs Python 3.11")
pytest.importorskip("distributed")

pytestmark = pytest.mark.slow  # a cluster is processes of its own

SERVER = """
import json, os, sys, threading
from distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(
        n_workers=2, threads_per_worker=1, memory_limit="512MiB", host="127.0.0.1",
        dashboard_address="127.0.0.1:0", silence_logs=50,
    ) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """A program that starts a cluster of two processes, 512 MiB each, until its input ends."""
    path = tmp_path_factory.mktemp("cluster") / "server.py"
    path.write_text(SERVER)
    return path


class Server:
    """A cluster in a process of its own."""

    def __init__(self, script):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        arguments = [sys.executable, str(script)]
        self.process = subprocess.Popen(arguments, text=True, env=environment(), **pipes)
        self.address = self.process.stdout.readline().strip()

    def workers(self):
        """The processes of the workers."""
        from distributed import Client

        with Client(self.address, timeout=TIMEOUT) as client:
            return list(client.run(os.getpid).values())

    def tasks(self):
        """How many tasks the scheduler has."""
        from distributed import Client

        with Client(self.address, timeout=TIMEOUT) as client:
            return client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))

    def close(self):
        """End it."""
        self.process.stdin.close()
        self.process.wait(TIMEOUT)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def cluster(script):
    server = Server(script)
    yield server
    server.close()


@pytest.fixture
def arrays(tmp_path, monkeypatch, rng):
    """Logits and targets in every kind of file that workers read."""
    monkeypatch.chdir(tmp_path)
    x = (rng.normal(size=(700, 300)) * 5).astype(np.float32)
    y = rng.integers(0, 300, 700)
    y[5] = -100
    np.save("l.npy", x)
    np.save("t.npy", y)
    for name, chunks in (("rows", (64, 300)), ("classes", (700, 100)), ("both", (64, 100))):
        for kind, packed in (("plain", None), ("packed", "auto")):
            path = f"{name}-{kind}.zarr"
            made = zarr.create_array(
                path, shape=x.shape, dtype=x.dtype, chunks=chunks, compressors=packed
            )
            made[...] = x
    zarr.create_array("t.zarr", shape=y.shape, dtype=y.dtype, chunks=(100,))[...] = y
    return tmp_path


def on(cluster, *arguments):
    """`xent ARGUMENTS` on the cluster."""
    return run(*arguments, "--cluster", cluster.address)


@pytest.mark.parametrize("command", ["grad", "softmax"])
def test_the_bits_are_those_of_one_machine(command, cluster, arrays):
    targets = ["t.npy"] if command == "grad" else []
    assert run(command, "l.npy", *targets, "-o", "one.npy", "--backend", "cpu").code == 0
    expected = np.load("one.npy")
    inputs = ("l.npy", "npy"), ("both-packed.zarr", "zarr"), ("classes-plain.zarr", "npy")
    for logits, kind in inputs:
        targets = ["t.zarr"] if command == "grad" else []
        result = on(cluster, command, logits, *targets, "-o", f"o.{kind}", "--backend", "cpu")
        assert result.code == 0, result.err
        assert "cpu on 2 workers" in result.err
        found = np.load("o.npy") if kind == "npy" else zarr.open_array("o.zarr", mode="r")[...]
        assert_same_bits(found, expected)
    assert temporaries(arrays) == []


def test_losses_and_reports_are_those_of_one_machine(cluster, arrays):
    arguments = ("l.npy", "t.npy", "--backend", "cpu")
    assert run("loss", *arguments).text == on(cluster, "loss", *arguments).text
    rows = ("--reduction", "none")
    assert run("loss", *arguments, *rows).text == on(cluster, "loss", *arguments, *rows).text
    one, many = (
        json.loads(result.text)
        for result in (
            run("report", *arguments, "--json", "-q"),
            on(cluster, "report", "rows-packed.zarr", "t.zarr", "--backend", "cpu", "--json", "-q"),
        )
    )
    assert one["statistics"] == many["statistics"]


def test_the_gradient_and_each_loss_are_written_together(cluster, arrays):
    rows = ("--reduction", "none", "--backend", "cpu")
    assert run("grad", "l.npy", "t.npy", *rows, "-o", "g1.npy", "--loss-out", "l1.npy").code == 0
    made = on(cluster, "grad", "l.npy", "t.npy", *rows, "-o", "g2.npy", "--loss-out", "l2.npy")
    assert made.code == 0, made.err
    for name in "gl":
        assert Path(f"{name}1.npy").read_bytes() == Path(f"{name}2.npy").read_bytes()


def test_shapes_that_do_not_fit_are_the_errors_of_one_machine(cluster, arrays):
    np.save("few.npy", np.zeros(6, int))
    np.save("other.npy", np.zeros((6, 300), "f4"))
    for arguments in (
        ("loss", "l.npy", "few.npy"),
        ("grad", "l.npy", "other.npy", "-o", "g.npy"),
        ("report", "l.npy", "t.npy", "--base", "other.npy"),
        ("report", "l.npy", "t.npy", "--base", "few.npy"),
    ):
        one, many = run(*arguments), on(cluster, *arguments)
        assert (many.code, many.err) == (one.code, one.err) != (0, "")
    np.savetxt("base.csv", np.load("l.npy"), delimiter=",")
    result = on(cluster, "report", "l.npy", "t.npy", "--base", "base.csv")
    assert_error(result, 2, "base.csv", "cannot read parts")


def test_a_base_and_logits_of_other_axes_have_the_report_of_one_machine(cluster, arrays):
    np.save("cube.npy", np.load("l.npy").reshape(7, 100, 300))
    np.save("cube_t.npy", np.load("t.npy").reshape(7, 100))
    arguments = ("report", "cube.npy", "cube_t.npy", "--base", "l.npy", "--json", "-q")
    one, many = (json.loads(r.text) for r in (run(*arguments), on(cluster, *arguments)))
    assert one["statistics"] == many["statistics"]


def test_one_row_and_its_target_without_axes(cluster, arrays):
    np.save("row.npy", np.float32([1, 2, 3]))
    np.save("target.npy", np.int64(1))
    one, many = run("loss", "row.npy", "target.npy"), on(cluster, "loss", "row.npy", "target.npy")
    assert (many.code, many.text) == (0, one.text)


def test_what_workers_said_for_earlier_commands_is_not_said_again(cluster, arrays):
    from distributed import Client

    with Client(cluster.address, timeout=TIMEOUT) as client:
        client.log_event("xentcli", "said before")
    result = on(cluster, "loss", "l.npy", "t.npy")
    assert result.code == 0, result.err
    assert "said before" not in result.err


def test_no_password_of_an_address_is_shown(arrays):
    for address in ("tcp://user:secret@127.0.0.1:9", "user:secret@127.0.0.1:9"):
        result = run("loss", "l.npy", "t.npy", "--cluster", address)
        assert_error(result, 2, "--cluster", "no user and password")
        assert "secret" not in result.err


def test_workers_of_this_machine_are_started_and_ended(arrays):
    result = run("grad", "l.npy", "t.npy", "--workers", "1", "-o", "g.zarr")
    assert result.code == 0, result.err
    assert "on 1 worker, " in result.err
    assert zarr.open_array("g.zarr", mode="r").shape == (700, 300)


def importing(command):
    """Whether two child processes are larger than Python alone."""
    sizes = (child.memory_info().rss for child in command.children(recursive=True))
    return sum(size > 20 << 20 for size in sizes) == 2


def test_an_interrupt_while_workers_start_ends_the_command_quietly(arrays):
    """A terminal sends Ctrl-C to the workers too, which are still importing."""
    psutil = pytest.importorskip("psutil")
    arguments = ("grad", "l.npy", "t.npy", "--workers", "2", "-o", "g.npy")
    with started(*arguments, start_new_session=True) as process:
        wait_for(lambda: importing(psutil.Process(process.pid)))
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, err) == (-signal.SIGINT, b"")
    assert temporaries(arrays) == []
    assert not Path("g.npy").exists()


def test_what_workers_cannot_do_is_an_error_that_says_what_they_can(cluster, arrays):
    np.savetxt("l.csv", np.load("l.npy"), delimiter=",")
    np.save("p.npy", np.full((700, 300), 1 / 300))
    before = contents(arrays)
    for arguments, code, words in (
        (("grad", "l.csv", "t.npy", "-o", "g.npy"), 2, ["l.csv", "cannot read parts", ".zarr"]),
        (("loss", "p.npy", "t.npy", "--logits-kind", "probs"), 2, ["p.npy", "no logarithms"]),
        (("grad", "l.npy", "t.npy", "-o", "g.csv"), 2, ["--output", "only into .zarr"]),
        (("grad", "l.npy", "t.npy"), 2, ["--output", "only into .zarr"]),
        (("grad", "l.npy", "t.npy", "-o", "g.npy.gz"), 2, ["--output", "only into .zarr"]),
        (("grad", "l.npy", "t.npy", "--dtype", "f64", "-o", "g.npy"), 2, ["--dtype", "float64"]),
        (("grad", "l.npy", "t.npy", "--workers", "2", "-o", "g.npy"), 2, ["exclude each other"]),
        (("report", "l.npy", "t.npy", "--per-row", "r.csv"), 2, ["--per-row"]),
    ):
        assert_error(on(cluster, *arguments), code, *words)
    assert_error(run("loss", "l.npy", "t.npy", "--cluster", "tcp://127.0.0.1:9"), 3, "--cluster")
    assert_error(run("loss", "l.npy", "t.npy", "--cluster", "nonsense"), 3, "--cluster")
    x = np.load("l.npy")
    x[600, 7] = np.nan
    np.save("nan.npy", x)
    result = on(cluster, "softmax", "nan.npy", "-q", "--strict", "-o", "g.zarr")
    assert_error(result, 1, "nan.npy", "not finite", "600")
    np.save("bad.npy", np.full(700, 300))
    bad = contents(arrays)
    result = on(cluster, "grad", "l.npy", "bad.npy", "-o", "g.npy")
    assert_error(result, 1, "bad.npy", "300")
    assert_unchanged(arrays, bad)
    assert before.keys() < bad.keys()


def test_chunks_that_do_not_fit_are_an_error_before_the_work(cluster, arrays):
    shape, chunks = (20_000, 20_000), (20_000, 4000)
    zarr.create_array("big.zarr", shape=shape, dtype="f4", chunks=chunks)
    np.save("y.npy", np.zeros(20_000, np.int64))
    result = on(cluster, "grad", "big.zarr", "y.npy", "-q", "-o", "g.zarr")
    assert_error(result, 1, "big.zarr", "largest chunk, (20000, 4000)", "MiB", "rechunk")
    assert not Path("g.zarr").exists()
    assert temporaries(arrays) == []


@pytest.fixture
def large(arrays):
    """More logits, so that something can happen meanwhile."""
    rng = np.random.default_rng(4)
    np.save("big.npy", rng.normal(size=(20_000, 4000)).astype(np.float32))
    np.save("y.npy", rng.integers(0, 4000, 20_000))
    return arrays


GRAD = ("grad", "big.npy", "y.npy", "--backend", "cpu", "-o")


def begun(folder):
    """Whether an output has been begun: numbers beyond its header."""
    found = temporaries(folder)
    with_numbers = [p for p in found if p.is_dir() and any(q.is_file() for q in p.glob("c/*/*"))]
    return with_numbers or [p for p in found if p.is_file() and p.stat().st_blocks > 1000]


@pytest.mark.parametrize("output", ["g.zarr", "g.npy"])
def test_a_worker_that_is_killed_while_it_writes_changes_no_bit(output, cluster, large):
    assert run(*GRAD, "one.npy").code == 0
    victim = cluster.workers()[0]
    with started(*GRAD, output, "--cluster", cluster.address) as process:
        wait_for(lambda: begun(large))
        os.kill(victim, signal.SIGKILL)
        _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, err
    found = np.load(output) if output == "g.npy" else zarr.open_array(output, mode="r")[...]
    assert_same_bits(found, np.load("one.npy"))
    assert temporaries(large) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("where", ["cluster", "workers"])
def test_a_signal_cancels_the_work_and_removes_what_was_begun(where, number, cluster, large):
    before = contents(large)
    place = ["--cluster", cluster.address] if where == "cluster" else ["--workers", "2"]
    with started(*GRAD, "g.zarr", *place) as process:
        wait_for(lambda: begun(large))
        process.send_signal(number)
        _, err = process.communicate(timeout=TIMEOUT)
        assert process.returncode == -number
    assert b"Traceback" not in err
    assert_unchanged(large, before)
    if where == "cluster":
        wait_for(lambda: cluster.tasks() == 0)


def test_a_scheduler_that_is_gone_is_an_error(script, large):
    server = Server(script)
    before = contents(large)
    with started(*GRAD, "g.zarr", "--cluster", server.address) as process:
        wait_for(lambda: begun(large))
        server.process.kill()
        _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 3, err
    assert err.decode().startswith("xent: error: --cluster: ")
    assert "Traceback" not in err.decode()
    assert_unchanged(large, before)
    server.process.wait(TIMEOUT)
    server.process.stdin.close()
    server.process.stdout.close()
