"""A few of the faults of faults.py and of the moments of moments.py, and full disks."""

import os
import re
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import faults
import moments
import numpy as np
import pytest
from cli import (
    XENT,
    assert_done,
    assert_error,
    assert_unchanged,
    bash,
    contents,
    environment,
    run,
    temporaries,
)
from faults import JOBS, Call, Fault, Place, try_each
from moments import WORKS

NO_STRACE = faults.missing()
strace = pytest.mark.skipif(NO_STRACE is not None, reason=NO_STRACE or "")


def few(place):
    """One error for the last call of each operation on each file, and for its first read; kills."""
    first, last = {}, {}
    for call in place.clean[2]:
        if call.operation not in ("stat", "seek"):
            key = call.operation, re.split(r"[,)]", re.sub(r"\.xent-\w+", "", call.text))[0]
            if call.operation == "read":
                first.setdefault(key, call)
            last[key] = call
    chosen = {call.text: call for call in (*first.values(), *last.values())}
    for number, call in enumerate(chosen.values()):
        errors = [what for what in faults.CALLS[call.operation][1] if what.startswith("E")]
        yield Fault(call, errors[number % len(errors)])
        if call.operation in ("write", "fsync", "rename"):
            yield Fault(call, "SIGKILL")
        if call.operation == "rename":
            yield Fault(call, faults.STOPS[number % 3])


@strace
@pytest.mark.parametrize(
    "job",
    [
        pytest.param("replace two", marks=pytest.mark.slow),  # each fault takes a process
        pytest.param("archive", marks=pytest.mark.slow),
        "no-clobber",
    ],
)
def test_any_single_operation_may_fail(job, tmp_path):
    places = [Place(tmp_path / str(number), JOBS[job]) for number in range(2)]
    chosen = list(few(places[0]))
    with ThreadPoolExecutor() as pool:
        halves = pool.map(lambda place, part: list(try_each(place, part)), places, split(chosen))
        done = [item for half in halves for item in half]
    assert [f"{fault}: {wrong}" for fault, _, wrong in done if wrong] == []
    words = {word for _, word, _ in done}
    assert "not reached" not in words
    assert "4, old" in words


def split(items):
    """Every other one, and the rest."""
    return items[::2], items[1::2]


@strace
@pytest.mark.parametrize(
    ("job", "order"),
    [
        ("replace", ["write", "fsync", "close", "rename", "fsync folder"]),
        ("new file", ["write", "close", "rename"]),
        ("new file, --fsync", ["write", "fsync", "close", "rename", "fsync folder"]),
    ],
)
def test_data_are_on_the_disk_before_their_name(job, order, tmp_path):
    place = Place(tmp_path, JOBS[job])
    found = []
    for call in place.clean[2]:
        on_folder = f"<{place.folder}>)" in call.text
        if ".xent-" in call.text or on_folder:
            found.append(call.operation + " folder" * on_folder)
    assert [word for word in found if word in order or word.startswith("fsync")] == order


@strace
def test_what_is_checked_after_a_fault_can_fail(tmp_path):
    place = Place(tmp_path, JOBS["replace two"])
    good, new, points = place.clean
    fault = "EIO", next(call for call in points if call.operation == "rename").text
    failed = type(good)(4, b"", f"xent: error: {place.folder / 'g.npy'}: writing failed: so\n")
    place.check(failed, *fault)
    for name, data in {
        "g.npy": new["g.npy"],
        "loss.txt": new["loss.txt"][:-1],
        "l.npy": b"",
        ".xent-abc.tmp": b"",
        "other": b"",
    }.items():
        (place.folder / name).write_bytes(data)
        with pytest.raises(AssertionError):
            place.check(failed, *fault)
        (place.folder / name).unlink()
        if name in place.before:
            (place.folder / name).write_bytes(place.before[name])
    place.check(failed, *fault)
    other = failed.err.replace("g.npy", "l.npy")
    for code, err in [(0, ""), (1, failed.err), (4, "Traceback\n"), (4, other)]:
        with pytest.raises(AssertionError):
            place.check(type(good)(code, b"", err), *fault)


@strace
def test_calls_are_numbered_in_each_thread(tmp_path):
    place = Place(tmp_path, JOBS["pipe"])
    place.log.write_text("1 read(3</a>, 1) = 1\n2 read(4, 1 <unfinished ...>\n1 read(3, 1) = 1\n")
    assert [(c.name, c.number) for c in place.calls()] == [("read", 1), ("read", 1), ("read", 2)]
    assert not place.concerns(Call("read", 1, "3</a>, 1) = 1"))
    assert place.concerns(Call("write", 1, "1<pipe:[1]>, 1) = 1"))


