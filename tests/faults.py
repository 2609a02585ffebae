"""Faults put under `xent` by strace: every single operation on its files fails once, or the
process is told to stop there, and what is left is checked.

    python tests/faults.py [JOB...]

tries all of them, which takes minutes, and prints a table. `test_faults.py` tries a few.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from cli import (
    LOGITS,
    TARGETS,
    Result,
    assert_clean,
    assert_error,
    contents,
    environment,
    heed_signals,
    npy,
)
from cli import temporaries as temporaries_in

# Operations by their names in the table, with the system calls that they are on one machine or
# another, and the errors and signals that make sense for each.
READING = ("EIO", "ENOMEM")
WRITING = ("EIO", "ENOSPC", "EDQUOT")
STOPS = ("SIGINT", "SIGTERM", "SIGHUP")
SIGNALS = (*STOPS, "SIGKILL")
CALLS = {
    "open": (("openat", "open"), (*WRITING, "EMFILE", "ENOMEM", *SIGNALS)),
    "stat": (("newfstatat", "fstat", "stat", "lstat", "statx"), ("EIO",)),
    "read": (("read", "pread64", "preadv"), (*READING, *STOPS)),
    "seek": (("lseek",), ("EIO",)),
    "write": (("write", "pwrite64"), (*WRITING, *SIGNALS)),
    "chmod": (("chmod", "fchmod", "fchmodat"), ("EIO", "EPERM", *SIGNALS)),
    "fsync": (("fsync",), (*WRITING, *SIGNALS)),
    "close": (("close",), (*WRITING, *SIGNALS)),
    "rename": (("rename", "renameat", "renameat2"), (*WRITING, "ENOMEM", *SIGNALS)),
    "link": (("link", "linkat"), (*WRITING, "EPERM", "EMLINK", *SIGNALS)),
    "unlink": (("unlink", "unlinkat"), ("EIO", *SIGNALS)),
}
OPERATIONS = {call: name for name, (calls, _) in CALLS.items() for call in calls}
MAIN = "from xentcli.__main__ import main; main()"
GATHER = "from xentcli.files.npy import reader; reader.SAFE = 0; "
PIECES = "from xentcli.engine import rows; rows.SLAB = 1; "
OLD = b"what was there before\n"


@dataclass(frozen=True)
class Job:
    """A command line; `old` are the outputs that are there before it."""

    command: str
    outputs: tuple[str, ...] = ()
    old: tuple[str, ...] = ()
    stdin: str | None = None
    before: str = ""  # Python that runs first

    @property
    def inputs(self):
        words = {*self.command.split(), self.stdin}
        return sorted(words & INPUTS.keys())


def _archive(place):
    np.savez_compressed(place, l=LOGITS)


def _text(place):
    place.write_text("".join(",".join(map(repr, row)) + "\n" for row in LOGITS.tolist()))


INPUTS = {
    "l.npy": lambda place: place.write_bytes(npy(LOGITS)),
    "t.npy": lambda place: place.write_bytes(npy(TARGETS)),
    "f.npy": lambda place: place.write_bytes(npy(np.asfortranarray(LOGITS))),
    "w.npy": lambda place: place.write_bytes(npy(np.ones(3))),
    "l.npz": _archive,
    "l.csv": _text,
}
BOTH = ("g.npy", "loss.txt")
BESIDE = "grad l.npy t.npy -o g.npy --loss-out loss.txt"
JOBS = {
    "new file": Job("grad l.npy t.npy -o g.npy", ("g.npy",)),
    "new file, --fsync": Job("grad l.npy t.npy -o g.npy --fsync", ("g.npy",)),
    "replace": Job("grad l.npy t.npy -o g.npy", ("g.npy",), ("g.npy",)),
    "replace two": Job(BESIDE, BOTH, BOTH),
    "one new, one old": Job(BESIDE, BOTH, ("loss.txt",)),
    "two new": Job(BESIDE, BOTH),
    "no-clobber": Job("grad l.npy t.npy -n -o g.npy", ("g.npy",)),
    "no-clobber, two": Job(f"{BESIDE} -n", BOTH),
    "pipe": Job("grad l.npy t.npy"),
    "pipe and file": Job("grad l.npy t.npy --loss-out loss.txt", ("loss.txt",), ("loss.txt",)),
    "stdin": Job("grad - t.npy -o g.npy --weight w.npy", ("g.npy",), ("g.npy",), stdin="l.npy"),
    "text": Job("softmax l.csv -o p.csv", ("p.csv",)),
    "archive": Job("grad l.npz t.npy -o g.npy", ("g.npy",), ("g.npy",)),
    "inspect": Job("inspect l.npy l.npz l.csv --stats"),
    "loss": Job("loss l.npy t.npy -o loss.txt", ("loss.txt",), ("loss.txt",)),
    "rows gathered": Job("grad f.npy t.npy -o g.npy", ("g.npy",), before=GATHER),
    "in threads": Job(BESIDE, BOTH, BOTH, before=PIECES),
}


@dataclass(frozen=True)
class Call:
    """A system call in strace's log: the `number`-th of its name in its thread.

    A thread that is not the first one begins to count where the interpreter started too; so
    calls on an input are counted for its `path` alone there.
    """

    name: str
    number: int
    text: str
    path: str | None = None

    @property
    def operation(self):
        return OPERATIONS[self.name]


@dataclass(frozen=True)
class Fault:
    """What happens instead of a call, or just before it: an error or a signal."""

    call: Call
    what: str

    def inject(self, folder):
        """The options of strace."""
        kind = "signal" if self.what in SIGNALS else "error"
        only = ["-P", folder / self.call.path] if self.call.path else []
        where = f"{self.call.name}:{kind}={self.what}:when={self.call.number}"
        return [*only, "-e", f"inject={where}"]

    def __str__(self):
        return f"{self.what} at {self.call.name} {self.call.number}: {self.call.text[:120]}"


class Place:
    """A folder with the files of one job, and the runs of it."""

    def __init__(self, root, job):
        self.job, self.folder, self.log = job, root / "job", root / "log"
        self._elsewhere = root / "elsewhere"  # so that what concerns the job is known by its path
        for folder in (self.folder, self._elsewhere):
            folder.mkdir(parents=True)
        for name in job.inputs:
            INPUTS[name](self.folder / name)
        self.reset()
        self.before = contents(self.folder)

    def reset(self):
        """The outputs are as they were before the job."""
        for path in self.folder.iterdir():
            if path.name not in self.job.inputs:
                path.unlink()
        for name in self.job.old:
            (self.folder / name).write_bytes(OLD)

    def run(self, *options):
        """The job under strace."""
        names = {*self.job.inputs, *self.job.outputs}
        words = [str(self.folder / w) if w in names else w for w in self.job.command.split()]
        trace = ",".join(f"?{call}" for call in OPERATIONS)
        how = ["-f", "-y", "-qq", "-o", self.log, "-e", f"trace={trace}"]
        if not any(":signal=" in option for option in map(str, options)):
            how.append("--seccomp-bpf")  # quicker, but then signals are not sent
        with Path(self.folder, self.job.stdin or os.devnull).open() as stdin:
            done = subprocess.run(
                ["strace", *how, *options, sys.executable, "-c", self.job.before + MAIN, *words],
                cwd=self._elsewhere,
                stdin=stdin,
                capture_output=True,
                env=environment(PYTHONDONTWRITEBYTECODE="1"),
                timeout=60,
                preexec_fn=heed_signals,
                check=False,
            )
        return Result(done.returncode, done.stdout, done.stderr.decode())

    def calls(self):
        """What the last run did, in order."""
        count, first = Counter(), None
        for line in self.log.read_text(errors="replace").splitlines():
            if match := re.match(r"(\d+) +(\w+)\((.*)", line):
                thread, name, text = match.groups()
                first = first or thread
                found = re.search(rf"{re.escape(str(self.folder))}/(\w+\.\w+)\b", text)
                path = found[1] if found and thread != first else None
                count[thread, name, path] += 1
                yield Call(name, count[thread, name, path], text, path)

    def concerns(self, call):
        """Whether a call is on the job's files or on its standard streams.

        What the interpreter does before and beside the job is left out.
        """
        if re.match(r"[012]<", call.text):
            return call.operation in ("read", "write")
        return str(self.folder) in call.text

    @cached_property
    def clean(self):
        """The result without faults, and the files after it."""
        result = self.run()
        assert result.code == 0, result.err
        points = {(c.name, c.number, c.path): c for c in self.calls() if self.concerns(c)}
        after = contents(self.folder)
        assert after.keys() == {*self.job.inputs, *self.job.outputs}
        self.reset()
        return result, after, list(points.values())

    def faults(self):
        """Every error and every signal at every call."""
        for call in self.clean[2]:
            for what in CALLS[call.operation][1]:
                yield Fault(call, what)

    def try_fault(self, fault):
        """Run with a fault and check what is left; in a word, what came of it."""
        self.clean  # noqa: B018 (it has to come first)
        self.reset()
        result = self.run(*fault.inject(self.folder))
        log = self.log.read_text(errors="replace")
        hit = re.search(r"^.*\(INJECTED\)|--- SIG|\+\+\+ killed", log, re.MULTILINE)
        if not hit:
            return "not reached"
        if fault.what == "SIGKILL":
            return f"killed, {self.check_killed(result)}"
        self.check(result, fault.what, hit[0].partition("(")[2])
        return f"{result.code}, {self.state()}".removesuffix(", ")

    def check(self, result, what, text):
        """I1 to I6 of robustness.md, after a fault in the call of that text."""
        new, out = self.clean[1], self.clean[0].out
        assert not temporaries_in(self.folder), "a temporary is left"
        assert self.state() in ("", "old", "new"), "one output is new and one is old"
        self.check_files()
        assert_clean(result.err)
        if result.code == 0:
            assert contents(self.folder) == new, "success without the result"
            assert result.out == out, "success without the output"
            return
        assert out.startswith(result.out), "wrong bytes on standard output"
        if what in STOPS:
            assert result.code == -getattr(signal, what), f"exit code {result.code}"
            assert re.fullmatch(r"(xent: (loss|softmax) [^\n]*\n)?", result.err), result.err
            return
        assert_error(Result(result.code, b"", result.err), 4)
        self.check_name(result.err, text)

    def check_name(self, err, text):
        """The message names the file that the fault is on; a temporary stands for an output."""
        where = err.removeprefix("xent: error: ").split(": ")[0]
        inputs = [name for name in self.job.inputs if str(self.folder / name) in text]
        names = [str(self.folder / name) for name in (inputs or self.job.outputs)]
        if text.startswith("1<"):
            names = ["<stdout>"]
        if text.startswith("0<"):
            names = ["<stdin>"]
        assert where.split("[")[0] in names, f"{where} is named and not {names}"

    def check_files(self):
        """Inputs are unchanged, outputs are old or new, nothing else is there."""
        found, new = contents(self.folder), self.clean[1]
        for name in self.job.inputs:
            assert found.pop(name) == self.before[name], f"{name} was changed"
        for name, data in found.items():
            assert name in self.job.outputs or re.fullmatch(r"\.xent-\w+(-old)?\.tmp", name), name
            if name in self.job.outputs:
                assert data in (self.before.get(name), new[name]), f"{name} is neither old nor new"
        assert {*self.job.old} <= found.keys(), "an old output is gone"

    def check_killed(self, result):
        """Old or new, few temporaries, and the next run does not mind them; which it is."""
        assert result.code == -signal.SIGKILL
        self.check_files()
        left = temporaries_in(self.folder)
        most = 1 if len(self.job.outputs) < 2 else 2 * len(self.job.outputs)
        assert len(left) <= most, f"too many temporaries: {left}"
        state = self.state()
        if "-n" in self.job.command and state != "old":
            return state  # what is there is kept
        again = self.run()
        assert again.code == 0, again.err
        assert temporaries_in(self.folder) == left
        after = contents(self.folder)
        assert {name: after[name] for name in self.clean[1]} == self.clean[1]
        return state

    def state(self):
        """Whether the outputs are old or new."""
        found, new = contents(self.folder), self.clean[1]
        states = {"new" if found.get(n) == new[n] else "old" for n in self.job.outputs}
        return " and ".join(sorted(states))


def missing():
    """Why faults cannot be injected here, or None."""
    if not shutil.which("strace"):
        return "strace is not here"
    options = ["-f", "--seccomp-bpf", "-e", "trace=close", "-e", "inject=close:error=EIO:when=999"]
    done = subprocess.run(["strace", *options, "true"], capture_output=True, check=False)
    return "ptrace is not allowed here" if done.returncode else None


def try_each(place, faults):
    """Try some faults; for each the word of what came of it, or what is wrong."""
    for fault in faults:
        try:
            yield fault, place.try_fault(fault), None
        except AssertionError as error:
            yield fault, "WRONG", str(error).splitlines()[0]


def _all_of(name, part, parts):
    with tempfile.TemporaryDirectory() as root:
        place = Place(Path(root), JOBS[name])
        return list(try_each(place, list(place.faults())[part::parts]))


def main(names):
    """Try everything, print the table and what is wrong."""
    if reason := missing():
        sys.exit(reason)
    table, problems, parts = defaultdict(Counter), [], os.cpu_count() or 1
    jobs = [(name, part, parts) for name in names or JOBS for part in range(parts)]
    with ThreadPoolExecutor(parts) as pool:
        for (name, *_), done in zip(jobs, pool.map(lambda job: _all_of(*job), jobs), strict=True):
            for fault, word, error in done:
                table[fault.call.operation, fault.what][word] += 1
                if error:
                    problems.append(f"{name}: {fault}: {error}")
    lines = [f"{'operation':10} {'fault':8} {'N':>4}  outcomes"]
    for (operation, what), words in sorted(table.items()):
        outcomes = ", ".join(f"{count} x ({word})" for word, count in sorted(words.items()))
        lines.append(f"{operation:10} {what:8} {sum(words.values()):4}  {outcomes}")
    sys.stdout.write("\n".join([*problems, *lines, ""]))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
