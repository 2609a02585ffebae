"""Results on their way out: the artefact, the summary line, the JSON object, the preview."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xentcli.cli.console import note, say, show, state, stdout_is_terminal
from xentcli.cli.inputs import text_style
from xentcli.cli.params import called
from xentcli.errors import OptionError, StrictError, plural

if TYPE_CHECKING:
    from xentcli.dtypes import Array
    from xentcli.formats.sink import Outputs, Sink
    from xentcli.loss import CrossEntropy
    from xentcli.notes import Note


def open_outputs(given: dict[str, Any]) -> Outputs:
    """The command's destinations, all new at the end or all old."""
    from xentcli.formats.sink import Outputs

    return Outputs(no_clobber=given["no_clobber"], fsync=given["fsync"])


class Artefact:
    """The array that a command is for. It is opened before the work, which may be long."""

    def __init__(self, outputs: Outputs, given: dict[str, Any], name: str) -> None:
        self.given, self.name = given, name
        self.path = given["output"]
        self.format = "npy"
        self.preview = self.path is None and stdout_is_terminal()
        self.sink = None if self.preview else outputs.open(self.path or "-")

    @property
    def destination(self) -> str:
        """Where it goes, for the summary."""
        return "" if self.sink is None else f" -> {self.sink.name}"

    def expect(self, shape: tuple[int, ...], like: str) -> None:
        """Fix the format, that of the input unless something says otherwise; does it fit?"""
        from xentcli.formats import suffix_format

        self.format = self.given["format"] or suffix_format(self.path or "") or like
        if self.sink and self.format in ("csv", "tsv") and len(shape) > 2:
            what = f"{self.format} has at most 2 axes, the result has {len(shape)}: {shape}"
            raise OptionError("--format", what, "-f npy keeps the shape")

    def write(self, array: Array) -> None:
        """Send the array off, or show its beginning to whoever sits at the terminal."""
        from xentcli import formats

        if self.sink:
            formats.save(self.sink, array, self.format, text_style(self.given), self.name)
            return
        from xentcli.render import preview

        show(lambda width: preview(array, self.name, self.given["decimals"], width))


def write_loss(sink: Sink, loss: Any, given: dict[str, Any], format: str | None) -> None:
    """The loss as a number or one per line, unless a suffix or an option says otherwise."""
    import numpy as np

    from xentcli import formats

    format = format or formats.suffix_format(sink.path) or "csv"
    losses = np.asarray(loss)
    losses = losses.reshape(-1) if format in ("csv", "tsv") else losses
    formats.save(sink, losses, format, text_style(given), "loss")


def tell(notes: tuple[Note, ...], given: dict[str, Any]) -> None:
    """Print the notes; under --strict the first that is serious is an error."""
    for item in notes:
        if given["strict"] and item.strict:
            raise StrictError(item.where, item.text, "without --strict this is only a note")
        note(f"{called(item.where, state())}: {item.text}")


def require_finite(array: Array, given: dict[str, Any]) -> None:
    """Under --strict the artefact itself has to be finite."""
    import numpy as np

    from xentcli.dtypes import widen

    if given["strict"]:
        values = widen(array, np.dtype(np.float64))
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            place = ", ".join(map(str, bad[0].tolist()))
            verb = "is" if len(bad) == 1 else "are"
            text = f"{plural(len(bad), 'result')} {verb} not finite; first: [{place}]"
            raise StrictError("logits", text, "without --strict it is written as it is")


def loss_words(result: CrossEntropy, reduction: str) -> str:
    """The loss and what it is taken over."""
    if reduction == "none":
        words = plural(result.rows, "loss")
        return words + (f", {result.ignored} ignored" if result.ignored else "")
    counted = plural(result.rows - result.ignored, "row")
    ignored = f", {result.ignored} ignored" if result.ignored else ""
    return f"loss {result.loss:.9g} ({reduction} over {counted}{ignored})"


def array_words(array: Array, name: str) -> str:
    """What kind of array it is."""
    from xentcli.dtypes import name_of

    return f"{name} {tuple(array.shape)} {name_of(array.dtype)}"


def summary(parts: list[str], backend: str, seconds: float) -> None:
    """The line on stderr that says what was done."""
    say("; ".join([*parts, f"{backend}, {seconds:.3f} s"]))


def loss_json(result: CrossEntropy, given: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The result without its arrays as an object."""
    import numpy as np

    from xentcli.formats.json import plain

    return {
        "loss": plain(result.loss, given["decimals"]),
        "nonfinite": int(np.count_nonzero(~np.isfinite(result.loss))),
        "reduction": given["reduction"],
        "rows": result.rows,
        "ignored": result.ignored,
        "backend": result.backend,
        "seconds": round(seconds, 6),
        "notes": [f"{called(item.where, state())}: {item.text}" for item in result.notes],
    }
