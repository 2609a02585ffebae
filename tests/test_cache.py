"""The cache of compiled kernels: private, never fatal, and safe with many first runs at once."""

import os
import stat
import subprocess
import sys

import pytest

JOB = """
import sys, numpy as np
from xentcli import cross_entropy
from xentcli.backends import get
said = []
backend = get("cpu", 1, 1, said.append)
from xentcli.engine.cross_entropy import Run, compute
from xentcli.engine.problem import Extras, build
from xentcli.engine.targets import Whole
from xentcli.options import LossOptions
x = np.eye(3, dtype="f4")
problem = build(x.shape, Whole(np.arange(3)), LossOptions(), Extras())
result = compute(problem, (x, None), LossOptions(), Run("cpu", 1, said.append), grad=False)
print(repr(result.loss), "compiled" if said else "found")
"""
LOSS = "0.5514447139320511"


def start(folder):
    return subprocess.Popen(
        [sys.executable, "-c", JOB],
        env={**os.environ, "XENT_CACHE_DIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    loss, how = out.split()
    assert loss == LOSS
    return how


def run(folder):
    return end(start(folder))


def kernels_in(folder):
    return sorted(folder.rglob("*.nb[ic]"))


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A cache after its first job, which was compiled."""
    folder = tmp_path_factory.mktemp("cache")
    assert run(folder) == "compiled"
    return folder


def test_the_second_process_compiles_nothing(filled):
    assert run(filled) == "found"
    for path in filled.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


@pytest.mark.parametrize("left", [0, -20], ids=["empty", "truncated"])
def test_damaged_files_are_replaced(filled, left):
    assert kernels_in(filled)
    for path in kernels_in(filled):
        path.write_bytes(path.read_bytes()[:left])
    assert run(filled) == "compiled"
    assert run(filled) == "found"


def test_a_folder_that_others_may_write_is_not_trusted(filled):
    (own,) = filled.iterdir()
    own.chmod(0o777)
    try:
        assert run(filled) == "compiled"
    finally:
        own.chmod(0o700)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_a_folder_of_somebody_else_is_not_trusted(filled):
    (own,) = filled.iterdir()
    os.chown(own, 12345, 12345)
    try:
        assert run(filled) == "compiled"
    finally:
        os.chown(own, 0, 0)


def test_without_a_folder_everything_works(tmp_path):
    (tmp_path / "file").write_text("")
    assert run(tmp_path / "file" / "no folder") == "compiled"


def test_many_first_runs_at_once(tmp_path):
    """One of them compiles; the others wait for it, and read."""
    processes = [start(tmp_path) for _ in range(8)]
    assert sorted(end(process) for process in processes) == ["compiled"] + ["found"] * 7
