"""CUDA kernels without a device: on Numba's simulator, and through the compiler where it is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from backends import pass_on_the_simulator


@pytest.mark.slow
def test_kernels_on_the_simulator():
    pass_on_the_simulator("simulated_kernels.py", "not slow")


@pytest.mark.slow
def test_digits_of_the_kernels_on_the_simulator():
    pass_on_the_simulator("simulated_accuracy.py")


@pytest.mark.slow
def test_more_of_the_kernels_on_the_simulator():
    pass_on_the_simulator("simulated_kernels.py", "slow")


@pytest.mark.slow
@pytest.mark.parametrize("capability", ["7.5", "9.0"])
def test_every_kernel_compiles(capability):
    """The simulator sees no types; the compiler of CUDA's toolkit does, where there is one."""
    done = subprocess.run(
        [sys.executable, "compiling.py", capability],
        cwd=Path(__file__).parent,
        env={name: value for name, value in os.environ.items() if name != "NUMBA_ENABLE_CUDASIM"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if "no compiler" in done.stdout:
        pytest.skip("no compiler of CUDA's here that Numba can use")
    assert "compiled: 20" in done.stdout, done.stdout + done.stderr
    fast = next(line for line in done.stdout.splitlines() if line.startswith("fast_rows"))
    assert fast.endswith("ld.global.v4, st.global.v4")  # float32: 16 bytes at a time
