"""`xent report` as a user runs it: forms, files, options, pipes, errors."""

import csv
import html.parser
import io
import json
import xml.etree.ElementTree
from pathlib import Path

import kld
import naive_report as naive
import numpy as np
import pytest
from cli import assert_error, at_terminal, bash, inside, strict_json

from xentcli.backends.fields import Field
from xentcli.backends.reference_statistics import row_statistics
from xentcli.backends.scalars import Scalars
from xentcli.report import report

RNG = np.random.default_rng(5)
X = RNG.normal(size=(60, 4)).astype(np.float32) * 2
Y = np.where(RNG.random(60) < 0.7, X.argmax(axis=1), RNG.integers(0, 4, 60))
BASE = X + RNG.normal(size=X.shape).astype(np.float32) * 0.1


@pytest.fixture
def folder(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    np.save(tmp_path / "base.npy", BASE)
    np.save(tmp_path / "v.npy", np.arange(60) + 1.0)
    np.save(tmp_path / "g.npy", np.arange(60) // 7)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(folder, capfdbinary):
    return lambda *arguments, **how: inside(capfdbinary, "report", *arguments, **how)


def test_json_is_the_report(run):
    arguments = ("x.npy", "y.npy", "--base", "base.npy", "--sample-weight", "v.npy")
    arguments += ("--group", "g.npy", "--bytes", "500", "--words", "90", "--worst", "3")
    facts = strict_json(run(*arguments, "--confusion", "2", "--top", "1,2", "--json").out)
    expected = report(
        *(X, Y),
        base=BASE,
        sample_weight=np.arange(60) + 1.0,
        group=np.arange(60) // 7,
        bytes=500,
        words=90,
        worst=3,
        confusion=2,
        top=(1, 2),
    )
    assert facts == json.loads(json.dumps(expected.facts()))
    assert (facts["rows"], facts["ignored"], facts["nonfinite"], facts["groups"]) == (60, 0, 0, 9)
    names = ["nll", "perplexity", "bits_per_byte", "word_perplexity", "accuracy", "top_2"]
    names += ["brier", "entropy", "confidence", "ece", "mce", "ece_l2_debiased"]
    names += ["nll_difference", "perplexity_ratio", "kl", "delta_p", "delta_p_rms"]
    assert list(facts["statistics"]) == [*names, "same_prediction"]
    for item in facts["statistics"].values():
        assert item["definition"]
        assert item["n"]
    assert len(facts["worst"]) == 3
    assert {"row", "target", "prediction", "p_target", "p_prediction", "rank"} <= set(
        facts["worst"][0]
    )


def test_what_was_not_asked_for_is_absent(run):
    facts = strict_json(run("x.npy", "y.npy", "--json").out)
    for name in ("bits_per_byte", "word_perplexity", "kl", "nll_difference"):
        assert name not in facts["statistics"]
    assert not {"worst", "confusion", "groups"} & set(facts)


def test_numbers_that_are_not_finite_are_null_and_the_rows_are_counted(run, folder):
    x = X.copy()
    x[3, 1] = np.nan
    np.save("x.npy", x)
    result = run("x.npy", "y.npy", "--json")
    facts = strict_json(result.out)
    assert facts["nonfinite"] == 1
    assert facts["statistics"]["nll"]["value"] is None
    words = "note: x.npy: 1 of 60 rows is not finite; first: the loss of row 3 is nan (--skip-nonf"
    assert words in result.err
    assert_error(run("x.npy", "y.npy", "--strict"), 1, "1 of 60 rows is not finite")
    left = strict_json(run("x.npy", "y.npy", "--json", "--skip-nonfinite").out)
    assert left["statistics"]["nll"]["n"] == 59


@pytest.mark.parametrize("columns", [40, 80, 140])
def test_no_number_is_cut_at_any_width(folder, columns):
    arguments = ("x.npy", "y.npy", "--base", "base.npy", "--worst", "3", "--confusion", "3")
    result = at_terminal("report", *arguments, "--color", "never", columns=columns)
    lines = result.text.replace("\r", "").split("\n")
    assert max(map(len, lines)) <= columns
    shown = report(X, Y, base=BASE)
    numbers = set(result.text.split())
    for name in ("nll", "accuracy", "entropy", "kl", "ece"):
        assert f"{shown[name].value:.4f}" in numbers, name
    assert "…" not in result.text


def test_plain_in_a_pipe_and_other_forms_on_demand(run):
    plain = run("x.npy", "y.npy").text
    assert plain.startswith("Report on logits and targets\n60 rows\nperplexity ")
    assert "\n1. Statistics\n" in plain
    assert run("x.npy", "y.npy", "-f", "markdown").text.startswith("## Report on logits")
    assert run("x.npy", "y.npy", "-f", "html").text.startswith("<!doctype html>")
    assert json.loads(run("x.npy", "y.npy", "-f", "json").text)["rows"] == 60


class Page(html.parser.HTMLParser):
    """Collects the elements, and every attribute that could load something."""

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.charts = [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "br"):
            self.open.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "srcset", "data")]
        self.charts += tag == "svg"

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        pass


