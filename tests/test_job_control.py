"""Ctrl-Z, `fg` and `bg` under a shell with job control, on a terminal of its own."""

import fcntl
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import termios
import time

import numpy as np
import pytest
from cli import TIMEOUT, environment, npy

pytestmark = pytest.mark.skipif(not shutil.which("bash"), reason="bash is not here")

SHOW, HIDE = b"\x1b[?25h", b"\x1b[?25l"
PERCENT = rb"\d+%"


class Shell:
    """An interactive bash, and what it and its jobs have written."""

    def __init__(self, folder):
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "-i"],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=folder,
            env=environment(PS1="$ ", PYTHON=sys.executable, HISTFILE=""),
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.output, self.seen = b"", 0

    def type(self, text):
        """Type some keys."""
        os.write(self.master, text)

    def expect(self, pattern):
        """Wait for a pattern in what has come since the last one; what came before it."""
        deadline = time.monotonic() + TIMEOUT
        while not (match := re.compile(pattern, re.DOTALL).search(self.output, self.seen)):
            assert time.monotonic() < deadline, f"{pattern!r} is not in {self.output[-500:]!r}"
            if select.select([self.master], [], [], 1)[0]:
                self.output += os.read(self.master, 1 << 16)
        before, self.seen = self.output[self.seen : match.start()], match.end()
        return before

    def close(self):
        """End the shell and its jobs."""
        os.close(self.master)
        self.process.kill()
        self.process.wait()


@pytest.fixture
def shell(tmp_path):
    """A shell in a folder with a FIFO for the logits, and targets."""
    os.mkfifo(tmp_path / "fifo")
    np.save(tmp_path / "t.npy", np.zeros(ROWS, int))
    shell = Shell(tmp_path)
    yield shell
    shell.close()


ROWS, CLASSES = 4000, 1000
DATA = npy(np.zeros((ROWS, CLASSES), np.float32))
QUARTER = len(DATA) // 4
RUN = b"$PYTHON -m xentcli loss fifo t.npy"


def started(shell, folder, options=b""):
    """Start a job whose input comes slowly; a descriptor to feed it."""
    shell.type(RUN + options + b"\n")
    feed = os.open(folder / "fifo", os.O_WRONLY)
    write(feed, DATA[:QUARTER])
    return feed


def write(number, data):
    """Write all of it."""
    while data:
        data = data[os.write(number, data) :]


def with_bar(shell, folder):
    """The same, when it shows its bar, which takes a second."""
    feed = started(shell, folder)
    time.sleep(1.2)
    write(feed, DATA[QUARTER : 3 * QUARTER])
    shell.expect(re.escape(HIDE))
    shell.expect(PERCENT)
    return feed


def finish(shell, feed):
    """Give it the rest of its input, and see the loss."""
    write(feed, DATA[3 * QUARTER :])
    os.close(feed)
    shell.expect(rb"6\.9077")


def test_ctrl_z_gives_the_cursor_back_and_fg_draws_the_bar_again(shell, tmp_path):
    feed = with_bar(shell, tmp_path)
    for _ in range(2):
        shell.type(b"\x1a")
        assert HIDE not in shell.expect(re.escape(SHOW))
        assert HIDE not in shell.expect(b"Stopped")
        shell.type(b"fg\n")
        shell.expect(re.escape(HIDE))
        shell.expect(PERCENT)
    finish(shell, feed)
    assert SHOW in shell.output[shell.output.rindex(HIDE) :]


@pytest.mark.slow
def test_bg_leaves_the_cursor_to_the_shell(shell, tmp_path):
    feed = with_bar(shell, tmp_path)
    shell.type(b"\x1a")
    shell.expect(b"Stopped")
    shell.type(b"bg\n")
    shell.expect(PERCENT)
    shell.type(b"echo still $((6 * 7))\n")
    assert HIDE not in shell.expect(b"still 42")
    shell.type(b"fg\n")
    finish(shell, feed)


@pytest.mark.slow
def test_ctrl_c_after_fg_ends_it_by_the_signal_and_gives_the_cursor_back(shell, tmp_path):
    feed = with_bar(shell, tmp_path)
    shell.type(b"\x1a")
    shell.expect(b"Stopped")
    shell.type(b"fg\n")
    shell.expect(re.escape(HIDE))
    shell.type(b"\x03")
    shell.expect(re.escape(SHOW))
    shell.type(b"echo code $?\n")
    shell.expect(b"code 130")
    os.close(feed)


@pytest.mark.slow
def test_ctrl_z_without_a_bar_writes_nothing(shell, tmp_path):
    feed = started(shell, tmp_path, b" --no-progress")
    shell.type(b"\x1a")
    shell.expect(b"Stopped")
    shell.type(b"fg\n")
    write(feed, DATA[QUARTER : 3 * QUARTER])
    finish(shell, feed)
    assert SHOW not in shell.output
    assert HIDE not in shell.output
