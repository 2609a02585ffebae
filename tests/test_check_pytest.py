"""`assert_grad_close` and `assert_loss_close` as pytest users meet them, and JUnit XML for CI."""

import inspect
import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from cli import GRADIENT, LOGITS, LOSSES, TARGETS, assert_error, captured, environment

from xentcli import cross_entropy
from xentcli.check import assert_grad_close, assert_loss_close, check

FUNCTIONS = [check, assert_grad_close, assert_loss_close]


# What is said.


def test_the_assertion_passes_and_fails():
    assert_grad_close(LOGITS, TARGETS, GRADIENT, loss=LOSSES.mean())
    with pytest.raises(AssertionError) as error:
        assert_grad_close(LOGITS, TARGETS, -GRADIENT)
    lines = str(error.value).splitlines()
    assert lines == check(LOGITS, TARGETS, -GRADIENT).summary()
    assert lines[0].startswith("FAIL gradient: 6 of 6 entries")
    assert lines[1].startswith("diagnosis: the sign is wrong: matches within 1")
    assert len(lines) == 4
    assert all(line.startswith("row ") for line in lines[2:])
    with pytest.raises(AssertionError, match=r"^FAIL loss") as error:
        assert_grad_close(LOGITS, TARGETS, GRADIENT, loss=1.0)
    assert len(str(error.value).splitlines()) == 1


def test_what_pytest_prints_is_the_line_of_the_test_and_the_verdict(tmp_path):
    (tmp_path / "test_mine.py").write_text(
        "import numpy as np\n"
        "from xentcli.check import assert_grad_close, assert_loss_close\n"
        "X, Y = np.array([[1.0, 1.0, 1.0]]), [0]\n"
        "def test_grad():\n"
        "    assert_grad_close(X, Y, np.array([[1.0, -0.5, -0.5]]))\n"
        "def test_loss():\n"
        "    assert_loss_close(X, Y, 2.0)\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120
    )
    assert "2 failed" in done.stdout
    assert "xentcli" not in done.stdout
    assert ">       assert_loss_close(X, Y, 2.0)\n" in done.stdout
    assert "E       AssertionError: FAIL gradient: 3 of 3 entries" in done.stdout
    assert "E       AssertionError: FAIL loss: 2 given, 1.098612288" in done.stdout
    assert len(done.stdout.splitlines()) < 40


# What is taken.


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("wrong", "right"),
    [("label_smooting", "label_smoothing"), ("weights", "weight"), ("tempreature", "temperature")],
)
def test_a_misspelt_option_is_an_error_that_suggests_the_right_one(function, wrong, right):
    with pytest.raises(TypeError, match=f"'{wrong}'; did you mean '{right}'?"):
        function(LOGITS, TARGETS, GRADIENT, **{wrong: 0.1})
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'qqq'$"):
        function(LOGITS, TARGETS, GRADIENT, qqq=0.1)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_signatures_name_and_type_the_options(function):
    parameters = inspect.signature(function).parameters
    ours = inspect.signature(cross_entropy).parameters
    for name in ours.keys() - {"grad", "out", "backend", "threads", "upstream"}:
        if name != "targets":  # which a teacher may replace
            assert parameters[name].default == ours[name].default
        assert parameters[name].annotation == ours[name].annotation


class Tensor:
    """What PyTorch's looks like from outside, on some device."""

    dtype = "torch.float64"

    def __init__(self, array):
        self.array = array

    def detach(self):
        return self

    cpu = resolve_neg = detach

    def numpy(self):
        return self.array


def test_the_assertion_takes_tensors():
    assert_grad_close(Tensor(LOGITS), Tensor(TARGETS), Tensor(GRADIENT))
    assert_loss_close(Tensor(LOGITS), Tensor(TARGETS), Tensor(LOSSES.mean()))


class DeviceArray:
    """What CuPy's looks like: it refuses to become an array by itself."""

    __cuda_array_interface__ = ()

    def __init__(self, array):
        self.array = array

    def __array__(self, *args, **options):
        raise TypeError("implicit conversion")

    def get(self):
        return self.array


