"""The report over rows: against plain Python, on edges, and the same bits for any cut."""

import math
from dataclasses import FrozenInstanceError, replace

import naive_report as naive
import numpy as np
import pytest
from helpers import assert_same_bits

from xentcli.arrays.grouped_sums import GroupedSums
from xentcli.engine.cross_entropy import Run
from xentcli.engine.problem import Extras, build
from xentcli.engine.rows import RowSource, walk
from xentcli.engine.targets import Whole
from xentcli.errors import DataError, OptionError, ShapeError
from xentcli.report import kept, report
from xentcli.report.bins import borders, mass_edges
from xentcli.report.compute import Groups, ReportCalculation
from xentcli.report.finish import finish
from xentcli.report.means import Mean, RowWeights
from xentcli.report.options import ReportOptions, ScoreOptions
from xentcli.report.statistic import Z95, wilson
from xentcli.report.totals import Totals

N, C = 400, 6
RNG = np.random.default_rng(20260101)
LOGITS = RNG.normal(size=(N, C)) * 2
TARGETS = np.where(RNG.random(N) < 0.6, LOGITS.argmax(axis=1), RNG.integers(0, C, N))
BASE = LOGITS + RNG.normal(size=(N, C)) * 0.2
WEIGHTS = RNG.exponential(size=N)
GROUPS = RNG.integers(0, 37, N)
ROWS = [naive.row(z, y) for z, y in zip(LOGITS.tolist(), TARGETS.tolist(), strict=True)]
BASE_ROWS = [naive.row(z, y) for z, y in zip(BASE.tolist(), TARGETS.tolist(), strict=True)]


def column(name, rows=ROWS):
    return [float(row[name]) for row in rows]


def share(k):
    return [float(min(1.0, max(0.0, (k - r["above"]) / (r["ties"] + 1)))) for r in ROWS]


QUANTITIES = {
    "nll": column("nll"),
    "brier": column("brier"),
    "entropy": column("entropy"),
    "confidence": column("confidence"),
    "accuracy": share(1),
    "top_3": share(3),
    "nll_difference": [float(a["nll"] - b["nll"]) for a, b in zip(ROWS, BASE_ROWS, strict=True)],
    "kl": [float(naive.kl(b, z)) for b, z in zip(BASE.tolist(), LOGITS.tolist(), strict=True)],
    "delta_p": [float(a["p_target"] - b["p_target"]) for a, b in zip(ROWS, BASE_ROWS, strict=True)],
    "same_prediction": [
        float(a["prediction"] == b["prediction"]) for a, b in zip(ROWS, BASE_ROWS, strict=True)
    ],
}


