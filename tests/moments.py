"""Signals at random moments, and readers that stop reading: how soon `xent` is gone, and what it
leaves.

    python tests/moments.py [ROUNDS]

does so often, which takes minutes, and prints how long it took at most. The suite does so a few
times, in `test_faults.py`.
"""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cli import STOPS, XENT, contents, environment, heed_signals, temporaries

PATIENCE = 5  # seconds; half a second is promised, and others use the machine too
OLD = b"what was there before\n"
OUTPUTS = ("g.npy", "loss.txt")
TO_FILES = "-o g.npy --loss-out loss.txt"


@dataclass(frozen=True)
class Work:
    """A command line that lasts, and for about how long."""

    command: str
    seconds: float
    cold: bool = False  # the kernels are not compiled yet
    stdin: int | None = subprocess.DEVNULL
    stdout: int | None = subprocess.DEVNULL  # or a pipe that nobody reads


WORKS = {
    "start": Work(f"grad small.npy small-t.npy {TO_FILES}", 0.3),
    "waiting for input": Work(f"grad - t.npy {TO_FILES}", 0.6, stdin=subprocess.PIPE),
    "compilation": Work(f"grad small.npy small-t.npy --backend cpu {TO_FILES}", 12, cold=True),
    "kernel": Work(f"grad l.npy t.npy --backend cpu {TO_FILES}", 1.5),
    "kernel of NumPy": Work(f"grad l.npy t.npy --backend numpy {TO_FILES}", 1.5),
    "text": Work("softmax l.npy -f csv -o g.npy", 3),
    "archive": Work("grad l.npy t.npy -f npz -o g.npy", 1.5),
    "full pipe": Work("grad l.npy t.npy --loss-out loss.txt", 1.5, stdout=subprocess.PIPE),
}


def prepare(folder, rows=60_000):
    """Logits and targets, small and large, and old outputs."""
    rng = np.random.default_rng(7)
    for name, n in (("", rows), ("small-", 5)):
        np.save(folder / f"{name}t.npy", rng.integers(0, 100, n))
        stem = name.rstrip("-") or "l"
        np.save(folder / f"{stem}.npy", rng.standard_normal((n, 100), dtype=np.float32))
    reset(folder)


def reset(folder):
    """The outputs are the old ones."""
    for name in OUTPUTS:
        (folder / name).write_bytes(OLD)


def stop(folder, work, moment, number):
    """Start the work, send the signal after so many seconds; how long it lived on, and its code.

    Checked is that the outputs are old, or new where it ended before the signal.
    """
    reset(folder)
    cache = {"XENT_CACHE_DIR": str(folder / "cache")} if work.cold else {}
    before = contents(folder)
    with subprocess.Popen(
        [*XENT, *work.command.split()],
        cwd=folder,
        stdin=work.stdin,
        stdout=work.stdout,
        stderr=subprocess.PIPE,
        env=environment(**cache),
        preexec_fn=heed_signals,
    ) as process:
        time.sleep(moment)
        started = time.monotonic()
        process.send_signal(number)
        code = _wait(process)
        lived = time.monotonic() - started
        err = process.stderr.read().decode()
    if work.cold:
        shutil.rmtree(folder / "cache", ignore_errors=True)
    check(folder, before, number, code, err)
    return lived, code


def _wait(process):
    try:
        return process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"it still lives after {PATIENCE} s") from None


def check(folder, before, number, code, err):
    """I1 to I6, after a signal."""
    assert not temporaries(folder), "a temporary is left"
    after = {name: data for name, data in contents(folder).items() if name in before}
    changed = {name for name in before if after[name] != before[name]}
    if code == 0:
        assert changed
        return
    assert changed in (set(), {*OUTPUTS}, {"g.npy"}), changed
    if number == signal.SIGINT and "KeyboardInterrupt" in err and "xentcli/cli" not in err:
        return  # Python's own start, which xent cannot change
    assert code == -number, f"exit code {code}: {err}"
    assert re.fullmatch(r"(xent: (note: |loss |softmax |compiling)[^\n]*\n)*", err), err


def stop_reading(folder, command, rounds, count=10):
    """`COMMAND | head -c 10`: how long each round took beyond the reading."""
    for _ in range(rounds):
        reader = subprocess.Popen(
            [*XENT, *command.split()],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        assert len(reader.stdout.read(count)) == count
        reader.stdout.close()
        started = time.monotonic()
        code = _wait(reader)
        err = reader.stderr.read().decode()
        reader.stderr.close()
        assert code == -signal.SIGPIPE, f"exit code {code}: {err}"
        assert err == "", err
        yield time.monotonic() - started, code


READ_LITTLE = {
    "large": "grad l.npy t.npy --backend numpy",
    "large, Numba": "grad l.npy t.npy --backend cpu",
    "large text": "softmax l.npy -f csv --backend numpy",
    "large JSON": "softmax l.npy -f json --backend numpy",
    "large archive": "softmax l.npy -f npz --backend numpy",
    "loss of each row": "loss l.npy t.npy --reduction none",
}
READ_NOTHING = {
    "small": "grad small.npy small-t.npy",
    "one number": "loss small.npy small-t.npy",
    "facts": "inspect small.npy",
}


class Table:
    """What was found, by the work."""

    def __init__(self):
        self.wrong = []
        self._longest, self._codes = defaultdict(float), defaultdict(list)

    def add(self, name, rounds):
        """Go through (seconds, exit code) of some rounds; the first that is wrong is the last."""
        try:
            for seconds, code in rounds:
                self._longest[name] = max(self._longest[name], seconds)
                self._codes[name].append(code)
        except AssertionError as error:
            self.wrong.append(f"{name}: {error}")

    def __str__(self):
        lines = [f"{'work':20} rounds  longest  exit codes"]
        for name, found in self._codes.items():
            numbers = ", ".join(f"{found.count(code)} x {code}" for code in sorted(set(found)))
            lines.append(f"{name:20} {len(found):6} {self._longest[name]:6.3f} s  {numbers}")
        return "\n".join([*self.wrong, *lines, ""])


def at_random(folder, work, rounds):
    """Stop the work so often, each time at another moment."""
    for turn in range(rounds):
        yield stop(folder, work, random.random() * work.seconds, STOPS[turn % 3])


def main(rounds):
    """Everything, often."""
    table = Table()
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        prepare(folder, 300_000)
        os.environ["XENT_CACHE_DIR"] = str(folder / "warm")
        for command in ("grad l.npy t.npy", "loss l.npy t.npy", "softmax l.npy"):
            words = [*XENT, *command.split(), *["--backend", "cpu", "-q", "-o", "g.npy"]]
            subprocess.run(words, cwd=folder, env=environment(), check=True)
        for name, work in WORKS.items():
            table.add(name, at_random(folder, work, rounds))
        for name, command in READ_LITTLE.items():
            table.add(name, stop_reading(folder, command, rounds))
        for name, command in READ_NOTHING.items():
            table.add(name, stop_reading(folder, command, 10 * rounds, count=0))
    sys.stdout.write(str(table))
    return 1 if table.wrong else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
