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
from cli import XENT, contents, environment, heed_interrupts, temporaries

PATIENCE = 5  # seconds; half a second is promised, and others use the machine too
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
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
        preexec_fn=heed_interrupts,
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


def stop_reading(folder, command, rounds):
    """`COMMAND | head -c 10`: how long each round took beyond the reading."""
    for _ in range(rounds):
        reader = subprocess.Popen(
            [*XENT, *command.split()],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        assert len(reader.stdout.read(10)) == 10
        reader.stdout.close()
        started = time.monotonic()
        code = _wait(reader)
        err = reader.stderr.read().decode()
        reader.stderr.close()
        assert code in (-signal.SIGPIPE, 0), f"exit code {code}: {err}"
        assert code == 0 or err == "", err
        yield time.monotonic() - started, code


READ_LITTLE = {
    "large": "grad l.npy t.npy --backend numpy",
    "large, Numba": "grad l.npy t.npy --backend cpu",
    "large text": "softmax l.npy -f csv --backend numpy",
    "large JSON": "softmax l.npy -f json --backend numpy",
    "large archive": "softmax l.npy -f npz --backend numpy",
    "small": "grad small.npy small-t.npy",
    "loss of each row": "loss l.npy t.npy --reduction none",
}


def main(rounds):
    """Everything, often."""
    wrong, longest, codes = [], defaultdict(float), defaultdict(list)
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        prepare(folder, 300_000)
        os.environ["XENT_CACHE_DIR"] = str(folder / "warm")
        for command in ("grad l.npy t.npy", "loss l.npy t.npy", "softmax l.npy"):
            words = [*XENT, *command.split(), *["--backend", "cpu", "-q", "-o", "g.npy"]]
            subprocess.run(words, cwd=folder, env=environment(), check=True)
        for name, work in WORKS.items():
            for turn in range(rounds):
                moment, number = random.random() * work.seconds, STOPS[turn % 3]
                try:
                    lived, code = stop(folder, work, moment, number)
                except AssertionError as error:
                    wrong.append(f"{name}, {number.name} after {moment:.3f} s: {error}")
                    continue
                longest[name] = max(longest[name], lived)
                codes[name].append(code)
        for name, command in READ_LITTLE.items():
            try:
                for seconds, code in stop_reading(folder, command, rounds):
                    longest[name] = max(longest[name], seconds)
                    codes[name].append(code)
            except AssertionError as error:
                wrong.append(f"{name}: {error}")
    lines = [f"{'work':20} rounds  longest  exit codes"]
    for name, found in codes.items():
        numbers = ", ".join(f"{found.count(code)} x {code}" for code in sorted(set(found)))
        lines.append(f"{name:20} {len(found):6} {longest[name]:6.3f} s  {numbers}")
    sys.stdout.write("\n".join([*wrong, *lines]) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
