"""The walk over rows: a consumer in 30 lines, and accumulators that give the same bits for any
cut into pieces and any order of merging adjacent parts."""

import inspect
import math
import os
import pickle
import threading
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import asdict
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from unittest import mock

import naive
import numpy as np
import pytest
from cli import inside
from helpers import assert_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st

from xentcli import cross_entropy, softmax
from xentcli.arrays import sums
from xentcli.arrays.error_free import two_product, two_sum
from xentcli.arrays.layout import Layout
from xentcli.arrays.sums import RunningSum
from xentcli.check.judging import ExactLosses, Judge, JudgeOptions
from xentcli.check.oracles.dd_arithmetic import Pair
from xentcli.check.oracles.rows import FloatRows, GradientSpec, scale_of
from xentcli.check.oracles.ulp import FLOATS, Errors
from xentcli.check.statistics import (
    EntryGroup,
    ErrorHistogram,
    ErrorStatistics,
    Misses,
    NonfiniteCounts,
)
from xentcli.engine.cross_entropy import LossCalculation, Run
from xentcli.engine.notes import NonfiniteEntries, NonfiniteRows, ProbabilityCheck
from xentcli.engine.output_buffer import Destination
from xentcli.engine.problem import Extras, build, without_targets
from xentcli.engine.reduction import plan
from xentcli.engine.result import LossTotals
from xentcli.engine.rows import RowPiece, RowSource, float_rows, in_memory, walk
from xentcli.engine.softmax import SoftmaxCalculation
from xentcli.errors import FormatError, StrictError
from xentcli.files.opening import open_reader
from xentcli.options import LossOptions

N, C = 23, 5
SETTINGS = settings(max_examples=60, deadline=None, derandomize=True)


class Evaluation:
    """Accuracy, mean loss and perplexity of any logits: what a consumer of the walk looks like."""

    def __init__(self, problem, options):
        self.calculation = LossCalculation(problem, options, Run())
        self.right = self.counted = 0

    def add(self, piece):
        self.calculation.add(piece)
        present = piece.targets >= 0
        predicted = float_rows(piece.logits).argmax(axis=1)
        self.right += int((predicted == piece.targets)[present].sum())
        self.counted += int(present.sum())

    def merge(self, other):
        self.calculation.merge(other.calculation)
        self.right += other.right
        self.counted += other.counted

    def result(self):
        loss = self.calculation.result().loss
        return {"loss": loss, "perplexity": math.exp(loss), "accuracy": self.right / self.counted}


def test_the_consumer_is_short():
    assert len(inspect.getsource(Evaluation).splitlines()) <= 30


def test_the_docstring_of_the_walk_has_all_its_parts():
    for part in ("Shapes:", "Units:", "Errors:", ">>> ", "Source:"):
        assert part in walk.__doc__


@pytest.fixture
def data(files, rng):
    """Logits and targets as arrays and as files, a tenth of the rows ignored."""
    x, t = rng.standard_normal((N, C)) * 4, rng.integers(0, C, N)
    t[::10] = -100
    np.save("x.npy", x)
    np.save("y.npy", t)
    np.savetxt("x.csv", x, delimiter=",", fmt="%.17g")
    np.savetxt("y.csv", t, fmt="%d")
    return x, t


@pytest.fixture
def opened():
    """Readers of files, as long as the test runs."""
    with ExitStack() as stack:
        yield lambda path: stack.enter_context(open_reader(path))


def evaluated(logits, targets, rows=N):
    """The result for two readers, in pieces of so many rows."""
    problem = build(logits.shape, targets, LossOptions(), Extras())
    evaluation = Evaluation(problem, LossOptions())
    source = RowSource(logits, targets if problem.probs else None)
    for piece in walk(problem, source, entries=rows * C):
        evaluation.add(piece)
    return evaluation.result()


def expected(x, t):
    """The same in one line each, from the naive oracle."""
    here = t >= 0
    loss, _ = naive.cross_entropy(x.tolist(), t.tolist())
    accuracy = float((x.argmax(axis=1) == t)[here].sum() / here.sum())
    return {"loss": loss, "perplexity": math.exp(loss), "accuracy": accuracy}


