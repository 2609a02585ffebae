"""From the sums over all rows to the report."""

from __future__ import annotations

import math

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.engine.notes import Note
from xentcli.report.bins import Bin, BinTotals, calibration, mass_edges
from xentcli.report.classes import Confusion
from xentcli.report.kept import histogram, quantiles
from xentcli.report.means import effective_rows
from xentcli.report.options import ReportOptions
from xentcli.report.quantities import definition, is_share
from xentcli.report.result import Histogram, Ranks, Report
from xentcli.report.statistic import (
    Statistic,
    exponential,
    mean_statistic,
    scaled,
    share_statistic,
    symmetric,
)
from xentcli.report.totals import Totals

NLL_BINS = 40
RANK_EDGES = (0, 1, 2, 5, 10, 100, 1000, 10_000, 100_000, 1_000_000_000)
ORDER = (  # of the statistics; top-k accuracies follow the accuracy
    *("nll", "perplexity", "bits_per_byte", "word_perplexity", "accuracy"),
    *("brier", "entropy", "confidence", "ece", "mce", "ece_l2_debiased"),
    *("nll_difference", "perplexity_ratio", "kl", "delta_p", "delta_p_rms", "same_prediction"),
)


def finish(totals: Totals, ignored: int, backend: str, notes: tuple[Note, ...] = ()) -> Report:
    """The report over all rows that the totals have taken."""
    totals.flush()
    info, columns = totals.info, totals.kept.columns()
    bins = _bins(totals, columns)
    return Report(
        rows=info.rows,
        ignored=ignored,
        nonfinite=totals.nonfinite.count,
        groups=_present_groups(totals),
        statistics=_with_quantiles(_statistics(totals, bins), columns),
        bins=bins,
        binning=totals.options.binning,
        classes=totals.classes.results() if totals.classes else (),
        confusion=_confusion(totals),
        worst=totals.worst.results(),
        ranks=_ranks(columns.get("rank"), totals.tied),
        nll_histogram=_loss_histogram(columns["nll"]),
        along=totals.along.segments(),
        sample=totals.sample.points() if totals.sample else (),
        backend=backend,
        notes=(*notes, *_notes(totals)),
    )


def _statistics(totals: Totals, bins: tuple[Bin, ...]) -> dict[str, Statistic]:
    """All of them, in the order in which they are printed."""
    found = _means(totals)
    found |= _from_loss(totals, totals.options)
    if totals.info.base:
        found |= _from_base(totals)
    return _in_order(found | calibration(bins, totals.weights.count))


def _with_quantiles(found: dict[str, Statistic], columns: dict[str, Array]) -> dict[str, Statistic]:
    """The statistics with the quantiles of the columns that were kept for them."""
    kept = {name for name in found if name in columns and len(columns[name])}
    return {
        name: item.with_quantiles(quantiles(columns[name])) if name in kept else item
        for name, item in found.items()
    }


def _means(totals: Totals) -> dict[str, Statistic]:
    """The means of all quantities, with intervals."""
    weights, found = totals.weights, {}
    n = weights.count
    for name, sums in totals.means.items():
        mean = sums.over(weights)
        if name == "delta_p²":
            continue
        words = definition(name, probabilities=totals.info.probabilities)
        if is_share(name):
            found[name] = share_statistic(mean, effective_rows(weights, mean), n, words)
        else:
            found[name] = mean_statistic(mean, n, words)
    return found


def _present_groups(totals: Totals) -> int:
    if not totals.info.groups:
        return 0
    return int(np.count_nonzero(totals.weights.by_group()[1]))


def _from_loss(totals: Totals, options: ReportOptions) -> dict[str, Statistic]:
    """Perplexity, and the loss by the size of the text."""
    n, mean = totals.weights.count, totals.means["nll"].over(totals.weights)
    found = {"perplexity": exponential(mean, 1.0, n, definition("perplexity"))}
    total = float(totals.weights.total)
    if options.bytes:
        factor = total / (math.log(2) * options.bytes)
        found["bits_per_byte"] = scaled(mean, factor, n, definition("bits_per_byte"))
    if options.words:
        words = definition("word_perplexity")
        found["word_perplexity"] = exponential(mean, total / options.words, n, words)
    return found


