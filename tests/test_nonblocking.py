"""Streams that are non-blocking, as node, ssh and asyncio leave those of their children: a read
without data is not the end, and a write without room is no error."""

import fcntl
import os
import pty
import select
import shutil
import socket
import subprocess
import sys
import termios
import time
import tty
from contextlib import contextmanager
from itertools import product
from threading import Thread

import numpy as np
import pytest
from cli import (
    LOGITS,
    PROBABILITIES,
    TIMEOUT,
    XENT,
    assert_done,
    environment,
    from_npy,
    inside,
    npy,
    process_at_terminal,
    run,
)

CHANNELS = ("pipe", "fifo", "socket", "pty")
QUICK = {  # the rest is slow: each waits in a process of its own
    "in-socket",
    "in-pty",
    "l.npz-fifo",
    "npz-pipe",
    "help of a command-pipe",
    "json-pipe",
    "preview-pty",
    "note-pipe",
}
MOMENT = 0.1  # seconds in which a process comes to where it has to wait, or else waits less


def cases(names, kinds=CHANNELS):
    """Every name with every kind of channel."""
    return [
        pytest.param(
            name,
            kind,
            id=f"{name}-{kind}",
            marks=[] if f"{name}-{kind}" in QUICK else [pytest.mark.slow],
        )
        for name, kind in product(names, kinds)
    ]


@contextmanager
def channel(kind, folder, flow):
    """Our end and the non-blocking one of `xent`, which reads ("in") or writes ("out")."""
    ours, theirs = _ends(kind, folder, flow)
    os.set_blocking(theirs, False)
    try:
        yield ours, theirs
    finally:
        for number in (ours, theirs):
            _close(number)


def _ends(kind, folder, flow):
    if kind == "pipe":
        reader, writer = os.pipe()
        return (writer, reader) if flow == "in" else (reader, writer)
    if kind == "fifo":
        os.mkfifo(folder / "fifo")
        both = os.open(folder / "fifo", os.O_RDWR)  # the other end can be opened now
        ours = os.open(folder / "fifo", os.O_WRONLY if flow == "in" else os.O_RDONLY)
        theirs = os.open(folder / "fifo", os.O_RDONLY if flow == "in" else os.O_WRONLY)
        os.close(both)
        return ours, theirs
    if kind == "socket":
        ours, theirs = socket.socketpair()
        return ours.detach(), theirs.detach()
    master, slave = pty.openpty()
    if flow == "out":
        tty.setraw(slave)
    else:  # lines, which end by ^D; and no echo, which nobody would read
        how = termios.tcgetattr(slave)
        how[3] &= ~termios.ECHO
        termios.tcsetattr(slave, termios.TCSANOW, how)
    return master, slave


def _close(number):
    try:
        os.close(number)
    except OSError:  # it is closed already
        return


def feed(number, parts, *, terminal):
    """Write parts, each when the one before is read and its reader has come to wait for more."""
    for part in parts:
        while part:
            part = part[os.write(number, part) :]
        time.sleep(MOMENT)
    if terminal:
        os.write(number, b"\x04")
    else:
        os.close(number)


def drain(number):
    """Everything up to the end."""
    parts = []
    while select.select([number], [], [], TIMEOUT)[0]:
        try:
            data = os.read(number, 1 << 16)
        except OSError:  # how a terminal without writers ends
            break
        if not data:
            break
        parts.append(data)
    return b"".join(parts)


def fill(number):
    """Write to a non-blocking descriptor until there is no room; what was written."""
    written = 0
    for piece in (b"x" * 512, b"x"):
        try:
            while True:
                written += os.write(number, piece)
        except BlockingIOError:
            continue
    return b"x" * written


@contextmanager
def child(*arguments, **streams):
    """`xent ARGUMENTS` on these streams."""
    how = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*XENT, *arguments], env=environment(), **{**how, **streams}) as process:
        try:
            yield process
        finally:
            process.kill()


TABLE = b"".join(b",".join(b"%d" % (i * c) for c in range(1, 4)) + b"\n" for i in range(40))