def assert_equal_results(found, wanted):
    """To the last bit."""
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        assert_same_bits(np.float64(value), np.float64(wanted[name]))


@pytest.mark.parametrize("rows", [1, 3, 7, N])
def test_any_cut_gives_the_same_bits_and_what_is_right(rows, data):
    x, t = data
    found = evaluated(in_memory(x, "logits"), in_memory(t, "targets"), rows)
    assert_equal_results(found, evaluated(in_memory(x, "logits"), in_memory(t, "targets")))
    assert found == pytest.approx(expected(x, t), rel=1e-14)
    assert found["loss"] == cross_entropy(x, t).loss


@pytest.mark.parametrize("suffix", ["npy", "csv"])
@pytest.mark.parametrize("rows", [1, 7, N])
def test_any_file_gives_the_same_bits(suffix, rows, data, opened):
    x, t = data
    targets = opened(f"y.{suffix}")
    if suffix == "csv":  # a column of text
        targets = in_memory(targets.whole().reshape(-1).astype(int), "targets")
    found = evaluated(opened(f"x.{suffix}"), targets, rows)
    assert_equal_results(found, evaluated(in_memory(x, "logits"), in_memory(t, "targets")))


@pytest.mark.parametrize("order", ["C", "F"])
def test_any_memory_order_gives_the_same_bits(order, data):
    x, t = data
    found = evaluated(in_memory(np.array(x, order=order), "logits"), in_memory(t, "targets"), 3)
    assert_equal_results(found, evaluated(in_memory(x, "logits"), in_memory(t, "targets")))


def test_a_pipe_gives_the_same_bits(data, opened):
    x, t = data
    os.mkfifo("fifo")
    content = Path("x.npy").read_bytes()
    writer = threading.Thread(target=lambda: Path("fifo").write_bytes(content))
    writer.start()
    found = evaluated(opened("fifo"), in_memory(t, "targets"), 4)
    writer.join()
    assert_equal_results(found, evaluated(in_memory(x, "logits"), in_memory(t, "targets")))


def parts_of(rows, cuts):
    """The ranges between cuts, in order."""
    ends = sorted({0, *(cut % (rows + 1) for cut in cuts), rows})
    return [slice(a, b) for a, b in pairwise(ends)]


def merged(parts, draw_order):
    """Accumulators of adjacent parts, merged two neighbours at a time, in any order."""
    parts = list(parts)
    for number in draw_order:
        if len(parts) > 1:
            left = number % (len(parts) - 1)
            parts[left].merge(parts.pop(left + 1))
    while len(parts) > 1:
        parts[0].merge(parts.pop(1))
    return parts[0]


CUTS = st.lists(st.integers(0, 10**6), max_size=8)


@SETTINGS
@given(CUTS, CUTS)
def test_parts_that_are_walked_apart_merge_to_the_same_bits(cuts, order):
    """As other processes would: each has some of the rows and a part of the problem."""
    rng = np.random.default_rng(3)
    x, t = rng.standard_normal((N, C)) * 4, rng.integers(0, C, N)
    w, v = rng.random(C), rng.random(N)
    options = LossOptions(z_loss=0.01, label_smoothing=0.1)
    problem = build(x.shape, in_memory(t, "targets"), options, Extras(w, v))
    found = []
    for rows in parts_of(N, cuts):
        found.append(Evaluation(problem, options))
        part = problem.part(rows, Layout((rows.stop - rows.start, C), 1))
        for piece in walk(part, RowSource.of_arrays(x[rows]), entries=2 * C, start=rows.start):
            assert piece.rows.start >= rows.start
            found[-1].add(piece)
    whole = Evaluation(problem, options)
    whole.add(RowPiece.of_arrays(problem, x))
    assert_equal_results(merged(found, order).result(), whole.result())
    wanted = cross_entropy(
        x, t, weight=w, sample_weight=v, z_loss=0.01, label_smoothing=0.1, grad=False
    )
    assert whole.result()["loss"] == wanted.loss


