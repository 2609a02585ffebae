"""The script for a machine with a device, on the simulator: nobody shall find it broken there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "gpu.py"


def test_without_a_device_one_line_says_so():
    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "0", "NUMBA_CUDA_DRIVER": "/nowhere"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert len(done.stdout.splitlines()) == 3
    assert "FAILED: backend: no NVIDIA driver is installed" in done.stdout.splitlines()[-1]


@pytest.mark.slow  # the simulator: each thread of a device is one of Python
def test_all_parts_run_and_the_table_comes_last():
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--quick"],
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout
    table = done.stdout.rpartition("=" * 80)[2]
    for words in ("device: simulator", "compiled kernels: ", "real sizes: ", "arrays: ", "speed: "):
        assert words in table
    assert " passed" in table.partition("suite on the device: ")[2].splitlines()[0]
    assert len(table.splitlines()) <= 60
    assert table.splitlines()[-1] == "everything passed"
