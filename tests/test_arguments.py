"""Whatever is passed to a function of the library: a result, or an error of ours that says why."""

import array
import decimal
import enum
import fractions
import inspect
import sys
import warnings
from unittest import mock

import numpy as np
import pytest
from helpers import assert_same_bits

import xentcli
from xentcli import (
    DataError,
    OptionError,
    XentError,
    backends,
    cross_entropy,
    log_softmax,
    softmax,
)
from xentcli.arrays.dtypes import BF16
from xentcli.check import assert_grad_close, check

X = np.array([[1.0, 2.0, 3.0], [0.0, -1.0, 5.0]])
Y = np.array([0, 2])
Q = np.array([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]])
GRAD = cross_entropy(X, Y).grad
for given in (X, Y, Q, GRAD):
    given.flags.writeable = False


class BoomError(Exception):
    """What nobody expects."""


def raises(name, error=BoomError("b\x1b[31moom\n")):  # noqa: B008 (the same one for all)
    """An object whose method of that name fails."""

    def method(self, *args, **kwargs):
        raise error

    return type("Raising", (), {name: method})()


def raises_on_access(name):
    """An object whose attribute of that name fails."""

    def get(self):
        raise BoomError

    return type("Raising", (), {name: property(get)})()


class RaisesAlways:
    def __getattr__(self, name):
        raise BoomError


class OfArray:
    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None):  # as written for NumPy 1
        return self.array


class Described:
    def __init__(self, **interfaces):
        vars(self).update(interfaces)


class Word(str, enum.Enum):
    MEAN = "mean"


def on_a_device(**interface):
    given = {"shape": (2, 3), "typestr": "<f4", "data": (4096, False), "version": 3, **interface}
    kept = {name: value for name, value in given.items() if value is not MISSING}
    return Described(__cuda_array_interface__=kept)


MISSING = object()
ITSELF = []
ITSELF.append(ITSELF)
MASKED = np.ma.array(X, mask=X > 2)
INTERFACE = {"shape": (2,), "typestr": "<i8", "data": bytes(16), "version": 3}