def test_the_assertion_takes_arrays_of_a_device():
    assert_grad_close(DeviceArray(LOGITS), DeviceArray(TARGETS), DeviceArray(GRADIENT))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_of_torch_pass_as_they_come(dtype, rng):
    torch = pytest.importorskip("torch")
    x = torch.tensor(rng.standard_normal((20, 7)) * 5, dtype=getattr(torch, dtype))
    t = torch.tensor(rng.integers(0, 7, 20))
    options = {"label_smoothing": 0.1, "weight": torch.rand(7).to(x.dtype) + 0.5}
    x.requires_grad_(True)
    loss = torch.nn.functional.cross_entropy(x, t, **options)
    loss.backward()
    assert_grad_close(x, t, x.grad, loss=loss, **options)
    assert_loss_close(x, t, loss, **options)
    assert_loss_close(x, t, loss.item(), **options)
    assert_grad_close(x, t, x.grad.t().contiguous().t(), **options)
    negated = torch.imag(torch.conj(torch.complex(x.grad, -x.grad)))  # a view, with a flag
    assert negated.is_neg()
    assert_grad_close(x, t, negated, **options)
    with pytest.raises(AssertionError, match=r"it has a label smoothing of 0.1, not the 0.3 given"):
        assert_grad_close(x, t, x.grad, **options | {"label_smoothing": 0.3})


def test_bfloat16_of_torch_is_taken(rng):
    torch = pytest.importorskip("torch")
    x = torch.tensor(rng.standard_normal((20, 7)), dtype=torch.bfloat16)
    t = torch.tensor(rng.integers(0, 7, 20))
    right = cross_entropy(x.float().numpy(), t.numpy())
    assert_grad_close(x, t, torch.tensor(right.grad).bfloat16(), exact=True)
    assert_loss_close(x, t, right.loss)


# The loss by itself.


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_losses_are_judged_by_themselves(reduction):
    loss = {"mean": LOSSES.mean(), "sum": LOSSES.sum(), "none": LOSSES}[reduction]
    assert_loss_close(LOGITS, TARGETS, loss, reduction=reduction)
    assert_loss_close(LOGITS, TARGETS, np.float32(loss), reduction=reduction)
    with pytest.raises(AssertionError, match=r"^FAIL loss: "):
        assert_loss_close(LOGITS, TARGETS, loss * (1 + 1e-9), reduction=reduction)
    assert_loss_close(LOGITS, TARGETS, loss * (1 + 1e-9), reduction=reduction, rtol=1e-8)


def test_the_loss_of_float32_logits_is_judged_in_float32(rng):
    x, t = rng.standard_normal((30, 20)).astype("f4"), rng.integers(0, 20, 30)
    loss = cross_entropy(x, t).loss
    assert_loss_close(x, t, float(np.float32(loss)))
    with pytest.raises(AssertionError, match="ULP of float32"):
        assert_loss_close(x, t, loss * (1 + 1e-5))


# JUnit XML.


@pytest.fixture
def judged(files):
    """The folder with a wrong gradient in g.npy, and the right loss."""
    np.save("g.npy", -GRADIENT)
    np.save("l<oss>.npy", LOSSES.mean())
    return files


def test_junit_xml_says_what_passed_and_what_failed(judged):
    command = "check", "l.npy", "t.npy", "g.npy", "--loss", "l<oss>.npy", "--junit", "j.xml", "-q"
    result = captured(*command)
    assert result.code == 1
    root = ET.parse(judged / "j.xml").getroot()
    (suite,) = root
    assert (root.tag, suite.tag) == ("testsuites", "testsuite")
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "0")
    gradient, loss = suite
    assert gradient.get("name") == "gradient g.npy"
    failure = gradient.find("failure")
    assert failure.get("message").startswith("FAIL gradient: 6 of 6 entries")
    assert failure.text.splitlines() == result.text.splitlines()
    assert loss.get("name") == "loss l<oss>.npy"
    assert loss.find("failure") is None
    assert loss.find("system-out").text.startswith("PASS loss")


def test_junit_xml_of_a_pass_and_of_strange_names(judged):
    name = 'g\x01\N{BELL}é&".npy'
    np.save(name, GRADIENT)
    result = captured("check", "l.npy", "t.npy", name, "--junit", "j.xml")
    assert result.code == 0, result.err
    (case,) = ET.parse(judged / "j.xml").getroot().iter("testcase")
    assert case.get("name") == 'gradient g?\N{BELL}é&".npy'


def test_an_error_leaves_the_old_junit_file_alone(judged):
    (judged / "j.xml").write_text("old")
    result = captured("check", "l.npy", "t.npy", "none.npy", "--junit", "j.xml")
    assert_error(result, 2, "none.npy")
    assert (judged / "j.xml").read_text() == "old"
    result = captured("check", "l.npy", "t.npy", "g.npy", "--junit", "j.xml", "-n")
    assert result.code
    assert (judged / "j.xml").read_text() == "old"