def _from_base(totals: Totals) -> dict[str, Statistic]:
    """What follows from the differences to the base."""
    n = totals.weights.count
    mean = totals.means["nll_difference"].over(totals.weights)
    found = {"perplexity_ratio": exponential(mean, 1.0, n, definition("perplexity_ratio"))}
    if "delta_p²" in totals.means:
        square = totals.means["delta_p²"].over(totals.weights)
        root = math.sqrt(max(0.0, square.value)) if square.value == square.value else math.nan
        se = square.se / (2 * root) if square.se is not None and root else None
        found["delta_p_rms"] = symmetric(root, se, n, definition("delta_p_rms"))
    return found


def _bins(totals: Totals, columns: dict[str, Array]) -> tuple[Bin, ...]:
    """The calibration bins; those of equal mass are made now."""
    if totals.bins:
        return totals.bins.bins()
    if totals.info.probabilities or not totals.kept.rows:
        return ()
    confidence = columns["confidence"]
    sums = BinTotals(mass_edges(confidence.copy(), totals.options.bins))
    correct = np.where(columns["rank"] == 0, 1.0 / (columns["ties"] + 1.0), 0.0)
    sums.add(confidence, correct, columns.get("weight"))
    return sums.bins()


def _ranks(ranks: Array | None, tied: int) -> Ranks | None:
    if ranks is None or not len(ranks) or (ranks < 0).any():
        return None
    largest = int(ranks.max())
    edges = [
        edge
        for edge, before in zip(RANK_EDGES, (-1, *RANK_EDGES), strict=False)
        if before < largest
    ]
    edges = [*edges, RANK_EDGES[len(edges)]] if edges[-1] <= largest else edges
    counts = histogram(ranks, [edge - 0.5 for edge in edges])
    return Ranks(quantiles(ranks), tied, Histogram(tuple(edges), tuple(counts)))


def _loss_histogram(losses: Array) -> Histogram | None:
    known = np.isfinite(losses)
    finite = losses if known.all() else losses[known]
    if not len(finite):
        return None
    low, high = min(0.0, float(finite.min())), float(finite.max())
    ends = low, high if high > low else low + 1.0
    counts, edges = np.histogram(finite, NLL_BINS, ends)
    return Histogram(tuple(map(float, edges)), tuple(map(int, counts)))


def _confusion(totals: Totals) -> tuple[Confusion, ...]:
    if not (totals.pairs and totals.classes):
        return ()
    return totals.pairs.most(totals.options.confusion, totals.classes.counts)


def _in_order(found: dict[str, Statistic]) -> dict[str, Statistic]:
    def place(name: str) -> tuple[int, int]:
        if name.startswith("top_"):
            return ORDER.index("accuracy"), int(name.removeprefix("top_"))
        return ORDER.index(name), 0

    return {name: found[name] for name in sorted(found, key=place)}


def _notes(totals: Totals) -> list[Note]:
    """What is not in the report, and why."""
    notes = totals.nonfinite.notes(skipped=totals.options.skip_nonfinite)
    if totals.info.probabilities:
        text = (
            "the targets are probabilities: accuracy, top-k, ranks, calibration and results per "
            "class need class indices, and are left out"
        )
        notes.append(Note("targets", text, strict=False))
    if not totals.weights.count:
        notes.append(Note("targets", "no row is left, so every mean is nan", strict=True))
    elif not totals.weights.total:
        text = "the rows' weights sum to 0, so every mean is nan"
        notes.append(Note("sample_weight", text, strict=True))
    if totals.kept.on_disk:
        text = "numbers of all rows are kept in temporary files: there are too many for memory"
        notes.append(Note("logits", text, strict=False))
    return notes
