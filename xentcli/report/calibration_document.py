"""A calibration as a document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from xentcli.display.document import Document, Step
from xentcli.errors import plural
from xentcli.report import charts
from xentcli.report.bins import Bin
from xentcli.report.calibration_result import Calibration
from xentcli.report.tables import bins_step, statistics_step

TITLES = {
    "temperature": "Calibration by one temperature",
    "bias": "Calibration by a temperature and biases",
}
SPOKEN = {
    "temperature": "temperature",
    "nll_before": "nll before",
    "nll_after": "nll after",
    "ece_before": "ECE before",
    "ece_after": "ECE after",
    "accuracy_before": "accuracy before",
    "accuracy_after": "accuracy after",
}


def to_document(result: Calibration, decimals: int = 4) -> Document:
    """The document of a calibration."""
    return Document(
        title=TITLES[result.method],
        intro=tuple(_intro(result)),
        steps=tuple(_steps(result)),
        decimals=decimals,
        data=result.facts(),
    )


def _intro(result: Calibration) -> Iterator[str]:
    counted = [plural(result.rows, "row")]
    counted += [f"{result.ignored} ignored"] if result.ignored else []
    counted += [f"{result.nonfinite} not finite"] if result.nonfinite else []
    counted += [f"{plural(result.groups, 'group')}: clustered errors"] if result.groups else []
    yield ", ".join(counted)
    mine = result.statistics["temperature"]
    words = f"temperature {mine.value:.10g}"
    if mine.interval:
        words += f", 95 % interval {mine.interval[0]:.4g} to {mine.interval[1]:.4g}"
    yield words


def _steps(result: Calibration) -> Iterator[Step]:
    remarks: tuple[str, ...] = ()
    if result.fold_temperatures:
        found = ", ".join(f"{value:.4g}" for value in result.fold_temperatures)
        remarks = (f"After: rows that the fit has not seen. Temperatures of the folds: {found}.",)
    if result.biases:
        remarks += ("The biases, which are added to logits / T, sum to 0; they are in JSON.",)
    labels = tuple(SPOKEN[name] for name in result.statistics)
    yield statistics_step("Fit", labels, tuple(result.statistics.values()), remarks)
    for when, bins in (("before", result.bins_before), ("after", result.bins_after)):
        if bins:
            yield _bins(when, bins)


def _bins(when: str, bins: Sequence[Bin]) -> Step:
    return bins_step(f"Calibration {when}", bins, "equal width", charts.reliability(bins, when))
