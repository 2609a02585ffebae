"""What is taken for what is as the table says, and is said where the table says."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from cli import assert_error, inside
from interpretations import TABLE

import xentcli

ROOT = Path(xentcli.__file__).parents[1]


def words_of(place, capfdbinary):
    """The text of a place where rules are written, without its line ends."""
    if place == "README.md":
        return " ".join((ROOT / place).read_text().split())
    return " ".join(inside(capfdbinary, place, "--help").text.split())


def softmax(row):
    """The probabilities of a row, with Python's floats."""
    terms = [math.exp(x - max(row)) for x in row]
    return [term / math.fsum(terms) for term in terms]


def mean_loss(logits, targets):
    """The mean of −log p over some rows."""
    losses = [-math.log(softmax(row)[t]) for row, t in zip(logits, targets, strict=True)]
    return math.fsum(losses) / len(losses)


def assert_taken(row, out):
    """The output is that of what was taken."""
    if row.targets is not None:
        assert float(out) == pytest.approx(mean_loss(row.logits, row.targets), rel=1e-12)
    elif row.logits is not None:
        lines = [line.split(",") for line in out.split()]
        found = [[float(cell) for cell in line] for line in lines]
        np.testing.assert_allclose(found, list(map(softmax, row.logits)), rtol=1e-12)


@pytest.mark.parametrize("row", TABLE.rows, ids=lambda row: row.what)
def test_what_is_taken_and_what_says_so(row, tmp_path, monkeypatch, capfdbinary):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    stdin = row.inputs.get("-", b"")
    for name, data in row.inputs.items():
        if name != "-":
            (tmp_path / name).write_bytes(data)
    words = row.command.split()
    text = [] if {"-f", "-o"} & {*words} or words[0] == "loss" else ["-f", "csv"]
    result = inside(capfdbinary, *words, *text, stdin=stdin)
    if row.sign == "error":
        assert_error(result, row.code, *row.words)
        return
    assert result.code == 0, result.err
    assert ("note: " in result.err) == (row.sign == "note"), result.err
    if row.logits is not None:
        assert_taken(row, result.text)
    where = result.err if row.sign == "note" else words_of(row.place, capfdbinary)
    for part in row.words:
        assert part in where, f"{part!r} is not in {where!r}"
    if row.sign == "note":
        strict = inside(capfdbinary, *words, *text, "--strict", stdin=stdin)
        assert_error(strict, 1, *row.words)


def test_the_table_names_each_input_once_and_knows_three_signs():
    names = [row.what for row in TABLE.rows]
    assert len(names) == len({*names}) > 80
    for row in TABLE.rows:
        assert row.sign in ("error", "note", "rule"), row
        assert row.words, row
        has_result = row.logits is not None or row.sign != "rule"
        assert has_result or re.search(" -o ", row.command), f"{row.what}: no result is compared"
