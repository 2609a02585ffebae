"""`xent compile`: kernels ahead, and all that the commands need."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from cli import assert_error, bash, inside, run
from test_cache import entries_in
from test_kernels import KINDS, in_kind, problem

from xentcli import Teacher, cross_entropy, softmax
from xentcli.arrays.dtypes import NAMES, narrow
from xentcli.backends.cpu import ahead, kept
from xentcli.backends.cpu.kernel import Kernel


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setenv("XENT_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_kernels_are_compiled_once_and_then_there(own_cache):
    first = run("compile", "--job", "bench")
    assert (first.code, first.out) == (0, b"")
    *lines, last = first.err.splitlines()
    assert [line.split(": ")[1].split(" in ")[0] for line in lines] == ["compiled"] * 3
    assert lines[0].endswith("memory: copying")
    assert "3 kernels compiled" in last
    assert str(own_cache) in last
    assert len(entries_in(own_cache)) == 3
    second = run("compile", "--job", "bench", "--job", "bench", "--dtype", "f64")
    assert "0 kernels compiled" in second.err
    assert "3 already there" in second.err
    assert run("compile", "--job", "bench", "-q").err == ""


def test_a_cache_that_cannot_be_used_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XENT_CACHE_DIR", str(tmp_path / "file" / "cache"))
    assert_error(run("compile", "--job", "bench"), 4, "cannot be kept", str(tmp_path / "file"))


def test_kernels_that_may_not_be_compiled_are_an_error():
    assert_error(bash("NUMBA_DISABLE_JIT=1 xent compile"), 2, "NUMBA_DISABLE_JIT")


def test_what_is_compiled_is_said_in_words(capfdbinary, monkeypatch, own_cache):
    """All of it, without compiling it."""
    asked = []
    monkeypatch.setattr(kept, "keep", lambda kernel: asked.append(kernel) or True)
    result = inside(capfdbinary, "compile", "--all")
    assert len(set(asked)) == len(asked)
    lines = {line.partition(" s: ")[2] for line in result.err.splitlines()[:-1]}
    assert len(lines) == len(asked)


@pytest.fixture
def used(monkeypatch):
    """The kernels that were asked for; nothing is computed."""
    kernels = set()
    monkeypatch.setattr(kept, "find", lambda kernel, notify: kernels.add(kernel) or nothing)
    return kernels


def nothing(*numbers):
    """A kernel that does nothing."""


def all_kernels(*jobs, kind, own):
    return {kernel for job in jobs for kernel in ahead.kernels(job, kind, own)}


@pytest.mark.parametrize("own", [False, True], ids=["default", "own"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_kernels_of_a_job_are_those_that_the_functions_use(used, kind, own):
    for classes in (3, 100):
        x, y = problem(classes, kind)
        for options in ({}, {"temperature": 2.0}, {"label_smoothing": 0.1}):
            for out in (None, in_kind(x.shape, kind)) if own else (None,):
                cross_entropy(x, y, backend="cpu", out=out, **options)
                softmax(x, backend="cpu", out=out)
            softmax(x, backend="cpu", out=np.empty(x.shape))  # as `--top --rest` does
            cross_entropy(x, y, backend="cpu", grad=False, **options)
    assert used == all_kernels("grad", "loss", "softmax", kind=kind, own=own)


@pytest.mark.parametrize("kind", KINDS)
def test_the_kernels_for_probabilities_are_those_that_the_functions_use(used, kind):
    for classes in (3, 100):
        x, _ = problem(classes, kind)
        q = narrow(
            np.eye(classes, dtype="f8" if kind == "f64" else "f4")[[0] * len(x)], NAMES[kind]
        )
        for out in (None, in_kind(x.shape, kind)):
            cross_entropy(x, q, backend="cpu", out=out)
        cross_entropy(x, q, backend="cpu", grad=False)
    assert used == all_kernels("probs", kind=kind, own=True)


@pytest.mark.parametrize("kind", KINDS)
def test_the_kernels_for_a_teacher_are_those_that_the_functions_use(used, kind):
    x, _ = problem(100, kind)
    indices, how = np.zeros((len(x), 1), int), {"kind": "log-probs", "divergence": "ce"}
    teachers = [
        Teacher(x, kind="logits", divergence="ce"),
        Teacher(x, **how),
        Teacher(x[:, :1], indices, tail="drop", **how),
    ]
    for teacher, temperature in itertools.product(teachers, (1.0, 2.0)):
        options = {"teacher": teacher, "temperature": temperature, "backend": "cpu"}
        for out in (None, in_kind(x.shape, kind)):
            cross_entropy(x, out=out, **options)
        cross_entropy(x, grad=False, **options)
    assert used == all_kernels("teacher", kind=kind, own=True)


def test_kernels_are_called_by_what_they_compute():
    assert ahead.describe(Kernel("general", "float64", "float32", None)) == (
        "float64 logits, targets float32, loss only: more than 64 classes, any option"
    )
    assert ahead.describe(Kernel("teacher_fast", "float32", "float16", "float32")) == (
        "float32 logits, teacher float16, gradient float32: all classes of a teacher's logits, "
        "ce and forward-kl"
    )
    assert np.unique([*map(str, ahead.kernels("bench", "f32"))]).size == 3


PARTS = """
import sys
from numba.core import codegen
made, add_module = [], codegen.JITCPUCodegen._add_module

def note(self, module):
    made.append(module.name)
    return add_module(self, module)

codegen.JITCPUCodegen._add_module = note
from xentcli.backends.cpu import kernels, part_compiler
from xentcli.backends.cpu.kernel import Kernel
part_compiler.IS_KNOWN = sys.argv[1] == "parts"
symbol, code = kernels.compile_kernel(Kernel("copy", "float32"))
print("max_across" in made, "copy_lines" in made, code.hex())
"""


@pytest.mark.slow  # it compiles twice
def test_only_the_whole_is_made_into_machine_code_and_it_is_the_same():
    found = [
        subprocess.run(
            [sys.executable, "-c", PARTS, how], capture_output=True, text=True, check=True
        )
        for how in ("parts", "all")
    ]
    parts, everything = (done.stdout.split() for done in found)
    assert parts[:2] == ["False", "True"]
    assert everything[:2] == ["True", "True"]
    assert parts[2] == everything[2]
