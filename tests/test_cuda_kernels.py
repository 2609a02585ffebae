"""Kernels whose rows have many parts, on Numba's simulator, in a process."""

import os
import subprocess
import sys
from pathlib import Path


def test_everything_on_the_simulator():
    """Numba's simulator can only be switched on before Numba is there."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "simulated_kernels.py"],
        cwd=Path(__file__).parent,
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