@pytest.mark.parametrize(("flow", "kind"), cases(["in"]))
def test_input_that_comes_slowly_is_read_to_its_end(flow, kind, files, capfdbinary):
    expected = inside(capfdbinary, "softmax", "-", stdin=TABLE)
    parts = [TABLE[i : i + 150] for i in range(0, len(TABLE), 150)]
    path = "/dev/stdin" if kind == "pty" else "-"  # which refuses a terminal
    with (
        channel(kind, files, flow) as (ours, theirs),
        child("softmax", path, stdin=theirs) as process,
    ):
        os.close(theirs)
        Thread(target=feed, args=(ours, parts), kwargs={"terminal": kind == "pty"}).start()
        out, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, out) == (0, expected.out), err


@pytest.mark.parametrize(
    ("name", "kind"), cases(["l.npy", "l.npz", "t.npy"], kinds=["fifo", "socket"])
)
def test_every_format_waits_for_its_input(name, kind, files):
    np.savez("l.npz", a=LOGITS)
    expected = run("grad", "l.npy", "t.npy")
    data = (files / name).read_bytes()
    parts = [data[:5], data[5:60], data[60:-9], data[-9:]]
    paths = ["l.npy", "-"] if name == "t.npy" else ["-", "t.npy"]
    with (
        channel(kind, files, "in") as (ours, theirs),
        child("grad", *paths, "-f", "npy", stdin=theirs) as process,
    ):
        os.close(theirs)
        Thread(target=feed, args=(ours, parts), kwargs={"terminal": False}).start()
        out, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, out) == (0, expected.out), err


def test_a_socket_can_be_read_by_its_path(files):
    with (
        channel("socket", files, "in") as (ours, theirs),
        child("softmax", "/dev/stdin", stdin=theirs) as process,
    ):
        os.close(theirs)
        Thread(target=feed, args=(ours, [npy(LOGITS)]), kwargs={"terminal": False}).start()
        out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, err
    np.testing.assert_allclose(from_npy(out), PROBABILITIES, rtol=1e-15)


# What is larger than any of the channels holds, and what is small and finds its channel full.

FORMATS = ("npy", "npz", "csv", "json")


@pytest.mark.slow
@pytest.mark.parametrize(("format", "kind"), cases(FORMATS))
def test_a_large_output_waits_for_its_reader(format, kind, files):
    command = ["softmax", "big.npy", "-o", "-", "-f", format]
    np.save("big.npy", np.arange(60_000.0).reshape(-1, 3) % 7)
    expected = run(*command)
    with channel(kind, files, "out") as (ours, theirs), child(*command, stdout=theirs) as process:
        os.close(theirs)
        time.sleep(4 * MOMENT)
        out = drain(ours)
        err = process.stderr.read().decode()
        assert process.wait(TIMEOUT) == 0, err
    assert len(out) == len(expected.out) > 300_000
    assert out == expected.out or command[-1] == "npz"  # which holds the time


SMALL = {
    "help": ["--help"],
    "help of a command": ["grad", "--help"],
    "version": ["--version"],
    "loss": ["loss", "l.npy", "t.npy"],
    "json": ["grad", "l.npy", "t.npy", "-o", "g.npy", "--json"],
    "json of a loss": ["loss", "l.npy", "t.npy", "--json"],
    "loss-out": ["grad", "l.npy", "t.npy", "-o", "g.npy", "--loss-out", "-"],
    "preview": ["softmax", "l.npy"],
    "document": ["explain", "l.npy", "t.npy"],
    "inspect": ["inspect", "l.npy"],
    "completion": ["completion", "bash"],
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), cases(SMALL))
def test_a_small_output_waits_until_there_is_room(name, kind, files):
    command = SMALL[name]
    alone = process_at_terminal if kind == "pty" else run
    expected = alone(*command, env={"COLUMNS": "80"})
    with channel(kind, files, "out") as (ours, theirs):
        junk = fill(theirs)
        env = environment(COLUMNS="80")
        with subprocess.Popen(
            [*XENT, *command], stdout=theirs, stderr=subprocess.PIPE, stdin=theirs, env=env
        ) as process:
            os.close(theirs)
            time.sleep(4 * MOMENT)
            out = drain(ours)
            err = process.stderr.read()
            assert process.wait(TIMEOUT) == 0, err
    assert out[: len(junk)] == junk
    assert without_seconds(out[len(junk) :]) == without_seconds(expected.out)


