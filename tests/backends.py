"""Which backends the tests run on, and how much of each on the CUDA simulator.

    XENT_TEST_BACKENDS=cuda pytest -m backends

runs whatever can be asked of any backend on a device; with NUMBA_ENABLE_CUDASIM=1 on the
simulator, where each CUDA thread is one of Python: long rows are shorter there, many rows fewer,
and the examples of a property fewer. `test_cuda_suite.py` does so.
"""

import os
import subprocess
import sys
from pathlib import Path

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
BACKENDS = tuple(os.environ.get("XENT_TEST_BACKENDS", "numpy,cpu").split(","))


def up_to(count, simulated):
    """A size, and at most how much of it on the simulator."""
    return min(count, simulated) if SIMULATED else count


def pass_on_the_simulator(name, marked=""):
    """Run a file of tests, or some by markers, in a process that simulates from the start."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", marked, name],
        cwd=Path(__file__).parent,
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
