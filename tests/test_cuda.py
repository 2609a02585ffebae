"""`--backend cuda` where there is no device, and on the simulator: what is missing is told apart,
and arrays go to the device and back. The meaning of the kernels is tested elsewhere."""

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from cli import GRADIENT, LOGITS, assert_done, assert_error, bash, from_npy, npy, run, strict_json

from xentcli import backends
from xentcli.backends import devices
from xentcli.errors import UnavailableError

HERE = Path(__file__).parent

# Python runs this file when it starts, where it is on the path. It stands for the driver's
# library as far as that is asked before Numba starts, and lets the import of numba.cuda fail.
FAKE = """
import ctypes, os, sys

class Driver:
    def cuInit(self, flags): return int(os.environ["FAKE_INIT"])
    def cuGetErrorName(self, code, name): name._obj.value = b"CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"
    def cuDriverGetVersion(self, version): version._obj.value = int(os.environ["FAKE_VERSION"])
    def cuDeviceGetCount(self, count): count._obj.value = int(os.environ["FAKE_COUNT"])
    def cuDeviceGet(self, device, number): device._obj.value = number
    def cuDeviceGetName(self, name, size, device): name.value = b"Fake \\x1b[31mH1"
    def cuDeviceTotalMem_v2(self, size, device): size._obj.value = 3 << 29
    def cuDeviceGetAttribute(self, value, attribute, device):
        value._obj.value = {75: 9, 76: 1}[attribute]

class CDLL(ctypes.CDLL):
    real = ctypes.CDLL
    def __new__(cls, name=None, *rest, **more):
        fake = str(name).endswith("fake-driver")
        return Driver() if fake else cls.real(name, *rest, **more)

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "numba.cuda" and "FAKE_BROKEN" in os.environ:
            raise RuntimeError(os.environ["FAKE_BROKEN"])

ctypes.CDLL = CDLL
sys.meta_path.insert(0, Finder)
"""

DEVICE = {"FAKE_INIT": "0", "FAKE_COUNT": "1", "FAKE_VERSION": "12080"}


@pytest.fixture
def faked(files):
    """The environment in which a driver is there that says what it is told to."""
    (files / "fakes").mkdir()
    (files / "fakes" / "sitecustomize.py").write_text(FAKE)
    driver = files / "fakes" / "fake-driver"
    driver.touch()
    paths = {"PYTHONPATH": str(driver.parent), "NUMBA_CUDA_DRIVER": str(driver)}
    return {**paths, **DEVICE, "NUMBA_ENABLE_CUDASIM": "0"}


def simulated(*arguments, **more):
    return run(*arguments, env={"NUMBA_ENABLE_CUDASIM": "1"}, **more)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"NUMBA_CUDA_DRIVER": "/nowhere"},
            ["no NVIDIA driver is installed; NUMBA_CUDA_DRIVER is '/nowhere'\n", "cpu"],
        ),
        # Numba reads a number, and simulates nothing
        ({"NUMBA_ENABLE_CUDASIM": "yes", "FAKE_INIT": "100"}, ["finds no device\n"]),
        ({"FAKE_INIT": "100"}, ["finds no device\n", "--backend cpu"]),
        (
            {"FAKE_COUNT": "0", "CUDA_VISIBLE_DEVICES": "7"},
            ["no device; CUDA_VISIBLE_DEVICES", "'7'"],
        ),
        ({"FAKE_INIT": "803"}, ["does not start: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH (803)"]),
        ({"FAKE_BROKEN": "two\nlines\x1b[31m"}, ["RuntimeError: two lines\\x1b", "[cuda12]'\n"]),
        (
            {"FAKE_BROKEN": "no", "FAKE_VERSION": "13000"},
            ["numba.cuda does not start", "[cuda13]'\n"],
        ),
        ({}, ["numba.cuda", "pip install 'xentcli[cuda12]'"]),  # the driver can no more than this
    ],
    ids=["driver", "simulator", "device", "hidden", "start", "broken", "newer", "useless"],
)
def test_what_is_missing_is_told_apart(change, words, faked, files):
    result = run("grad", "l.npy", "t.npy", "--backend", "cuda", "-o", "g.npy", env=faked | change)
    assert_error(result, 3, "--backend", *words)
    assert not (files / "g.npy").exists()


@pytest.mark.parametrize(("version", "name"), [((12, 8), "cuda12"), ((13, 1), "cuda13")])
def test_a_missing_compiler_is_named_with_the_extra_that_has_it(monkeypatch, version, name):
    from xentcli.backends import cuda

    def missing():
        raise ImportError("libNVVM cannot be found.\nDo you wish")

    monkeypatch.setattr(cuda.nvvm, "NVVM", missing)
    with pytest.raises(UnavailableError, match=r"not the CUDA compiler.*found\. Do you") as error:
        cuda.check(devices.Driver("580.82", version, ()))
    assert f"xentcli[{name}]" in error.value.hint
    assert f"580.82, CUDA {version[0]}.{version[1]}" in error.value.what


