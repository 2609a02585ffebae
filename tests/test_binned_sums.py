"""Sums of rows in parts: the same bits for any cut and any tree, and close to the exact sums."""

from fractions import Fraction

import numpy as np
import pytest
from helpers import assert_same_bits

from xentcli.arrays.binned_sums import BinnedSums


def sums_of(*words):
    sums = BinnedSums(len(words[0]))
    sums.add(*words)
    return sums


def random_tree(rng, parts):
    """The parts merged in a random order, two at a time."""
    parts = [parts[i] for i in rng.permutation(len(parts))]
    while len(parts) > 1:
        i = int(rng.integers(len(parts) - 1))
        parts[i].merge(parts.pop(i + 1))
    return parts[0]


def numbers(rng, columns, spread):
    """Rows of both signs, of one sign, and of few bits, where sums are exactly halves of units."""
    x = rng.normal(size=(3, columns)) * 10.0 ** rng.uniform(-spread, spread, (3, columns))
    x[1] = np.abs(x[1])
    x[2] = np.sign(x[2]) * 2.0 ** rng.integers(-spread, spread + 1, columns)
    return x


@pytest.mark.parametrize("spread", [1, 10, 40, 150, 290])
def test_any_cut_and_any_tree_give_the_same_bits(spread, rng):
    for _ in range(30):
        x = numbers(rng, int(rng.integers(1, 120)), spread)
        whole = sums_of(x).high_low()
        for _ in range(4):
            ends = np.sort(rng.integers(0, x.shape[1] + 1, int(rng.integers(0, 7))))
            parts = [sums_of(part) for part in np.split(x, ends, axis=1)]
            for a, b in zip(random_tree(rng, parts).high_low(), whole, strict=True):
                assert_same_bits(a, b)


@pytest.mark.parametrize("spread", [1, 10, 40, 150, 290])
def test_sums_are_off_by_a_rounding_of_the_lowest_bin_for_each_number(spread, rng):
    for _ in range(20):
        x = numbers(rng, int(rng.integers(1, 120)), spread)
        for row, high, low in zip(x.tolist(), *sums_of(x).high_low(), strict=True):
            exact = sum(map(Fraction, row))
            most = max(abs(Fraction(v)) for v in row)
            error = abs(Fraction(high) + Fraction(low) - exact)
            assert error <= most * Fraction(1, 2**90) * len(row) + Fraction(2) ** -1074
            assert high == float(Fraction(high) + Fraction(low))


def test_numbers_in_two_words_keep_both(rng):
    high, low = rng.normal(size=(2, 50)), rng.normal(size=(2, 50)) * 2.0**-54
    for row in range(2):
        exact = sum(map(Fraction, [*high[row].tolist(), *low[row].tolist()]))
        found = [Fraction(word[row]) for word in sums_of(high, low).high_low()]
        assert abs(sum(found) - exact) < Fraction(2) ** -84


@pytest.mark.parametrize(
    ("row", "total"),
    [
        ([1.0, np.inf], np.inf),
        ([-np.inf, 1.0], -np.inf),
        ([np.inf, 1.0, -np.inf], np.nan),
        ([np.nan, 1.0], np.nan),
        ([0.0, -0.0], 0.0),
        ([], 0.0),
        ([1e308, 1e308, -1e308], 1e308),
        ([1e308, 1e308], np.inf),
        ([5e-324, 5e-324], 1e-323),
    ],
)
def test_special_numbers(row, total):
    with np.errstate(all="ignore"):
        sums = sums_of(np.array([row], float))
        parts = [sums_of(np.array([[value]])) for value in row] or [sums]
        merged = random_tree(np.random.default_rng(0), parts)
        for found in (sums.high_low(), merged.high_low()):
            np.testing.assert_array_equal(found[0], [total])
            assert found[1] == 0


def test_rows_can_be_put_into_others(rng):
    x = rng.normal(size=(5, 9))
    sums = BinnedSums(5)
    sums.put(slice(1, 4), sums_of(x[1:4]))
    assert_same_bits(sums.high_low()[0][1:4], sums_of(x).high_low()[0][1:4])
    assert sums.high_low()[0][[0, 4]].tolist() == [0.0, 0.0]