NUMBERS = [
    *(0, 1, -1, 2**70, 10**400, 10**5000, -(2**63), True),
    *(0.0, 0.5, -0.0, 5e-324, 1e300, float("nan"), float("inf"), 1j),
    *(np.int64(2), np.uint8(1), np.float32(0.5), np.float16(1), np.longdouble(0.5), np.True_),
    *(np.complex128(1), np.datetime64("2020"), np.timedelta64(1, "s")),
    *(decimal.Decimal("0.5"), decimal.Decimal("sNaN"), fractions.Fraction(1, 2)),
]
TEXTS = ["", "a", "2", "mean", "\x1b[31m", "x" * 100_000, b"2", bytearray(b"22")]
TEXTS += [np.str_("mean"), np.bytes_(b"2"), Word.MEAN]
OBJECTS = [
    *(None, ..., object(), int, len, slice(1), {"a": 1}, {1}, range(2), RaisesAlways()),
    *([1, 2], [], [[1, 2], [3]], X.tolist(), ITSELF, (i for i in range(3))),
    *(memoryview(b"ab"), array.array("d", [1, 2]), array.array("q", [1, 2])),
    *(OfArray(X), OfArray(3), OfArray(None), OfArray(MASKED)),
]
ARRAYS = [
    *(np.array(2.0), np.array(1), np.array("2"), np.array(None), np.array([2.0]), np.array([1, 2])),
    *(MASKED, MASKED[0], np.ma.masked, list(MASKED), [1, np.ma.masked], [[0.5, np.ma.masked, 1]]),
    *(X.copy().view(np.matrix), np.array([1, 2], object), np.array([[1, 2, None]] * 2)),
    *(np.zeros(2, "f4,f4"), np.rec.array([(1, 2.0)]), np.zeros(X.shape, BF16)),
    *(np.zeros(X.shape, [("bfloat16", ">u2")]), np.zeros(X.shape, "V2"), np.zeros(2, "V0")),
    *(
        np.array([b"a", b"b"]),
        np.array(["a", "b"]),
        np.array([["a"] * 3] * 2, np.dtypes.StringDType()),
    ),
    *(np.zeros(X.shape, kind) for kind in ("M8[s]", "m8[s]", "c8", bool, np.longdouble, "S0")),
    *(np.zeros(2, bool), np.array([2**64 - 1, 0], "u8"), np.array([-(2**63), 0])),
    *(np.zeros(shape) for shape in [(0,), (0, 3), (2, 0), (2, 3, 4), (1,) * 33, (1,) * 64]),
    *(np.broadcast_to(np.zeros((0, 1)), (0, 10**9)), np.broadcast_to(np.zeros(3), X.shape)),
    *(np.broadcast_to(np.int64(1), (2,)), np.broadcast_to(np.int64(0), ())),
]
METHODS = ["__array__", "__index__", "__float__", "__int__", "__bool__", "__len__", "__iter__"]
METHODS += ["__getitem__", "__repr__", "__str__", "__hash__", "__eq__", "detach", "item"]
METHODS += ["__dlpack__", "__dlpack_device__"]
ATTRIBUTES = ["__array__", "__array_interface__", "__array_struct__", "__cuda_array_interface__"]
ATTRIBUTES += ["__dlpack_device__", "detach", "shape", "dtype", "requires_grad", "item"]
ATTRIBUTES += ["__class__", "mask"]
ERRORS = [RecursionError("r"), KeyError("k"), OSError(5, "o"), AttributeError("a"), StopIteration()]
ERRORS += [UserWarning("w"), ValueError()]
FAILING = [
    *map(raises, METHODS),
    *(mock.Mock(), mock.MagicMock(), mock.Mock(spec=np.ndarray), mock.MagicMock(spec=np.ndarray)),
    *map(raises_on_access, ATTRIBUTES),
    *(raises("__array__", error) for error in ERRORS),
]
INTERFACES = {
    "shape": [MISSING, None, 3, "ab", (2, "x"), (-1, 3), (2.5, 3), (10**30, 3), (2, 3, 4), ()],
    "typestr": [MISSING, None, 3, "zz", "<f4,<f4", "|O", "", "<M8[s]"],
    "data": [MISSING, None, (), (1,), (None, 0), ("a", 0), (-8, 0), (0, 0), (2**70, 0), (1.5, 0)],
    "strides": [(), (12,), ("a", 4), (12.5, 4), 5, (2**70, 4), (None, None)],
    "stream": ["a", 0, -1, 2**70, 1.5],
    "mask": [0, X],
    "version": [MISSING, None, 99],
}
DEVICES = [on_a_device(**{key: v}) for key, values in INTERFACES.items() for v in values]
DEVICES += [Described(__cuda_array_interface__=value) for value in ({}, None, [1], "x")]
HOSTS = [{}, None, {**INTERFACE, "data": (0, True)}, {**INTERFACE, "shape": (-1,)}, INTERFACE]
HOSTS += [{**INTERFACE, "mask": np.array([True, False])}]
HOSTS = [Described(__array_interface__=value) for value in HOSTS]
VALUES = [*NUMBERS, *TEXTS, *OBJECTS, *ARRAYS, *FAILING, *DEVICES, *HOSTS]

INDICES, PROBABILITIES = {"logits": X, "targets": Y}, {"logits": X, "targets": Q}
CALLS = {
    "cross_entropy": (cross_entropy, INDICES),
    "cross_entropy of probabilities": (cross_entropy, PROBABILITIES),
    "cross_entropy of each row": (cross_entropy, {**INDICES, "reduction": "none"}),
    "softmax": (softmax, {"logits": X}),
    "log_softmax": (log_softmax, {"logits": X}),
    "check": (check, {**INDICES, "grad": GRAD}),
    "check with a loss": (check, {**INDICES, "grad": GRAD, "loss": 1.0}),
    "assert_grad_close": (assert_grad_close, {**INDICES, "grad": GRAD}),
}
FAST = {"cross_entropy", "softmax", "check"}
CASES = [
    pytest.param(call, name, marks=[] if call in FAST else pytest.mark.slow)
    for call, (function, _) in CALLS.items()
    for name in inspect.signature(function).parameters
]


def shown(value):
    """A value in the report of a test; its own repr may fail."""
    try:
        return f"{type(value).__name__} {value!r:.80}"
    except (BoomError, ValueError):
        return type(value).__name__


@pytest.mark.parametrize(("call", "name"), CASES)
def test_only_our_errors_leave(call, name):
    """And their text is short and printable, and NumPy's settings are as before."""
    texts = [text_of_error(call, name, value) for value in VALUES]
    assert any(texts)
    for text, value in zip(texts, VALUES, strict=True):
        assert text.isprintable(), shown(value)
        assert len(text) < 500, shown(value)