def test_html_has_every_chart_and_loads_nothing(run):
    assert run("x.npy", "y.npy", "--base", "base.npy", "--save", "r.html").code == 0
    text = Path("r.html").read_text()
    page = Page(text)
    assert page.open == []
    assert page.links == []
    assert page.charts == 5
    for title in (
        "Reliability",
        "Loss of the rows",
        "Rank of the target",
        "Loss along",
        "under base",
    ):
        assert title in text
    assert "prefers-color-scheme: dark" in text
    for item in report(X, Y).bins:
        rows = f"{item.n} rows" if item.n > 1 else "1 row"
        assert f"accuracy {item.accuracy:.4g}, {rows}" in text


def test_svg_has_the_charts_and_is_xml(run):
    assert run("x.npy", "y.npy", "--save", "r.svg").code == 0
    root = xml.etree.ElementTree.fromstring(Path("r.svg").read_text())
    assert len(root.findall("{http://www.w3.org/2000/svg}svg")) == 4


def test_saved_json_and_markdown(run):
    assert run("x.npy", "y.npy", "--save", "r.json").code == 0
    assert json.loads(Path("r.json").read_text())["rows"] == 60
    assert run("x.npy", "y.npy", "--save", "r.md").code == 0
    assert "| :-- |" in Path("r.md").read_text()
    assert_error(run("x.npy", "y.npy", "--save", "r.doc"), 2, "unknown suffix")


COLUMNS = ["row", "target", "prediction", "nll", "p_target", "confidence", "rank", "correct"]