@pytest.mark.parametrize("v", [None, WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("group", [None, GROUPS], ids=["independent", "grouped"])
def test_means_and_errors_are_those_of_the_definition(v, group):
    found = report(LOGITS, TARGETS, base=BASE, sample_weight=v, group=group, top=(3,))
    for name, x in QUANTITIES.items():
        item = found[name]
        error = naive.standard_error(x, v) if group is None else naive.clustered_error(x, group, v)
        assert item.value == pytest.approx(float(naive.mean(x, v)), rel=1e-12), name
        assert item.se == pytest.approx(error, rel=1e-11), name
        assert item.n == N
    assert found.groups == (0 if group is None else 37)


def test_intervals_of_means_are_symmetric_and_of_shares_wilsons():
    found = report(LOGITS, TARGETS)
    item = found["nll"]
    assert item.interval == (item.value - Z95 * item.se, item.value + Z95 * item.se)
    assert found["accuracy"].interval == pytest.approx(wilson(float(naive.mean(share(1))), N))


def test_wilson_is_its_formula():
    p, n, z = 0.37, 52, 1.96
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    assert wilson(p, n) == pytest.approx((middle - half, middle + half), rel=1e-14)


def test_perplexity_and_the_loss_by_the_size_of_the_text():
    found = report(LOGITS, TARGETS, bytes=1234, words=99)
    nll = found["nll"]
    ppl = found["perplexity"]
    assert ppl.value == pytest.approx(math.exp(nll.value), rel=1e-15)
    assert ppl.se == pytest.approx(ppl.value * nll.se, rel=1e-14)
    assert ppl.interval == pytest.approx([math.exp(end) for end in nll.interval], rel=1e-14)
    total = math.fsum(QUANTITIES["nll"])
    assert found["bits_per_byte"].value == pytest.approx(total / math.log(2) / 1234, rel=1e-13)
    assert found["word_perplexity"].value == pytest.approx(math.exp(total / 99), rel=1e-12)


def test_perplexity_never_goes_through_probabilities():
    found = report(np.array([[0.0, 200.0], [0.0, 200.0]]), [0, 0])
    assert found["nll"].value == 200.0
    assert found["perplexity"].value == math.exp(200.0)
    assert report(np.array([[0.0, 2000.0]]), [0])["perplexity"].value == math.inf


def test_against_a_base_the_ratio_and_the_rms():
    found = report(LOGITS, TARGETS, base=BASE)
    assert found["perplexity_ratio"].value == pytest.approx(
        math.exp(math.fsum(QUANTITIES["nll_difference"]) / N), rel=1e-13
    )
    rms = math.sqrt(math.fsum(d * d for d in QUANTITIES["delta_p"]) / N)
    assert found["delta_p_rms"].value == pytest.approx(rms, rel=1e-12)
    for name in ("kl", "delta_p"):
        quantiles = found[name].quantiles
        for key, q in kept.QUANTILES.items():
            expected = naive.quantile(QUANTITIES[name], q)
            assert quantiles[key] == pytest.approx(expected, rel=1e-10, abs=1e-15)


def test_quantiles_of_loss_and_rank_are_exact():
    found = report(LOGITS, TARGETS)
    for key, q in kept.QUANTILES.items():
        assert found["nll"].quantiles[key] == pytest.approx(
            naive.quantile(QUANTITIES["nll"], q), rel=1e-13
        )
        assert found.ranks.quantiles[key] == pytest.approx(naive.quantile(column("above"), q))


# Calibration errors


@pytest.mark.parametrize("v", [None, WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("count", [1, 10, 15, 20])
@pytest.mark.parametrize("binning", ["width", "mass"])
def test_calibration_errors_are_those_of_the_definition(binning, count, v):
    found = report(LOGITS, TARGETS, bins=count, binning=binning, sample_weight=v)
    make = naive.bins_of_width if binning == "width" else naive.bins_of_mass
    rows = make(column("confidence"), count)
    expected = naive.calibration(column("confidence"), share(1), rows, v)
    for name, value in zip(("ece", "mce", "ece_l2_debiased"), expected, strict=True):
        assert found[name].value == pytest.approx(value, rel=1e-11, abs=1e-14), name
        assert found[name].se is None
    assert [item.n for item in found.bins] == [len(some) for some in rows]


def test_a_confidence_on_a_border_is_in_the_bin_below_and_1_in_the_last():
    confidence = np.array([0.1, 0.3, 0.30000000000000004, 1.0, 0.5])
    index = np.searchsorted(borders(10)[1:], confidence, side="left")
    assert index.tolist() == [0, 2, 3, 9, 4]
    r = report(np.array([[0.0, 0.0], [1000.0, 0.0]]), [0, 0], bins=2)
    assert [(item.low, item.high, item.n) for item in r.bins] == [(0, 0.5, 1), (0.5, 1, 1)]


def test_borders_are_the_doubles_k_over_m():
    for count in (10, 15, 20):
        assert borders(count).tolist() == [k / count for k in range(count + 1)]


def test_equal_confidences_are_never_split():
    confidence = np.array([0.5] * 7 + [0.6, 0.7, 0.7, 0.7])
    edges = mass_edges(confidence.copy(), 5)
    assert edges.tolist() == [0.0, 0.5, 0.7]  # cuts after 2, 4, 7, 9 and 11 rows
    r = report(np.zeros((10, 4)), [0] * 10, binning="mass")
    assert len(r.bins) == 1


# Classes, pairs, rows


def test_results_per_class_and_the_most_confused_pairs():
    found = report(LOGITS, TARGETS, confusion=4)
    for item in found.classes:
        mine = [i for i in range(N) if TARGETS[i] == item.index]
        assert item.n == len(mine)
        for name in ("accuracy", "nll", "confidence"):
            expected = math.fsum(QUANTITIES[name][i] for i in mine) / len(mine)
            assert getattr(item, name) == pytest.approx(expected, rel=1e-13)
    assert sum(item.n for item in found.classes) == N
    counts = {}
    for y, row in zip(TARGETS.tolist(), ROWS, strict=True):
        if row["prediction"] != y:
            counts[y, row["prediction"]] = counts.get((y, row["prediction"]), 0) + 1
    order = sorted(counts, key=lambda pair: (-counts[pair], pair))[:4]
    pairs = [(item.target, item.prediction) for item in found.confusion]
    assert pairs == order
    assert [item.n for item in found.confusion] == [counts[pair] for pair in order]
    first = found.confusion[0]
    assert first.share == first.n / np.count_nonzero(first.target == TARGETS)


def test_the_worst_rows_are_those_with_the_largest_loss():
    found = report(LOGITS, TARGETS, worst=7)
    order = sorted(range(N), key=lambda i: -QUANTITIES["nll"][i])[:7]
    assert [item.row for item in found.worst] == order
    for item in found.worst:
        row = ROWS[item.row]
        assert (item.target, item.prediction) == (TARGETS[item.row], row["prediction"])
        assert item.p_target == pytest.approx(float(row["p_target"]), rel=1e-14)
        assert item.p_prediction == pytest.approx(float(row["confidence"]), rel=1e-14)
        assert item.rank == row["above"]


def test_of_equal_losses_the_first_rows_are_the_worst():
    assert [item.row for item in report(np.zeros((9, 2)), [0] * 9, worst=3).worst] == [0, 1, 2]


def test_the_loss_along_the_file():
    found = report(LOGITS, TARGETS)
    assert found.along[0].first == 0
    assert found.along[-1].last == N - 1
    for a, b in zip(found.along, found.along[1:], strict=False):
        assert b.first == a.last + 1
    for part in found.along:
        mine = QUANTITIES["nll"][part.first : part.last + 1]
        assert part.n == len(mine)
        assert part.nll == pytest.approx(math.fsum(mine) / len(mine), rel=1e-13)


def test_histograms_count_every_row():
    found = report(LOGITS, TARGETS)
    assert sum(found.nll_histogram.counts) == N
    assert sum(found.ranks.histogram.counts) == N
    assert found.ranks.histogram.counts[0] == column("above").count(0)


# Ignored rows, ties, what is not finite, other edges


def test_ignored_rows_are_left_out_of_everything():
    y = TARGETS.copy()
    y[::3] = -100
    x = LOGITS.copy()
    x[0] = np.nan
    keep = y != -100
    found = report(x, y, sample_weight=WEIGHTS, group=GROUPS, worst=3)
    plain = report(x[keep], y[keep], sample_weight=WEIGHTS[keep], group=GROUPS[keep], worst=3)
    assert found.statistics == plain.statistics
    assert found.bins == plain.bins
    assert (found.rows, found.ignored) == (N, N - keep.sum())
    numbers = np.flatnonzero(keep)
    assert [item.row for item in found.worst] == [numbers[item.row] for item in plain.worst]


def test_weights_that_are_equal_change_nothing_but_rounding():
    a, b = report(LOGITS, TARGETS), report(LOGITS, TARGETS, sample_weight=np.full(N, 0.25))
    for name, item in a.statistics.items():
        assert item.value == pytest.approx(b[name].value, rel=1e-14)
        if item.se is not None:
            assert item.se == pytest.approx(b[name].se, rel=1e-12)


def test_groups_of_one_give_the_errors_of_independent_rows():
    a, b = report(LOGITS, TARGETS), report(LOGITS, TARGETS, group=np.arange(N))
    for name in ("nll", "brier", "accuracy"):
        assert a[name].se == pytest.approx(b[name].se, rel=1e-12)


def test_labels_of_groups_may_be_anything():
    names = np.array([f"doc {g}" for g in GROUPS])
    assert (
        report(LOGITS, TARGETS, group=names)["nll"] == report(LOGITS, TARGETS, group=GROUPS)["nll"]
    )


def test_equal_rows_have_an_error_of_exactly_0():
    x = np.tile([[0.1, 0.7, -0.3]], (1000, 1))
    found = report(x, [1] * 1000, sample_weight=np.full(1000, 0.3))
    assert [found[name].se for name in ("nll", "entropy", "brier")] == [0.0] * 3
    assert report(x, [1] * 1000)["nll"].se == 0.0


def test_ties_count_in_part_and_are_counted():
    found = report(np.zeros((5, 4)), [0, 1, 2, 3, 0], top=(1, 2))
    assert found["accuracy"].value == 0.25
    assert found["top_2"].value == 0.5
    assert found.ranks.tied == 5
    assert report(LOGITS, TARGETS).ranks.tied == 0


def test_no_rows_and_only_ignored_rows():
    for x, y in ((np.empty((0, 3)), np.empty(0, int)), (np.ones((2, 3)), [-100, -100])):
        found = report(x, y, worst=2, confusion=2)
        assert math.isnan(found["nll"].value)
        assert found["nll"].se is None
        assert found["nll"].n == 0
        assert "ece" not in found.statistics
        assert (found.bins, found.worst, found.classes) == ((), (), ())
        assert "no row is left" in found.notes[0].text


def test_one_row_has_no_standard_error():
    found = report(np.array([[1.0, 2.0, 3.0]]), [2])
    assert found["nll"].se is None
    assert found["nll"].interval is None
    assert found["accuracy"].interval == pytest.approx(wilson(1.0, 1))


def test_one_class_is_always_right():
    found = report(np.ones((4, 1)), [0] * 4)
    assert (found["nll"].value, found["accuracy"].value, found["ece"].value) == (0.0, 1.0, 0.0)


def test_rows_that_are_not_finite_are_counted_and_left_out_only_when_asked():
    x = LOGITS.copy()
    x[5, 0], x[9, TARGETS[9]] = np.nan, -np.inf
    found = report(x, TARGETS)
    assert found.nonfinite == 2
    assert math.isnan(found["nll"].value)
    assert "2 of 400 rows are not finite; first: the loss of row 5 is nan" in found.notes[0].text
    keep = np.ones(N, bool)
    keep[[5, 9]] = False
    skipped = report(x, TARGETS, skip_nonfinite=True)
    assert skipped.statistics == report(x[keep], TARGETS[keep]).statistics
    assert skipped.nonfinite == 2


def test_an_infinite_loss_makes_the_mean_infinite_and_leaves_the_rest():
    x = LOGITS.copy()
    x[9, TARGETS[9]] = -np.inf
    found = report(x, TARGETS, worst=1)
    assert found["nll"].value == found["perplexity"].value == math.inf
    assert found["nll"].se is None
    assert math.isfinite(found["brier"].value)
    assert found.worst[0].row == 9
    assert found["nll"].quantiles["max"] == math.inf


def test_a_class_that_the_model_excludes_makes_kl_infinite():
    model = LOGITS.copy()
    other = (TARGETS[3] + 1) % C
    model[3, other] = -np.inf
    found = report(model, TARGETS, base=BASE)
    assert found["kl"].value == math.inf
    assert "1 row has a class that the base gives a probability" in found.notes[0].text


def test_probability_targets_have_what_is_defined_and_say_why_not_the_rest():
    q = np.exp(BASE) / np.exp(BASE).sum(axis=1, keepdims=True)
    found = report(LOGITS, q, base=BASE)
    assert not {"accuracy", "top_5", "ece", "delta_p"} & set(found.statistics)
    assert {"nll", "perplexity", "brier", "entropy", "confidence", "kl"} <= set(found.statistics)
    assert found.ranks is None
    assert "need class indices" in found.notes[0].text
    kl = math.fsum(QUANTITIES["kl"]) / N
    entropy = math.fsum(column("entropy", BASE_ROWS)) / N
    assert found["nll"].value == pytest.approx(kl + entropy, rel=1e-12)


def test_weights_that_sum_to_0_leave_no_mean():
    found = report(LOGITS, TARGETS, sample_weight=np.zeros(N))
    assert math.isnan(found["nll"].value)
    assert "weights sum to 0" in found.notes[0].text


def test_any_layout_and_dtype_gives_the_same():
    x, y = LOGITS.astype(np.float32), TARGETS
    plain = report(x, y)
    cube = x.reshape(20, 20, C)
    moved = np.moveaxis(cube, 2, 1)
    assert report(cube, y.reshape(20, 20)).statistics == plain.statistics
    assert report(moved, y.reshape(20, 20)).statistics == plain.statistics
    assert report(x.astype(float), y).statistics == plain.statistics


def test_a_base_may_have_its_rows_along_other_axes():
    plain = report(LOGITS, TARGETS, base=BASE).statistics
    assert report(LOGITS, TARGETS, base=BASE.reshape(20, 20, C)).statistics == plain
    cube = report(LOGITS.reshape(20, 20, C), TARGETS.reshape(20, 20), base=BASE)
    assert cube.statistics == plain
    moved = np.moveaxis(LOGITS.reshape(20, 20, C), 2, 1)
    with pytest.raises(ShapeError, match="base"):
        report(moved, TARGETS.reshape(20, 20), base=BASE)


def test_options_and_shapes_that_are_wrong_are_errors():
    for name, value in (("bins", 0), ("worst", -1), ("top", (0,)), ("binning", "x"), ("bytes", 0)):
        with pytest.raises(OptionError):
            report(LOGITS, TARGETS, **{name: value})
    scalars = report(LOGITS, TARGETS, bins=np.int64(7), worst=np.uint8(2), top=(np.int32(3),))
    assert scalars == report(LOGITS, TARGETS, bins=7, worst=2, top=(3,))
    with pytest.raises(ShapeError, match="base"):
        report(LOGITS, TARGETS, base=BASE[:-1])
    with pytest.raises(ShapeError, match="group"):
        report(LOGITS, TARGETS, group=GROUPS[:-1])
    with pytest.raises(DataError, match="outside 0 to 5"):
        report(LOGITS, TARGETS + 1)


def test_results_are_frozen():
    found = report(LOGITS, TARGETS)
    with pytest.raises(FrozenInstanceError):
        found.rows = 1
    with pytest.raises(FrozenInstanceError):
        found["nll"].value = 1.0


# The same bits for any cut, any merge, memory or disk


def calculation(options=None, **extras):
    scoring = ScoreOptions()
    problem = build(LOGITS.shape, Whole(TARGETS), scoring.loss(), Extras(sample_weight=WEIGHTS))
    what = options or ReportOptions(worst=3, confusion=3)
    groups = Groups.of(GROUPS, problem)
    return problem, lambda: ReportCalculation(problem, (scoring, what), Run(), groups, base=True)


def pieces(problem, entries):
    source = RowSource.of_arrays(LOGITS, second=BASE)
    return walk(problem, source, entries)


@pytest.mark.parametrize("binning", ["width", "mass"])
def test_the_bits_do_not_depend_on_how_the_rows_are_cut(binning, monkeypatch):
    problem, make = calculation(ReportOptions(worst=3, confusion=3, binning=binning))
    found = []
    for entries, batch in ((3 * C, 1), (7 * C, 64), (50 * C, 1 << 15), (N * C, 100)):
        monkeypatch.setattr("xentcli.report.totals.BATCH", batch)
        one = make()
        for piece in pieces(problem, entries):
            one.totals.add(one.scores(piece))
        found.append(one.result())
    assert all(replace(r, notes=()) == replace(found[0], notes=()) for r in found)


@pytest.mark.parametrize("cut", [1, 57, 397])
def test_the_bits_do_not_depend_on_where_parts_are_merged(cut):
    problem, make = calculation()
    whole, first, second = make(), make(), make()
    for piece in pieces(problem, 4 * C):
        whole.totals.add(whole.scores(piece))
        part = first if piece.start < cut else second
        part.totals.add(part.scores(piece))
    first.merge(second)
    assert first.result() == whole.result()


def test_many_rows_are_kept_in_temporary_files_with_the_same_result(monkeypatch):
    plain = report(LOGITS, TARGETS, binning="mass", base=BASE, sample_weight=WEIGHTS)
    monkeypatch.setattr(kept, "LIMIT", 1000)
    monkeypatch.setattr("xentcli.report.totals.BATCH", 32)
    problem, make = calculation(ReportOptions(binning="mass"))
    one = make()
    for piece in pieces(problem, 40 * C):
        one.totals.add(one.scores(piece))
    spilled = one.result()
    assert one.totals.kept.on_disk
    assert any("temporary files" in note.text for note in spilled.notes)
    for name in ("ece", "mce"):
        assert spilled[name].value == plain[name].value
    for name in ("nll", "kl", "delta_p"):
        assert spilled[name].quantiles == plain[name].quantiles
    assert spilled.ranks == plain.ranks


def test_at_most_24_bytes_are_kept_of_a_row():
    _, make = calculation()
    info = make().totals.info
    for binning in ("width", "mass"):
        options = ReportOptions(binning=binning)
        without = Totals(replace(info, base=False, weighted=False), options)._columns()
        assert sum(np.dtype(code).itemsize for code in without.values()) <= 24
        with_base = Totals(replace(info, weighted=False), options)._columns()
        assert sum(np.dtype(code).itemsize for code in with_base.values()) <= 40


def test_totals_without_rows_can_be_finished():
    _, make = calculation()
    one = make()
    assert finish(one.totals, 0, "numpy")["nll"].n == 0


# The sums themselves


def test_grouped_sums_are_exact_in_any_order():
    rng = np.random.default_rng(3)
    x = rng.normal(size=5000) * 10.0 ** rng.integers(-300, 300, 5000)
    x[:10] = [5e-324, -5e-324, 1e308, -1e308, 1e-310, 0.0, -0.0, 1.5, -1.5, 2.0**-1074]
    index = rng.integers(0, 3, 5000)
    forward, backward = GroupedSums(3), GroupedSums(3)
    forward.add(index, x)
    for part in np.array_split(np.arange(4999, -1, -1), 17):
        other = GroupedSums(3)
        other.add(index[part], x[part])
        backward.merge(other)
    assert_same_bits(forward.values(), backward.values())
    for g in range(3):
        assert forward.values()[g] == pytest.approx(math.fsum(x[index == g]), rel=2.0**-52)


def test_grouped_sums_of_what_is_not_finite():
    sums = GroupedSums(4)
    sums.add(np.array([0, 0, 1, 2, 2]), np.array([np.inf, 1.0, np.nan, np.inf, -np.inf]))
    found = sums.values()
    assert found[0] == np.inf
    assert np.isnan(found[1:3]).all()
    assert found[3] == 0


def test_grouped_sums_of_many_groups_and_few_numbers():
    sums = GroupedSums(100_000)
    sums.add(np.array([99_999, 99_999]), np.array([0.1, 0.2]))
    assert sums.values()[99_999] == 0.1 + 0.2


def test_a_variance_that_cancels_keeps_its_digits():
    x = 1e6 + np.random.default_rng(1).normal(size=1000) * 1e-4
    weights, mean = RowWeights(), Mean()
    weights.add(len(x), None, None)
    mean.add(x, None, None)
    assert mean.over(weights).se == pytest.approx(naive.standard_error(x), rel=1e-14)
    assert np.sqrt(abs((x**2).mean() - x.mean() ** 2) / 999) != pytest.approx(
        naive.standard_error(x), rel=1e-2
    )