def text_of_error(call, name, value):
    """Our error for an argument, or nothing; every other one fails the test."""
    function, given = CALLS[call]
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        before, text = np.geterr(), ""
        try:
            function(**{**given, name: value})
        except XentError as error:
            text = str(error)
        except AssertionError:
            assert function is assert_grad_close, shown(value)
        except BaseException as error:
            raise AssertionError(f"{type(error).__name__} for {shown(value)}") from error
        assert np.geterr() == before
    return text


def test_the_functions_are_all_that_the_package_has():
    functions = {name for name in xentcli.__all__ if inspect.isfunction(getattr(xentcli, name))}
    assert functions == {"cross_entropy", "softmax", "log_softmax"}


OPTIONS = {
    "ignore_index": (2, [np.int64(2), np.uint8(2), np.float32(2), np.array(2), 2.0]),
    "label_smoothing": (0.5, [np.float16(0.5), np.array(0.5), fractions.Fraction(1, 2)]),
    "reduction": ("sum", [np.str_("sum")]),
    "temperature": (2.0, [2, np.int8(2), np.float32(2), np.longdouble(2), decimal.Decimal(2)]),
    "softcap": (4.0, [4, np.uint64(4), np.float64(4)]),
    "z_loss": (0.25, [np.float32(0.25), decimal.Decimal("0.25")]),
    "upstream": (3.0, [3, np.float32(3), np.array(3), np.array([3])]),
    "normalizer": (8.0, [8, np.int16(8), np.float64(8)]),
    "class_axis": (1, [1.0, np.int64(1), np.float64(1), -1, np.int8(-1)]),
    "threads": (2, [np.int64(2), np.uint8(2), 2.0]),
    "grad": (True, [np.True_, 1, np.int64(1), np.array(True)]),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_numbers_of_other_libraries_are_as_python_s(name, backend):
    value, others = OPTIONS[name]
    expected = cross_entropy(X, Y, **{name: value}, backend=backend)
    for other in others:
        found = cross_entropy(X, Y, **{name: other}, backend=backend)
        assert_same_bits(found.grad, expected.grad)
        assert_same_bits(found.loss, expected.loss)


def test_no_gradient_where_none_is_wanted():
    for no in (False, np.False_, 0):
        assert cross_entropy(X, Y, grad=no).grad is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"threads": True}, "threads: True is not allowed; expected an integer, at least 1"),
        ({"threads": np.int64(0)}, r"threads: .*0.* is not allowed; expected an integer, at least"),
        ({"class_axis": 1.5}, "class_axis: 1.5 is not allowed; expected an integer"),
        ({"class_axis": "1"}, "class_axis: '1' is not allowed; expected an integer"),
        ({"temperature": b"2"}, "temperature: b'2' is not allowed; expected a finite number above"),
        ({"temperature": raises("__float__")}, "temperature: .* is not allowed"),
        ({"temperature": np.array([2.0])}, r"temperature: array\(\[2.\]\) is not allowed"),
        ({"temperature": np.ma.masked}, "temperature: masked is not allowed"),
        ({"reduction": ["mean"]}, r"reduction: \['mean'\] is not allowed; expected mean, sum or"),
        ({"backend": Y}, r"backend: array\(\[0, 2\]\) is not allowed; expected auto, numpy, cpu"),
        ({"grad": "no"}, "grad: 'no' is not allowed; expected True or False"),
        ({"grad": raises("__repr__")}, "grad: this Raising is not allowed"),
        ({"ignore_index": 10**5000}, "ignore_index: .* is not allowed; expected an integer"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_options_that_are_not_allowed(given, words):
    with pytest.raises(OptionError, match=f"^{words}"):
        cross_entropy(X, Y, **given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"ulp": "a"}, "ulp: 'a' is not allowed; expected a number, at least 0"),
        ({"rtol": -1}, "rtol: -1 is not allowed; expected a number, at least 0"),
        ({"atol": float("nan")}, "atol: nan is not allowed; expected a number, at least 0"),
        ({"like_peers": "yes"}, "like_peers: 'yes' is not allowed; expected True or False"),
        ({"method": Y}, r"method: array\(\[0, 2\]\) is not allowed; expected exact or finite-diff"),
        (
            {"dtype": np.float32},
            "dtype: <class .* is not allowed; expected auto, f16, bf16, f32 or",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_options_of_check_that_are_not_allowed(given, words):
    with pytest.raises(OptionError, match=f"^{words}"):
        check(X, Y, GRAD, **given)


def test_an_infinite_tolerance_allows_everything():
    assert check(X, Y, GRAD + 1, ulp=float("inf")).ok
    assert check(X, Y, GRAD, ulp=np.float32(128), like_peers=np.False_).ok


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ("a", "expected an array of numbers, not str"),
        (b"a", "expected an array of numbers, not bytes"),
        (object(), "expected an array of numbers, not object"),
        ({}, "expected an array of numbers, not dict"),
        ((i for i in range(3)), "expected an array of numbers, not generator"),
        (["a", "b"], "dtype str is not supported"),
        ([b"a", b"b"], "dtype bytes is not supported"),
        (np.array(["a"], np.dtypes.StringDType()), "dtype str is not supported"),
        (raises("__array__"), r"not an array: b\\x1b\[31moom"),
        (raises("__array__", ValueError()), "not an array: ValueError"),
        (MASKED, r"masked arrays are not supported.*array.filled\(0\)"),
        ([1.0, np.ma.masked], "masked arrays are not supported"),
        (OfArray(MASKED), "masked arrays are not supported"),
        (on_a_device(shape=MISSING, data=MISSING), "__cuda_array_interface__ has no shape and no"),
        (
            on_a_device(typestr="zz"),
            "its __cuda_array_interface__ is invalid: TypeError: data type",
        ),
        (on_a_device(strides=(4,)), r"is invalid: strides \(4,\) for shape \(2, 3\)"),
        (on_a_device(data=(0, False)), r"is invalid: shape \(2, 3\) at address 0"),
        (on_a_device(shape=(-1, 3)), r"is invalid: shape \(-1, 3\) at address 4096"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("name", ["logits", "targets", "weight", "sample_weight", "upstream"])
def test_arrays_that_are_none(name, values, words):
    given = {**INDICES, name: values}
    with pytest.raises(DataError, match=f"^{name}: .*{words}"):
        cross_entropy(**given)


@pytest.mark.parametrize("name", ["logits", "targets", "grad", "loss", "weight", "out"])
def test_every_array_argument_refuses_a_mask_even_an_empty_one(name):
    """Of what is masked later, nothing would be said."""
    plain = {"logits": X, "targets": Y, "grad": GRAD, "loss": 1.0, "weight": np.ones(3)}
    plain |= {"out": np.empty(X.shape)}
    masked = np.ma.array(plain[name])
    function, given = CALLS["check" if name in {"grad", "loss"} else "cross_entropy"]
    with pytest.raises(DataError, match=f"^{name}: masked arrays are not supported"):
        function(**{**given, name: masked})
    for call in ("softmax", "log_softmax") if name in {"logits", "out"} else ():
        with pytest.raises(DataError, match=f"^{name}: masked arrays are not supported"):
            CALLS[call][0](**{**CALLS[call][1], name: masked})


@pytest.mark.parametrize("name", ["temperature", "label_smoothing", "ignore_index"])
def test_options_that_compare_equal_are_told_apart_when_remembered(name):
    """1 was allowed a moment ago; True, which equals it and has its hash, is not."""
    x, y = np.zeros((2, 3), "f4"), np.array([0, 1])
    for _ in range(2):
        cross_entropy(x, y, target_kind="index", **{name: 1})
        with pytest.raises(OptionError, match=f"{name}: True is not allowed"):
            cross_entropy(x, y, target_kind="index", **{name: True})


def test_minus_zero_is_zero(backend):
    x, y = np.float32([[1, 2], [3, 3]]), np.array([0, 1])
    grads = [cross_entropy(x, y, label_smoothing=s, backend=backend).grad for s in (-0.0, 0.0)]
    assert_same_bits(*grads)


def test_a_small_job_takes_few_steps_in_python():
    """In a training loop a job of 100 logits is nothing else: it was 906 functions, then 234."""
    x, y, called = np.zeros((10, 10), "f4"), np.zeros(10, int), []

    def note(frame, event, argument):
        if event == "call":
            called.append(frame.f_code.co_name)

    for _ in range(2):  # the kernel is loaded, the options are known
        cross_entropy(x, y, backend="cpu")
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        cross_entropy(x, y, backend="cpu")
    finally:
        sys.setprofile(before)
    assert 50 < len(called) < 150, called


def test_auto_goes_by_the_size_alone():
    assert [backends.get("auto", n).name for n in (0, 64, 65, 1 << 40)] == ["numpy"] * 2 + [
        "cpu"
    ] * 2
    assert backends.for_statistics("auto", (5_000, 10)).name == "numpy"
    assert backends.for_statistics("auto", (5_001, 10)).name == "cpu"
