"""The fast ways of the report's sums and order statistics, against fractions and sorted lists."""

from fractions import Fraction

import numpy as np
import pytest
from helpers import assert_same_bits

from xentcli.arrays.grouped_sums import GroupedSums
from xentcli.arrays.moments import MOST, PER_CALL, moments
from xentcli.report.bins import BinTotals, borders
from xentcli.report.kept import KEYS, QUANTILES, histogram, quantiles
from xentcli.report.means import Mean, RowWeights

RNG = np.random.default_rng(20)
NUMBERS = {
    "losses": RNG.gamma(1.0, 2.0, PER_CALL),
    "largest digits": np.full(PER_CALL, 1 - 2.0**-53),
    "signs": RNG.standard_normal(1000),
    "shares": RNG.choice([0.0, 1.0, 1 / 3], 1000),
    "zeros": np.zeros(3),
    "far apart": np.array([1e9, 1e-9, -1e-3]),
    "one": np.array([-0.1]),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_moments_are_those_of_fractions(name):
    numbers = NUMBERS[name]
    found = moments(numbers, np.full((MOST + 1, PER_CALL), np.nan))
    exact = [Fraction(x) for x in numbers.tolist()]
    unit = Fraction(2) ** found.exponent
    assert found.total * unit == sum(exact)
    assert found.squares * unit**2 == sum(x * x for x in exact)


@pytest.mark.parametrize("last", [1e-60, 1e200, np.inf, np.nan])
def test_moments_leave_numbers_that_are_too_far_apart(last):
    assert moments(np.array([1.0, last]), np.empty((MOST + 1, PER_CALL))) is None


def test_a_mean_is_the_same_where_its_numbers_are_too_far_apart():
    numbers = np.append(RNG.gamma(1.0, 2.0, 2 * PER_CALL), 1e-60)
    weights, mean = RowWeights(), Mean()
    weights.add(len(numbers), None, None)
    mean.add(numbers, None, None)
    exact = [Fraction(x) for x in numbers.tolist()]
    n, total = len(exact), sum(exact)
    variance = (sum(x * x for x in exact) - total**2 / n) / (n - 1) / n
    assert mean.over(weights).value == float(total / n)
    assert mean.over(weights).se == pytest.approx(float(variance) ** 0.5, rel=1e-15)


GROUPED = {
    "usual": RNG.standard_normal(500),
    "every exponent": np.ldexp(RNG.standard_normal(500), RNG.integers(-1080, 1000, 500)),
    "the ends": np.array([5e-324, -5e-324, 1.5e308, -1.5e308, 2.0**901, 2.0**900, 5e-324]),
    "zeros": np.zeros(7),
}


@pytest.mark.parametrize("groups", [4, 1000])
@pytest.mark.parametrize("name", GROUPED)
def test_grouped_sums_are_those_of_fractions(name, groups):
    values = GROUPED[name]
    index = np.sort(RNG.integers(0, 4, len(values)))
    places, starts = np.unique(index, return_index=True)
    sums, runs = GroupedSums(groups), GroupedSums(groups)
    sums.add(index, values)
    runs.add_runs(places, starts, values)
    assert_same_bits(sums.values(), runs.values())
    for group in range(4):
        exact = float(sum(map(Fraction, values[index == group].tolist()), Fraction(0)))
        assert abs(sums.values()[group] - exact) <= np.spacing(abs(exact))


def test_grouped_sums_of_numbers_that_are_not_finite():
    values, index = np.array([1.0, np.inf, 2.0, np.nan, 1e308]), np.array([0, 0, 1, 2, 3])
    sums = GroupedSums(4)
    sums.add_runs(np.arange(4), np.array([0, 2, 3, 4]), values)
    other = GroupedSums(4)
    other.add(index, values)
    for found in (sums, other):
        np.testing.assert_array_equal(found.values(), [np.inf, 2.0, np.nan, 1e308])


def test_borders_belong_to_the_bin_below():
    for bins in (1, 10, 15, 49):
        edges = borders(bins)
        confidence = np.concatenate([np.nextafter(edges[1:], 0), edges[1:]])
        totals = BinTotals(edges)
        totals.add(confidence, np.ones(len(confidence)), None)
        totals.add(np.nextafter(edges[:-1], 1), np.ones(bins), None)
        assert [item.n for item in totals.bins()] == [3] * bins


def test_a_row_without_a_confidence_leaves_no_bins():
    totals = BinTotals(borders(15))
    totals.add(np.array([0.5, np.nan]), np.ones(2), None)
    assert totals.bins() == ()


COLUMNS = {
    "losses": RNG.gamma(1.0, 2.0, KEYS + 1),
    "signs": np.append(RNG.standard_normal(2 * KEYS), [-np.inf, np.inf]),
    "one number": np.full(KEYS, 0.25),
    "two numbers": RNG.choice([-1.0, 1.0], KEYS + 3),
    "few": RNG.standard_normal(50),
    "ranks": RNG.integers(0, 1000, KEYS + 5).astype(np.int32),
    "large ranks": RNG.integers(0, 200_000, KEYS).astype(np.int32),
    "negative": np.array([-1, 5, 3], np.int32),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_quantiles_are_those_of_the_sorted_numbers(name):
    ordered = sorted(COLUMNS[name].tolist())
    found = quantiles(COLUMNS[name].copy())
    for key, share in QUANTILES.items():
        place = share * (len(ordered) - 1)
        low = int(place)
        first, last = ordered[low], ordered[min(low + 1, len(ordered) - 1)]
        between = first if first == last or place == low else first + (place - low) * (last - first)
        assert found[key] == between


def test_quantiles_of_a_column_with_nan_are_nan():
    values = RNG.standard_normal(KEYS + 1)
    values[-1] = np.nan
    assert all(found != found for found in quantiles(values).values())


def test_a_histogram_counts_the_last_border():
    assert histogram(np.array([0, 1, 1, 2, 3, 4]), [0, 1, 3]) == [1, 4]
    assert all(type(count) is int for count in histogram(np.array([0.5]), [0, 1]))