# Signals at other moments, and readers that stop


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with the files that WORKS name."""
    folder = tmp_path_factory.mktemp("work")
    moments.prepare(folder)
    return folder


@pytest.mark.parametrize(
    ("name", "moment", "number"),
    [
        ("compilation", 1.5, signal.SIGINT),
        ("kernel of NumPy", 0.3, signal.SIGHUP),
        ("full pipe", 0.5, signal.SIGTERM),
    ],
)
def test_a_signal_is_obeyed_at_once_and_leaves_nothing(name, moment, number, work):
    lived, code = moments.stop(work, WORKS[name], moment, number)
    assert lived < moments.PATIENCE
    assert code == -number


@pytest.mark.parametrize("what", ["signal that is not obeyed", "temporary", "half", "one", "line"])
def test_what_is_checked_after_a_signal_can_fail(what, tmp_path):
    moments.reset(tmp_path)
    before = contents(tmp_path)
    moments.check(tmp_path, before, signal.SIGTERM, -signal.SIGTERM, "")
    code = 4 if what == "signal that is not obeyed" else -signal.SIGTERM
    for name in {"temporary": [".xent-a.tmp"], "one": ["loss.txt"]}.get(what, []):
        (tmp_path / name).write_bytes(b"new")
    err = "Traceback\n" if what == "line" else ""
    if what == "half":
        (tmp_path / "g.npy").unlink()
    with pytest.raises((AssertionError, KeyError)):
        moments.check(tmp_path, before, signal.SIGTERM, code, err)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["large", "large text"])
def test_a_reader_that_stops_ends_it_quietly_and_at_once(name, work):
    for seconds, code in moments.stop_reading(work, moments.READ_LITTLE[name], 1):
        assert seconds < moments.PATIENCE
        assert code == -signal.SIGPIPE


def test_a_reader_that_stops_ends_it_while_the_input_is_still_slow(work):
    """The rest of the logits never comes, and three threads are at work."""
    data = (work / "l.npy").read_bytes()
    with subprocess.Popen(
        [*XENT, "grad", "-", "t.npy", "--backend", "numpy"],
        cwd=work,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        process.stdin.write(data[: len(data) * 4 // 5])
        process.stdin.flush()
        assert process.stdout.read(10) == b"\x93NUMPY\x01\x00v\x00"
        process.stdout.close()
        started = time.monotonic()
        assert process.wait(moments.PATIENCE) == -signal.SIGPIPE
        assert time.monotonic() - started < moments.PATIENCE
        assert process.stderr.read() == b""


# Full disks


ROWS = 4200  # whose gradient is larger than the small disk, in any format


@pytest.fixture
def large(files):
    """Logits whose results are larger than the limits here."""
    np.save("l.npy", np.zeros((ROWS, 10)))
    np.save("t.npy", np.zeros(ROWS, int))
    for name in ("g.npy", "loss.txt"):
        (files / name).write_bytes(b"old")
    return files


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("grad l.npy t.npy -o g.npy --loss-out loss.txt", "g.npy"),
        ("grad l.npy t.npy -o /dev/null --reduction none --loss-out loss.txt", "loss.txt"),
        ("softmax l.npy -o p.csv", "p.csv"),
        ("softmax l.npy -o p.npz", "p.npz"),
        ("softmax l.npy -o p.json", "p.json"),
        ("loss l.npy t.npy --reduction none -o loss.txt", "loss.txt"),
        ("softmax l.npy > out", "<stdout>"),
    ],
)
def test_a_limit_on_the_size_of_files_is_an_error_that_leaves_nothing(command, name, large):
    before = contents(large)
    result = bash(f"ulimit -f 8; xent {command}")
    assert_error(result, 4, f"{name}: writing failed: File too large")
    (large / "out").unlink(missing_ok=True)
    assert_unchanged(large, before)


@contextmanager
def small_disk(folder):
    """A disk of 256 KiB."""
    how = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    done = subprocess.run(how, capture_output=True, check=False) if os.geteuid() == 0 else None
    if done is None or done.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("format", ["npy", "npz", "csv", "json"])
def test_a_full_disk_is_an_error_and_leaves_room_for_the_next_run(format, large):
    disk = large / "disk"
    disk.mkdir()
    with small_disk(disk):
        (disk / "g").write_bytes(b"old")
        arguments = ["-f", format, "-o", "disk/g", "--loss-out", "disk/loss.txt"]
        result = run("grad", "l.npy", "t.npy", *arguments)
        assert_error(result, 4, "disk/g: writing failed: No space left on device")
        assert contents(disk) == {"g": b"old"}
        np.save("l.npy", np.zeros((20, 10)))
        np.save("t.npy", np.zeros(20, int))
        assert_done(run("grad", "l.npy", "t.npy", *arguments))
        assert sorted(path.name for path in Path(disk).iterdir()) == ["g", "loss.txt"]
    assert not temporaries(large)