def without_seconds(data):
    """JSON without the time that it took."""
    return data.partition(b'"seconds"')[0]


MESSAGES = {
    "summary": ["loss", "l.npy", "t.npy"],
    "note": ["loss", "l.npy", "t2.npy"],
    "error": ["softmax", "missing.npy"],
}


@pytest.mark.parametrize(("name", "kind"), cases(MESSAGES, kinds=["pipe", "socket", "pty"]))
def test_messages_wait_until_there_is_room(name, kind, files):
    command = MESSAGES[name]
    np.save("t2.npy", np.array([[0.5, 0.1, 0.1], [1.0, 0.0, 0.0]]))
    expected = run(*command)
    with channel(kind, files, "out") as (ours, theirs):
        junk = fill(theirs)
        with child(*command, "--color", "never", stderr=theirs) as process:
            os.close(theirs)
            time.sleep(4 * MOMENT)
            err = drain(ours)
            assert process.wait(TIMEOUT) == expected.code
    words = err.removeprefix(junk).decode().split()
    assert without_digits(words) == without_digits(expected.err.split())


def without_digits(words):
    """Words that do not differ from run to run."""
    return [word for word in words if not word.replace(".", "").isdigit()]


@pytest.mark.slow
@pytest.mark.parametrize("end", ["stdin", "stdout"])
def test_the_descriptors_of_others_stay_non_blocking(end, files):
    """The flag belongs to the open file, which the parent shares."""
    with channel("socket", files, "in" if end == "stdin" else "out") as (ours, theirs):
        if end == "stdin":
            os.write(ours, npy(LOGITS))
            os.close(ours)
        with child("softmax", "-" if end == "stdin" else "l.npy", **{end: theirs}) as process:
            process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0
        assert fcntl.fcntl(theirs, fcntl.F_GETFL) & os.O_NONBLOCK


def test_a_reader_that_goes_away_ends_it_while_it_waits(files):
    np.save("big.npy", np.zeros((60_000, 3)))
    with (
        channel("pipe", files, "out") as (ours, theirs),
        child("softmax", "big.npy", stdout=theirs) as process,
    ):
        os.close(theirs)
        time.sleep(4 * MOMENT)
        os.close(ours)
        assert process.wait(TIMEOUT) == -13
        assert process.stderr.read() == b""


NODE = """
const { spawn } = require("child_process");
const [command, ...words] = process.argv.slice(1);
const child = spawn(command, words, { stdio: ["pipe", "pipe", "inherit"] });
const data = require("fs").readFileSync("big.npy");
let sent = 0;
const more = setInterval(() => {
  child.stdin.write(data.subarray(sent, sent + 500_000)); sent += 500_000;
  if (sent >= data.length) { clearInterval(more); child.stdin.end(); }
}, 20);
setTimeout(() => child.stdout.pipe(process.stdout), 500);
child.on("exit", (code) => { process.exitCode = code; });
"""
ASYNCIO = """
import asyncio, sys
async def main():
    child = await asyncio.create_subprocess_exec(
        *sys.argv[1:], stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    out, _ = await child.communicate(open("big.npy", "rb").read())
    sys.stdout.buffer.write(out)
    return child.returncode
sys.exit(asyncio.run(main()))
"""


@pytest.mark.parametrize("parent", ["node", pytest.param("asyncio", marks=pytest.mark.slow)])
def test_a_child_of_node_and_of_asyncio(parent, files, capfdbinary):
    if parent == "node" and not shutil.which("node"):
        pytest.skip("node is not here")
    np.save("big.npy", np.arange(300_000.0).reshape(-1, 3) % 7)
    expected = inside(capfdbinary, "softmax", "big.npy")
    assert_done(expected)
    start = ["node", "-e", NODE] if parent == "node" else [sys.executable, "-c", ASYNCIO]
    done = subprocess.run(
        [*start, *XENT, "softmax", "-"], capture_output=True, env=environment(), timeout=TIMEOUT,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == expected.out