@pytest.mark.parametrize("suffix", ["csv", "npy"])
def test_one_line_per_row(run, suffix):
    y = Y.copy()
    y[10] = -100
    np.save("y.npy", y)
    result = run("x.npy", "y.npy", "--group", "g.npy", "-q", "--per-row", f"rows.{suffix}")
    assert result.code == 0
    if suffix == "csv":
        lines = list(csv.DictReader(io.StringIO(Path("rows.csv").read_text())))
        table = {name: np.array([float(line[name]) for line in lines]) for name in lines[0]}
    else:
        array = np.load("rows.npy")
        table = {name: array[name] for name in array.dtype.names}
    assert list(table) == [*COLUMNS, "entropy", "group"]
    rows = np.delete(np.arange(60), 10)
    fields = row_statistics(X[rows].astype(float), y[rows], Scalars())
    assert table["row"].tolist() == rows.tolist()
    assert table["target"].tolist() == y[rows].tolist()
    assert table["nll"].tolist() == fields[Field.NLL].tolist()
    assert table["entropy"].tolist() == fields[Field.ENTROPY].tolist()
    assert table["rank"].tolist() == fields[Field.ABOVE].tolist()
    assert (table["correct"] == (table["prediction"] == table["target"])).all()
    assert table["group"].tolist() == (rows // 7).tolist()


def test_parquet_is_written_by_pyarrow_or_is_an_error_before_the_work(run):
    try:
        import pyarrow.parquet
    except ImportError:
        assert_error(run("x.npy", "y.npy", "--per-row", "r.parquet"), 3, "Parquet needs pyarrow")
        assert not Path("r.parquet").exists()
        return
    assert run("x.npy", "y.npy", "--per-row", "r.parquet").code == 0
    table = pyarrow.parquet.read_table("r.parquet")
    assert table.column_names == [*COLUMNS, "entropy"]
    assert table["target"].to_pylist() == Y.tolist()


def test_per_row_has_an_unknown_suffix(run):
    assert_error(run("x.npy", "y.npy", "--per-row", "rows.txt"), 2, ".csv, .npy and .parquet")


def test_the_text_itself_gives_its_size(run):
    Path("text.txt").write_bytes(b"one two\nthree  " + "für\n".encode() * 3)
    found = strict_json(
        run("x.npy", "y.npy", "--bytes", "text.txt", "--words", "text.txt", "--json").out
    )["statistics"]
    expected = report(X, Y, bytes=15 + 15, words=6)
    for name in ("bits_per_byte", "word_perplexity"):
        assert found[name]["value"] == expected[name].value
    assert_error(run("x.npy", "y.npy", "--bytes", "none.txt"), 2, "none.txt")


def test_words_across_the_borders_of_what_is_read_at_once(folder, monkeypatch):
    from xentcli.report import text_size

    Path("text.txt").write_bytes(b"ab cd  efg\n\nh i")
    for size in range(1, 16):
        monkeypatch.setattr(text_size, "CHUNK", size)
        assert text_size.word_count("text.txt") == 5
        assert text_size.byte_count("text.txt") == 15


def test_any_source_gives_the_same(folder):
    np.savetxt("x.csv", X, delimiter=",", fmt="%.17g")
    np.save("f.npy", np.asfortranarray(X))
    np.savez("both.npz", logits=X, labels=Y)
    plain = bash("xent report x.npy y.npy --json").out
    assert bash("cat x.npy | xent report - y.npy --json").out == plain
    assert bash("xent report f.npy y.npy --json").out == plain
    assert bash("xent report x.csv y.npy --json").out == plain
    assert bash("xent report both.npz --json").out == plain


def test_any_number_of_threads_gives_the_same(folder):
    np.save("big.npy", RNG.normal(size=(3000, 33)).astype(np.float32))
    np.save("t.npy", RNG.integers(0, 33, 3000))
    for command in ("report big.npy t.npy --base big.npy", "calibrate big.npy t.npy"):
        if command.startswith("calibrate"):  # better than chance
            np.save("t.npy", np.where(RNG.random(3000) < 0.5, np.load("big.npy").argmax(1), 0))
        one = bash(f"xent {command} --backend cpu -t 1 --json")
        assert one.code == 0, one.err
        assert bash(f"xent {command} --backend cpu -t 2 --json").out == one.out


def test_names_of_classes(run):
    text = run("x.npy", "y.npy", "--names", "ant,bee,cat,dog", "--worst", "2").text
    assert "bee" in text
    assert_error(run("x.npy", "y.npy", "--names", "ant,bee"), 1 + 1, "2 names given", "4 classes")


def test_options_that_are_wrong(run):
    assert_error(run("x.npy"), 2, "TARGETS is missing, and x.npy does not hold them")
    assert_error(run("x.npy", "y.npy", "--top", "0"), 2, "numbers from 1 on")
    assert_error(run("x.npy", "y.npy", "--base", "y.npy"), 1, "y.npy: shape (60,) does not fit")
    assert_error(run("x.npy", "y.npy", "--group", "x.npy"), 1, "240 labels given, 60 needed")
    assert_error(run("-", "-"), 2, "read only once")


# llama.cpp's .kld

VOCABULARY = 101
MODEL = (RNG.normal(size=(3, 7, VOCABULARY)) * 2).astype(np.float32)
WIDE = MODEL * 4  # with classes more than 16 nats below the largest
TOKENS = RNG.integers(0, VOCABULARY, (3, 16))


@pytest.fixture
def base_kld(folder):
    Path("base.kld").write_bytes(kld.kld(MODEL, TOKENS))
    noisy = MODEL + RNG.normal(size=MODEL.shape).astype(np.float32) * 0.05
    np.save("model.npy", noisy.reshape(-1, VOCABULARY))
    np.save("exact.npy", MODEL.reshape(-1, VOCABULARY))
    np.save("tokens.npy", kld.predicted(TOKENS))


def test_a_kld_file_is_a_base_with_its_own_targets(base_kld, run):
    stored = run("model.npy", "--base", "base.kld", "--json")
    exact = strict_json(run("model.npy", "tokens.npy", "--base", "exact.npy", "--json").out)
    found = strict_json(stored.out)["statistics"]
    assert "cut off there" in stored.err
    assert found["nll"] == exact["statistics"]["nll"]
    for name in ("kl", "nll_difference", "delta_p"):
        # Codes of 16 bits over 16 nats: log-probabilities are off by up to 1.2·10⁻⁴.
        value = exact["statistics"][name]["value"]
        assert found[name]["value"] == pytest.approx(value, abs=1.3e-4)
        assert found[name]["value"] != value


def test_a_kld_file_is_logits_with_its_own_targets(base_kld, run):
    Path("wide.kld").write_bytes(kld.kld(WIDE, TOKENS))
    found = strict_json(run("wide.kld", "--json").out)["statistics"]["nll"]
    rows = WIDE.reshape(-1, VOCABULARY)
    losses = [
        float(naive.row(np.maximum(row, row.max() - 16).tolist(), int(y))["nll"])
        for row, y in zip(rows, kld.predicted(TOKENS), strict=True)
    ]
    assert found["n"] == 21
    assert found["value"] == pytest.approx(np.mean(losses), abs=2.5e-4)


def test_a_kld_file_comes_through_a_pipe(base_kld):
    assert (
        bash("cat base.kld | xent report - --json").out == bash("xent report base.kld --json").out
    )


def test_a_kld_file_is_logits_of_other_commands(base_kld, capfdbinary):
    done = inside(capfdbinary, "inspect", "base.kld")
    assert done.text == "base.kld: (21, 101) float64, kld\n"
    a = inside(capfdbinary, "loss", "base.kld", "tokens.npy", "-q").text
    b = inside(capfdbinary, "loss", "exact.npy", "tokens.npy", "-q").text
    assert float(a) == pytest.approx(float(b), abs=2.5e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data[:-1], "bytes, but its header makes"),
        (lambda data: data + b"\0", "bytes, but its header makes"),
        (lambda data: data[:10], "ends within its header"),
        (lambda data: data[:30], "ends within its tokens"),
        (lambda data: data[:8] + b"\0" * 12 + data[20:], "damaged header"),
        (lambda data: b"_logitz_" + data[8:], "not a .kld file"),
    ],
)
def test_a_damaged_kld_file_is_an_error(base_kld, run, change, words):
    Path("base.kld").write_bytes(change(Path("base.kld").read_bytes()))
    assert_error(run("base.kld"), 1, "base.kld", words)


def test_a_damaged_kld_stream_is_an_error(base_kld):
    result = bash("head -c -9 base.kld | xent report -")
    assert_error(result, 1, "<stdin>: ends within a row")
    assert_error(bash("(cat base.kld; echo x) | xent report -"), 1, "data follow the last row")