@pytest.mark.parametrize(
    ("code", "words"),
    [(2, "not enough memory"), (222, "another CUDA version"), (700, "the CUDA device failed")],
)
def test_errors_of_the_driver_are_told_in_our_words(code, words):
    from xentcli.backends.cuda.errors import translate_errors

    class CudaAPIError(Exception):
        __module__ = "numba.cuda.cudadrv.driver"
        code = None

    error = CudaAPIError(f"Call to cuX results\nin {code}")
    error.code = code
    with (
        pytest.raises(UnavailableError, match=rf"{words}.*: CudaAPIError: .* in {code}"),
        translate_errors(),
    ):
        raise error


def test_a_bug_of_ours_stays_one():
    from xentcli.backends.cuda.errors import translate_errors

    with pytest.raises(ZeroDivisionError), translate_errors():
        _ = 1 // 0


def test_auto_does_not_ask_for_a_device(monkeypatch):
    monkeypatch.setattr(devices, "find", lambda: pytest.fail("it asks"))
    assert backends.get("auto", 1).name == "numpy"
    assert backends.get("auto", 1 << 40).name == "cpu"


@pytest.mark.slow
def test_the_gradient_on_the_simulator_through_files_and_pipes(files):
    given = simulated("grad", "l.npy", "t.npy", "--backend", "cuda", "-o", "g.npy")
    assert_done(given)
    assert "; cuda, " in given.err
    np.testing.assert_allclose(np.load("g.npy"), GRADIENT, rtol=1e-14)
    script = "cat l.npy | xent softmax - --backend cuda -q | xent grad - t.npy --backend cuda -q"
    piped = bash(script, env={"NUMBA_ENABLE_CUDASIM": "1"})
    assert (piped.code, piped.err) == (0, "")
    expected = bash(script.replace("cuda", "numpy"))
    np.testing.assert_allclose(from_npy(piped.out), from_npy(expected.out), rtol=1e-13)


def test_halves_and_a_class_axis_in_the_middle_on_the_simulator(files):
    x = np.stack([LOGITS.T, LOGITS.T[::-1]]).astype("f2")
    np.save("t.npy", [[0, 1], [1, 2]])
    results = [
        run(*f"grad - t.npy --class-axis 1 -q --backend {name}".split(), env=env, stdin=npy(x))
        for name, env in (("cuda", {"NUMBA_ENABLE_CUDASIM": "1"}), ("numpy", {}))
    ]
    cuda, numpy = (from_npy(result.out) for result in results)
    assert cuda.shape == x.shape
    np.testing.assert_allclose(cuda, numpy, rtol=3e-7)


@pytest.mark.slow
def test_arrays_are_moved_to_the_device_and_back():
    """What `moving.py` checks, which needs a process in which Numba simulates from the start."""
    done = subprocess.run(
        [sys.executable, "-W", "error", HERE / "moving.py"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=HERE,
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    written = re.findall(r"^def (check_\w+)", (HERE / "moving.py").read_text(), re.MULTILINE)
    assert done.stdout.split() == written


def test_info_shows_the_devices(faked):
    facts = strict_json(run("info", "--json", env={**faked, "FAKE_COUNT": "2"}).out)
    device = r"Fake \x1b[31mH1, 1.5 GiB, compute capability 9.1"
    assert facts["cuda"].startswith(f"{device}; {device}; driver ")
    assert facts["cuda"].endswith("CUDA 12.8")
    assert facts["backends"] == "numpy, cpu, cuda"


def test_info_says_why_there_is_no_device(faked):
    facts = strict_json(run("info", "--json", env={**faked, "FAKE_COUNT": "0"}).out)
    assert facts["cuda"] == "none: the NVIDIA driver finds no device"
    assert facts["backends"] == "numpy, cpu"
    assert strict_json(simulated("info", "--json").out)["cuda"].startswith("simulated")


def test_info_does_not_start_numba():
    code = (
        "import sys; from xentcli.backends.machine import describe; describe(); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "numba" not in {name.split(".")[0] for name in done.stdout.split()}


def test_the_extras_install_what_the_hints_promise():
    needs = metadata.requires("xentcli")
    for name, toolkit in (("cuda12", "cu12"), ("cuda13", "cu13")):
        assert name in metadata.metadata("xentcli").get_all("Provides-Extra")
        lines = [line for line in needs if f'extra == "{name}"' in line.replace("'", '"')]
        assert [line.split(">=")[0] for line in lines] == [f"numba-cuda[{toolkit}]"]
