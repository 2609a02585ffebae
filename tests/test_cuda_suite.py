"""Every test that runs on any backend, on the CUDA simulator: kernels as Python, without a GPU."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
LARGEST = TESTS / "test_semantics.py"
USES = re.compile(r"def test_\w+\([^)]*\bbackend\b|mark\.backends\b")
PYTEST = [sys.executable, "-m", "pytest"]
TIMEOUT = 900  # seconds: a guard against hanging

pytestmark = pytest.mark.slow


def files():
    """The test files in which something runs on any backend."""
    found = {path for path in TESTS.rglob("test_*.py") if USES.search(path.read_text())}
    return sorted(found - {Path(__file__)})


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What pytest says in two processes side by side: of the largest file, and of all others."""
    env = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "XENT_TEST_BACKENDS": "cuda"}
    rest = [path for path in files() if path != LARGEST]
    running = []
    for number, part in enumerate(([LARGEST], rest)):
        cache = tmp_path_factory.mktemp(f"cache{number}")
        running.append(
            subprocess.Popen(
                [*PYTEST, "-q", "-m", "backends", f"-ocache_dir={cache}", *map(str, part)],
                cwd=TESTS.parent,
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    return [(process.communicate(timeout=TIMEOUT)[0], process.returncode) for process in running]


@pytest.mark.parametrize(("part", "fewest"), [(0, 150), (1, 200)], ids=["semantics", "others"])
def test_the_suite_passes_on_the_simulator(outcomes, part, fewest):
    text, code = outcomes[part]
    assert code == 0, text
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (\w+)", text.splitlines()[-1])}
    assert counts["passed"] >= fewest
    assert counts.keys() <= {"passed", "deselected"}, "skipped is not passed"


def test_every_file_with_a_backend_takes_part():
    names = {path.name for path in files()}
    assert {
        "test_semantics.py",
        "test_edges.py",
        "test_accuracy.py",
        "test_cross_entropy.py",
    } <= names
    assert {"test_stream.py", "test_regressions.py", "test_fuzz_kernels.py"} <= names