def test_pieces_know_their_rows_and_their_part_of_everything(rng):
    x, q, g = (rng.random((4, C, 3)) for _ in range(3))
    v, options = rng.random(12), LossOptions(class_axis=1)
    problem = build(x.shape, in_memory(q, "targets"), options, Extras(sample_weight=v))
    start = 0
    for piece in walk(problem, RowSource.of_arrays(x, q, g), entries=1, start=100):
        assert piece.rows == slice(100 + start, 103 + start)
        assert piece.targets is None
        inner = [part for whole in piece.split(2 * C) for part in whole.split(C)]
        assert [part.start for part in inner] == [100 + start + i for i in range(3)]
        for part in inner:
            row = part.start - 100
            rows = [float_rows(box)[0] for box in (part.logits, part.probs, part.second)]
            for array, found in zip((x, q, g), rows, strict=True):
                np.testing.assert_array_equal(found, array[row // 3, :, row % 3])
            assert part.problem.sample_weight == v[row]
        start += 3
    assert start == 12


@pytest.mark.parametrize("dtype", ["f2", "f4", "i8", ">f8"])
def test_float_rows_of_any_dtype(dtype):
    x = np.arange(12).reshape(2, 3, 2).astype(dtype)
    wanted = np.array([[0.0, 2, 4], [1, 3, 5], [6, 8, 10], [7, 9, 11]])
    assert_same_bits(float_rows(x), wanted)


def test_bytes_left_over_are_noticed_at_the_end(data, opened):
    Path("x.npy").write_bytes(Path("x.npy").read_bytes() + b"more")
    with pytest.raises(FormatError, match="bytes"):
        evaluated(opened("x.npy"), opened("y.npy"))


# The accumulators: the same state after one walk, after any cut, and after any merging.

FLOATS_ANY = st.floats(width=64)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
ULPS = st.sampled_from([0.0, 0.25, 1.0, 1.0, 7.5, math.inf])
PROBABILITIES = st.sampled_from([0.5, 0.25, 0.75, 0.5005, 1.0, -0.5, math.nan, math.inf])


def errors_of(ulp):
    return Errors(ulp, ulp, ulp, np.ones_like(ulp))


class Groups(EntryGroup):
    """With one argument, as the others."""

    def add(self, values):
        super().add(values >= 0, values, Misses(values > 1, values > 0.5))


class Counts(NonfiniteCounts):
    def add(self, values):
        exact = np.where(values > 5, np.inf, np.where(values > 1, np.nan, values))
        found = np.where(values == 7.5, np.nan, values)
        super().add(found, exact, errors_of(np.where(found == exact, 0.0, np.inf)))


class Losses(ExactLosses):
    def __init__(self, reduction="sum"):
        options = LossOptions(reduction=reduction)
        problem = build((9, 2), in_memory(np.zeros(9, int), "targets"), options, Extras())
        spec = GradientSpec(options, scale_of(problem, options), FLOATS["f64"])
        super().__init__(plan(problem, options), spec)

    def add(self, values):
        super().add(Pair(values, values * 2.0**-54), np.abs(values) * 2.0**-20)


class Totals(LossTotals):
    def add(self, values):
        self.add_losses(values)


class Checked(ProbabilityCheck):
    def add(self, values):
        super().add(values.astype(np.float32))


class Entries(NonfiniteEntries):
    def __init__(self):
        super().__init__((3, 7))


def strict_error(entries):
    try:
        entries.require_none()
    except StrictError as error:
        return str(error)
    return None


COLUMN = (-1,)  # one number per row
BOX = (-1, 2, 1)  # two classes
ACCUMULATORS = {
    "running sum": (RunningSum, FLOATS_ANY, COLUMN, lambda a: a.high_low()),
    "nonfinite rows": (lambda: NonfiniteRows("loss"), FLOATS_ANY, COLUMN, lambda a: a.notes()),
    "nonfinite entries": (Entries, FLOATS_ANY, COLUMN, strict_error),
    "probability check": (Checked, PROBABILITIES, BOX, lambda a: a.notes()),
    "loss totals": (
        Totals, FLOATS_ANY, COLUMN, lambda a: (a.sum.value(), a.nonfinite.notes()),
    ),
    "error histogram": (ErrorHistogram, ULPS, COLUMN, lambda a: a.facts()),
    "entry group": (Groups, ULPS, COLUMN, asdict),
    "nonfinite counts": (Counts, ULPS, COLUMN, asdict),
    "exact losses": (Losses, FLOATS_ANY, COLUMN, lambda a: a.value().tolist()),
    "exact losses of rows": (
        lambda: Losses("none"), FLOATS_ANY, COLUMN, lambda a: a.value().tolist(),
    ),
}  # fmt: skip


def assert_same_for_any_cut(name, numbers, cuts, order):
    """One `add` of everything, an `add` for each part, and parts merged in some order."""
    make, _, shape, state = ACCUMULATORS[name]
    values = np.array(numbers, float)
    values = values[: len(values) - len(values) % abs(math.prod(shape))].reshape(shape)
    whole, cut = make(), make()
    whole.add(values)
    parts = []
    for rows in parts_of(len(values), cuts):
        cut.add(values[rows])
        parts.append(make())
        parts[-1].add(values[rows])
    wanted = repr(state(deepcopy(whole)))
    assert repr(state(cut)) == wanted
    parts = [pickle.loads(pickle.dumps(part)) for part in parts] if is_plain(make) else parts
    assert repr(state(merged(parts or [make()], order))) == wanted


def is_plain(make):
    """Whether what it makes is a class of the package, and not one of this module."""
    return getattr(make(), "__module__", "").startswith("xentcli")


@pytest.mark.parametrize("name", ACCUMULATORS)
@SETTINGS
@given(st.data())
def test_accumulators_give_the_same_bits_for_any_cut_and_any_merging(name, data):
    numbers = data.draw(st.lists(ACCUMULATORS[name][1], max_size=21))
    assert_same_for_any_cut(name, numbers, data.draw(CUTS), data.draw(CUTS))


def forgetful(self, other):
    """A merge that forgets where the other part begins, or takes nothing of it."""
    for field, value in vars(other).items():
        if isinstance(value, tuple) and not getattr(self, "count", 0):
            setattr(self, field, value)


@pytest.mark.parametrize("name", ACCUMULATORS)
def test_the_check_of_merging_can_fail(name, monkeypatch):
    kind = type(ACCUMULATORS[name][0]())
    monkeypatch.setattr(kind, "merge", forgetful)
    numbers = [0.25, 1.0, 7.5, 0.5, math.inf, 0.25, 1.0, 0.75]
    with pytest.raises(AssertionError):
        assert_same_for_any_cut(name, numbers, [2, 4], [])


def exact(numbers):
    """The sum, rounded once; infinite where it is out of range."""
    total = sum(map(Fraction, numbers), Fraction(0))
    try:
        return float(total)
    except OverflowError:
        return math.inf if total > 0 else -math.inf


@SETTINGS
@given(st.lists(FINITE), st.sampled_from([1, 2, 5, 1 << 15]), st.sampled_from([0, sums.FEW]))
def test_a_running_sum_is_rounded_once(numbers, chunk, few):
    with mock.patch.multiple(sums, CHUNK=chunk, FEW=few):
        total = RunningSum()
        total.add(np.array(numbers, float))
        high, low = total.high_low()
    assert_same_bits(np.float64(high), np.float64(exact(numbers) + 0.0))
    if math.isfinite(high):
        assert low == float(sum(map(Fraction, numbers), Fraction(0)) - Fraction(high))


@SETTINGS
@given(st.lists(FLOATS_ANY), st.sampled_from([0, sums.FEW]))
def test_numbers_that_are_not_finite_give_what_adding_gives(numbers, few):
    total = RunningSum()
    with mock.patch.object(sums, "FEW", few):
        total.add(np.array(numbers, float))
    special = [number for number in numbers if not math.isfinite(number)]
    wanted = sum(special) if special else exact(numbers)
    assert_same_bits(np.float64(total.value()), np.float64(wanted + 0.0))


@pytest.mark.parametrize("spread", [0, 3, 30, 300])
@pytest.mark.parametrize("count", [1, 1000, 40_000, 100_001])
def test_long_sums_are_rounded_once(count, spread, rng):
    values = rng.standard_normal(count) * 10.0 ** rng.integers(-spread, spread + 1, count)
    values[rng.random(count) < 0.1] = 0.0
    values = np.concatenate([values, -values[::3]])
    whole, parts = RunningSum(), RunningSum()
    whole.add(values)
    for begin in range(0, len(values), 777):
        parts.add(values[begin : begin + 777])
    assert whole.value() == parts.value() == math.fsum(values)


@pytest.mark.parametrize("count", [3, 1000])
def test_a_sum_keeps_its_own_copy_of_short_pieces(count):
    total, piece = RunningSum(), np.ones(count)
    total.add(piece)
    piece[:] = 5
    assert total.value() == count


def test_merging_leaves_the_other_sum_as_it_was():
    one, two = RunningSum(), RunningSum()
    one.add(np.array([1.0]))
    two.add(np.array([2.0]))
    one.merge(two)
    one.add(np.array([4.0]))
    assert (one.value(), two.value()) == (7.0, 2.0)


def test_sums_that_were_added_elsewhere_and_what_they_lost():
    total = RunningSum()
    total.add_sums(np.array([1e16, 3.0]), np.array([1.0, 0.0]))
    assert total.value() == 1e16 + 4
    total.add_sums(np.array([np.inf]), np.array([np.nan]))
    assert total.value() == np.inf


@SETTINGS
@given(FINITE, FINITE)
def test_the_error_of_a_sum_and_of_a_product_is_exact(a, b):
    if not 1e-140 < abs(a) < 1e140 or not 1e-140 < abs(b) < 1e140:
        return  # where nothing overflows and no error is below the smallest number
    one, other = np.float64(a), np.float64(b)
    for function, wanted in (
        (two_sum, Fraction(a) + Fraction(b)),
        (two_product, Fraction(a) * Fraction(b)),
    ):
        high, low = function(one, other)
        assert float(high) == float(wanted)
        assert Fraction(float(high)) + Fraction(float(low)) == wanted


# Everything that check counts, over rows with ties, NaN and infinities.


def judged(x, t, grad, cuts, order=()):
    """The statistics of a gradient whose rows are judged in parts."""
    options = LossOptions()
    problem = build(x.shape, in_memory(t, "targets"), options, Extras())
    spec = GradientSpec(options, scale_of(problem, options), FLOATS["f32"])
    found = []
    for rows in parts_of(len(x), cuts):
        judge = Judge(problem, spec, JudgeOptions(), losses=False)
        part = problem.part(rows, Layout((rows.stop - rows.start, x.shape[1]), 1))
        source = RowSource.of_arrays(x[rows], None, grad[rows])
        for piece in walk(part, source, entries=2 * x.shape[1], start=rows.start):
            judge.add(FloatRows.of(piece), float_rows(piece.second))
        found.append(judge.statistics)
    return merged(found, order)


def facts_of(statistics):
    plain = {name: value for name, value in vars(statistics).items() if name != "spreads"}
    return repr(plain) + repr({n: s.facts() for n, s in statistics.spreads.items()})


@pytest.mark.slow
@SETTINGS
@given(CUTS, CUTS, st.integers(0, 10**6))
def test_error_statistics_are_the_same_for_any_cut_and_any_merging(cuts, order, seed):
    rng = np.random.default_rng(seed)
    x, t = rng.standard_normal((N, C)).astype("f4"), rng.integers(0, C, N)
    t[::6] = -100
    grad = cross_entropy(x, t).grad
    which = rng.random((N, C)) < 0.3
    grad[which] = rng.choice([np.nan, np.inf, 0.0, 1.0], which.sum())
    wanted = facts_of(judged(x, t, grad, []))
    assert facts_of(judged(x, t, grad, cuts, order)) == wanted


def test_the_check_of_merging_statistics_can_fail(rng, monkeypatch):
    x, t = rng.standard_normal((N, C)).astype("f4"), rng.integers(0, C, N)
    grad = cross_entropy(x, t).grad * 2
    wanted = facts_of(judged(x, t, grad, []))
    assert facts_of(judged(x, t, grad, [7])) == wanted
    for part in (ErrorStatistics, ErrorHistogram, EntryGroup):
        with monkeypatch.context() as patch:
            patch.setattr(part, "merge", lambda self, other: None)
            assert facts_of(judged(x, t, grad, [7])) != wanted


@pytest.mark.parametrize("entries", [1, 20, 10**6])
def test_the_whole_report_is_the_same_for_any_cut(entries, files, rng, capfdbinary, monkeypatch):
    x, t = rng.standard_normal((40, 9)).astype("f4"), rng.integers(0, 9, 40)
    grad = cross_entropy(x, t).grad
    grad[rng.random(grad.shape) < 0.2] = np.nan
    for name, array in {"x": x, "y": t, "g": grad}.items():
        np.save(f"{name}.npy", array)
    command = ["check", "x.npy", "y.npy", "g.npy", "--json", "-q"]
    wanted = inside(capfdbinary, *command)
    monkeypatch.setattr("xentcli.check.judging.ENTRIES", entries)
    monkeypatch.setattr("xentcli.engine.rows.SLAB", entries)
    found = inside(capfdbinary, *command)
    assert (found.code, found.text) == (wanted.code, wanted.text)


@SETTINGS
@given(CUTS, CUTS)
def test_softmax_counts_merge(cuts, order):
    x = np.arange(12.0).reshape(6, 2)
    x[[1, 4]] = np.nan
    layout = Layout((6, 2), 1)
    found = []
    for rows in parts_of(6, cuts):
        found.append(SoftmaxCalculation(layout, LossOptions(), Run(), log=False))
        part = Layout((rows.stop - rows.start, 2), 1)
        found[-1].add(
            RowPiece.of_arrays(without_targets(part), x[rows]), Destination(part, x[rows])
        )
    result = merged(found, order).result()
    assert result.nonfinite == 4
    assert result.notes[0].text == "the result of 2 of 6 rows is not finite; first: row 1 is nan"


@pytest.mark.parametrize("shape", [(6, 4), (2, 4, 3), (1, 5000, 3), (6, 5000)])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_a_note_on_probabilities_does_not_depend_on_blocks(shape, dtype):
    """Sums of float32 have other digits in another order of adding."""
    layout = Layout(shape, 1)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        q = softmax(rng.standard_normal(shape), class_axis=1)
        q = (q * (1 + rng.integers(-3, 4, (shape[0], 1, *shape[2:])) * 4e-4)).astype(dtype)
        notes = []
        for entries in (1, 2 * shape[1], 10**9):
            check = ProbabilityCheck()
            for block in layout.blocks(entries):
                check.add(block.of(layout.boxed(q)))
            notes.append(check.notes())
        assert notes[0] == notes[1] == notes[2]


def test_several_threads_add_up_losses_to_the_same_bits(rng):
    x, y = rng.normal(size=(700_000, 2)).astype("f4") * 20, rng.integers(0, 2, 700_000)
    found = [cross_entropy(x, y, threads=threads, grad=False) for threads in (1, 2, 3)]
    assert len({each.loss for each in found}) == 1
    x[600_000], x[5] = np.nan, np.inf
    found = [cross_entropy(x, y, threads=threads, grad=False) for threads in (1, 2, 3)]
    texts = [[note.text for note in each.notes] for each in found]
    assert texts[0] == texts[1] == texts[2]
    assert "2 of 700000 rows" in texts[0][0]
    assert "row 5 " in texts[0][0]
