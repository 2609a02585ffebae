"""Whole processes: `xent grad` next to scripts of NumPy and PyTorch that do the same.

Each reads the same two .npy files and writes a new one. They run in turn, first without being
timed, so that files and programs are in the system's cache. A time is from start to end; memory is
the most that was resident at once.
"""

from __future__ import annotations

import importlib.util
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.bench import Plan
from xentcli.bench.case import Case, Data
from xentcli.bench.columns import OF_PROCESSES
from xentcli.errors import OptionError, UnavailableError, visible
from xentcli.records import dataclass

WHOLE = "whole processes"
SCRIPTS = {"numpy": "numpy_script.py", "torch": "torch_script.py"}


class Taken(NamedTuple):
    """What a process took: seconds from start to end, of processors, and bytes; None if unknown."""

    seconds: float
    cpu: float | None
    memory: int | None


@dataclass
class Program:
    """One line of the table: a command, and what it took in each round."""

    name: str
    command: list[str]
    taken: list[Taken] = field(default_factory=list)
    why_not: str | None = None

    @property
    def seconds(self) -> list[float]:
        """Those of each round."""
        return [one.seconds for one in self.taken]


@dataclass
class ProcessResult:
    """A case and the programs that computed it; the first is xent."""

    case: Case
    programs: list[Program]
    columns = OF_PROCESSES

    @property
    def title(self) -> str:
        """The case in words."""
        return self.case.title(WHOLE)

    def words(self) -> str:
        """What was done."""
        return f"from two .npy files to a new one, {self.case.nbytes / 1e6:,.1f} MB of logits"

    def about(self) -> dict[str, Any]:
        """The facts for JSON, besides the table."""
        return {"case": self.title, "shape": list(self.case.shape), "dtype": self.case.dtype}

    def rows(self) -> list[dict[str, Any]]:
        """The table as dicts; `times_ours` is the median of the ratios of each round."""
        return [self._row(program) for program in self.programs]

    def _row(self, program: Program) -> dict[str, Any]:
        mine, theirs = self.programs[0].seconds, program.seconds
        cpu = [one.cpu for one in program.taken if one.cpu is not None]
        memory = [one.memory for one in program.taken if one.memory is not None]
        ratios = [a / b for a, b in zip(theirs, mine, strict=False)]
        return {
            "who": program.name,
            "median_ms": statistics.median(theirs) * 1e3 if theirs else None,
            "min_ms": min(theirs) * 1e3 if theirs else None,
            "max_ms": max(theirs) * 1e3 if theirs else None,
            "cpu_ms": statistics.median(cpu) * 1e3 if cpu else None,
            "peak_mb": max(memory) / 1e6 if memory else None,
            "times_ours": statistics.median(ratios) if ratios else None,
            "why_not": program.why_not,
            "seconds": theirs,
        }


def measure(case: Case, plan: Plan, notify: Callable[[str], None]) -> ProcessResult:
    """Time all programs in turn; the gradients of the first run are compared with that of xent."""
    _require_plain(case)
    with TemporaryDirectory(prefix="xent-bench-") as name:
        folder = Path(name)
        data = Data.make(case, plan.seed).whole(case)
        np.save(folder / "logits.npy", data.logits)
        np.save(folder / "targets.npy", data.targets)
        programs = _programs(folder, plan)
        for program in programs:
            notify(f"{program.name}: first run and check")
            _check(program, folder)
        for number in range(1 - plan.warmup, plan.runs + 1):
            notify(f"round {number + plan.warmup} of {plan.warmup + plan.runs}")
            for program in programs:
                if not program.why_not:
                    taken = _run(program.command, folder / f"{program.name}.npy")
                    program.taken += [taken] if number > 0 else []
    return ProcessResult(case, programs)


def _require_plain(case: Case) -> None:
    plain = Case(case.shape, case.dtype)
    if case != plain or len(case.shape) != 2 or case.dtype not in ("f32", "f64"):
        what = "the scripts compute the plain loss and gradient of rows in f32 or f64"
        raise OptionError("process", what, "leave the other options of the case out")


def _programs(folder: Path, plan: Plan) -> list[Program]:
    files = [str(folder / "logits.npy"), str(folder / "targets.npy")]
    backend, threads = plan.machine
    ours = [*_xent(), "grad", *files, "--backend", backend, "-q"]
    ours += ["--threads", str(threads)] if threads else []
    programs = [Program("xent", [*ours, "-o", str(folder / "xent.npy")])]
    here = Path(__file__).parent
    for name, script in SCRIPTS.items():
        if name in plan.against:
            command = [sys.executable, str(here / script), *files, str(folder / f"{name}.npy")]
            programs.append(Program(name, command))
            if importlib.util.find_spec(name) is None:
                programs[-1].why_not = "is not installed"
    return programs


def _xent() -> list[str]:
    """The command that users type; `python -m` takes some milliseconds more."""
    script = Path(sys.executable).with_name("xent")
    return [str(script)] if script.exists() else [sys.executable, "-m", "xentcli"]


def _check(program: Program, folder: Path) -> None:
    """Run a program once; a script that fails, or gives another gradient, will not be timed."""
    if program.why_not:
        return
    output = folder / f"{program.name}.npy"
    try:
        _run(program.command, output)
    except UnavailableError as error:
        if program.name == "xent":
            raise
        program.why_not = error.what
        return
    if not _alike(np.load(output, mmap_mode="r"), np.load(folder / "xent.npy", mmap_mode="r")):
        program.why_not = "gives a wrong answer"


def _alike(found: Array, ours: Array) -> bool:
    same = found.shape == ours.shape
    return same and bool(np.max(np.abs(found - ours)) <= 1e-3 * np.max(np.abs(ours)))


def _run(command: list[str], output: Path) -> Taken:
    """Run a program that writes a new file."""
    output.unlink(missing_ok=True)
    launched = [sys.executable, "-S", str(Path(__file__).with_name("launcher.py")), *command]
    done = subprocess.run(launched, capture_output=True, check=False, text=True, errors="replace")
    code, seconds, cpu, kib = done.stdout.split() or ["1", "0", "-", "-"]
    if code != "0":
        last = visible(done.stderr.strip().rpartition("\n")[2])
        raise UnavailableError("process", f"failed: {last}")
    memory = None if kib == "-" else int(kib) * 1024
    return Taken(float(seconds), None if cpu == "-" else float(cpu), memory)
