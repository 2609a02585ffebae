"""The output formats: golden files, widths, nothing truncated, nothing external."""

import html.parser
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from golden import make

from xentcli.display import FORMATS, as_text
from xentcli.display.document import Column, Document, Fact, Formula, Step, format_number
from xentcli.display.grid import display_width
from xentcli.examples import MODULES, find
from xentcli.examples.documents import check_document, example_document
from xentcli.examples.example import ComputedExample

GOLDEN = Path(__file__).parent / "golden"
RENDERS = dict(make.renders())
DOCUMENTS = {
    name: getattr(make, name)()
    for name in ("cat", "everything", "extreme", "probabilities", "ignored")
} | {name: example_document(ComputedExample(find(name)), 4) for name in MODULES}


@pytest.mark.parametrize("name", RENDERS)
def test_documents_are_the_golden_files(name):
    assert RENDERS[name] == (GOLDEN / name).read_text(encoding="utf-8"), "tests/golden/make.py"


def test_every_golden_file_is_made():
    files = {path.name for path in GOLDEN.iterdir() if path.is_file() and path.suffix != ".py"}
    assert files == set(RENDERS)


@pytest.mark.parametrize("width", [40, 41, 80, 119, 140])
@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize("form", ["rich", "plain"])
def test_no_line_is_wider_than_asked_for(form, name, width):
    document = DOCUMENTS[name]
    text = as_text(document, form, width)
    for line in text.splitlines():
        command = form == "plain" and line.strip() in document.commands  # to be pasted
        assert command or display_width(line) <= width, line


@pytest.mark.parametrize("decimals", [4, 17])
@pytest.mark.parametrize("width", [40, 80, 140])
@pytest.mark.parametrize("form", ["rich", "plain"])
def test_no_number_is_truncated(form, width, decimals):
    extras = make.Extras([1.0, 2.0, 3.0], [1.0, 2.0, 1.0], -2e9)
    document = make.document(
        [[1, 2, 3], [-123456.75, 3e15, 0], [0, 0, 0]],
        [0, 1, -100],
        make.DisplayOptions(
            ("a name that is much longer than forty columns of a terminal", "b", "c"),
            decimals=decimals,
        ),
        row=1,
        extras=extras,
        label_smoothing=0.1,
        z_loss=1e-9,
    )
    text = as_text(document, form, width)
    assert "…" not in text
    numbers = [
        format_number(value, decimals, signed=column.bar == "signed")
        for step in document.steps
        for column in step.columns
        for value in column.values
    ]
    assert len(numbers) > 30
    for number in numbers:
        assert re.search(rf"(?<!\S){re.escape(number)}(?!\S)", text), number


@pytest.mark.parametrize("width", range(40, 70))
@pytest.mark.parametrize("form", ["rich", "plain"])
def test_no_number_of_a_fact_is_broken(form, width):
    formula = Formula("a formula of some length", "f")
    facts = tuple(Fact(formula, -1.5e-300 / 10**n, "and words after it") for n in range(8))
    text = as_text(Document("T", (), (Step("S", facts=facts),)), form, width)
    for fact in facts:
        assert re.search(rf"(?<!\S){re.escape(format_number(fact.value, 4))}(?!\S)", text)


def test_the_check_of_truncated_numbers_can_fail():
    text = as_text(make.cat(), "plain", 40).replace("-0.9100", "-0.91…")
    assert not re.search(r"(?<!\S)-0\.9100(?!\S)", text)


@pytest.mark.parametrize("width", [40, 80, 140])
def test_probabilities_and_gradient_have_a_bar_for_each_class(width):
    text = as_text(replace(make.cat(), result=None), "rich", width)
    assert len(re.findall(r"█+[▏▎▍▌▋▊▉]?", text)) == 6
    assert re.search(r"█+│ ", text), "the target's bar goes to the left"
    assert len(re.findall(r"│█+▌?", text)) == 2, "the others go to the right"
    assert text.count("▲ rises") == 1
    assert text.count("▼ falls") == 2


def bars(text, pattern):
    return [len(bar) for bar in re.findall(pattern, text)]


def test_bars_are_proportional_to_the_numbers():
    text = as_text(make.cat(), "plain", 80)
    p, gradient = (text.split(f"\n{n}. ")[1].split(f"\n{n + 1}. ")[0] for n in (3, 6))
    assert bars(p, "#+") == [round(30 * share) for share in (0.0900, 0.2447, 0.6652)]
    left = bars(gradient, r"<#+")
    right = bars(gradient, r"#+>")
    assert left == [14]
    assert right == [round(14 * share / 0.91) for share in (0.2447, 0.6652)]


def test_bars_of_nan_and_none_are_empty():
    values = (float("nan"), float("inf"), None, -0.0)
    column = Column(Formula("g", "g"), values, "signed", 1.0)
    step = Step("Step", labels=("a", "b", "c", "d"), columns=(column,))
    for form in ("rich", "plain", "html"):
        assert as_text(Document("T", (), (step,)), form, 60)


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize("form", [*FORMATS, "svg", "html"])
def test_all_formats_are_printable_and_stable(form, name):
    text = as_text(DOCUMENTS[name], form)
    assert text.replace("\n", "").isprintable()
    assert text.endswith("\n")
    assert text == as_text(DOCUMENTS[name], form)


class Links(html.parser.HTMLParser):
    """Collects every element, and every attribute that could load something."""

    def __init__(self):
        super().__init__()
        self.tags, self.open, self.links = set(), [], []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in ("meta", "br", "img", "link"):
            self.open.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "srcset", "data")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("name", DOCUMENTS)
def test_html_is_well_formed_and_self_contained(name):
    text = as_text(DOCUMENTS[name], "html")
    page = Links()
    page.feed(text)
    assert page.open == []
    assert not page.tags & {"script", "link", "img", "iframe", "object"}
    assert page.links == []
    assert not re.search(r"url\(|@import|https?:", text)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_svg_is_xml_and_self_contained(name):
    text = as_text(DOCUMENTS[name], "svg")
    root = xml.etree.ElementTree.fromstring(text)
    tags = {element.tag.split("}")[1] for element in root.iter()}
    assert tags == {"svg", "title", "style", "rect", "text"}
    assert not re.search(r"url\(|@import|font-face|https?:(?!//www\.w3\.org/2000/svg)", text)


def test_markup_in_names_stays_text():
    names = ("<script>alert(1)</script>", "[bold]&|$_*`\\")
    document = make.document([[1, 2]], [0], make.DisplayOptions(names))
    page = Links()
    page.feed(as_text(document, "html"))
    assert "script" not in page.tags
    xml.etree.ElementTree.fromstring(as_text(document, "svg"))
    assert "\\<script\\>" in as_text(document, "markdown")
    assert "[bold]" in as_text(document, "rich")
    assert r"\textless{}script\textgreater{}" in as_text(document, "latex")


def strict(text):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_json_is_strict_and_one_line(name):
    text = as_text(DOCUMENTS[name], "json")
    assert text.count("\n") == 1
    assert strict(text)["nonfinite"] >= 0


def test_json_has_every_number_of_the_derivation_at_full_precision():
    data = strict(as_text(make.cat(), "json"))
    x = np.array([1.0, 2.0, 3.0])
    p = np.exp(x) / np.exp(x).sum()
    for name, expected in {
        "logits": x, "shifted": x - 3, "exponentials": np.exp(x - 3), "p": p,
        "log_p": np.log(p), "gradient": p - [1, 0, 0], "q": [1, 0, 0],
    }.items():  # fmt: skip
        np.testing.assert_allclose(data[name], expected, rtol=1e-14)
    assert data["names"] == ["cat", "dog", "bird"]
    assert data["nonfinite"] == 0


def test_json_counts_nonfinite_numbers():
    data = strict(as_text(make.document([[np.nan, 1.0]], [0]), "json"))
    flat = json.dumps(data)
    assert data["p"] == [None, None]
    options = sum(value is None for value in data["options"].values())
    assert flat.count("null") == data["nonfinite"] + options + (data["names"] is None)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_markdown_tables_have_the_same_number_of_cells_in_each_row(name):
    rows = 0
    for table in re.findall(r"(?:^\|.*\n)+", as_text(DOCUMENTS[name], "markdown"), re.MULTILINE):
        lines = [len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()]
        assert len(set(lines)) == 1
        rows += len(lines)
    assert rows > 5


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")
def test_latex_compiles(tmp_path):
    names = ("a_b%&#{}~^\\", '"ü|<>$', "猫")
    special = make.document(
        [[1e3, 2, 1e-9]], [0], make.DisplayOptions(names), z_loss=0.1, softcap=30.0
    )
    some = ("everything", "probabilities", "class-weights", "upstream", "jacobian", "training")
    documents = {name: DOCUMENTS[name] for name in some}
    documents |= {"special": special, "check": check_document([find("tie")])[0]}
    for name, document in documents.items():
        (tmp_path / f"{name}.tex").write_text(as_text(document, "latex"), encoding="utf-8")
        done = subprocess.run(
            ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", f"{name}.tex"],
            cwd=tmp_path,
            capture_output=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout[-2000:]
        assert b"Overfull" not in done.stdout, name


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (0.09, 4, "0.0900"), (0.00001234, 4, "1.234e-05"), (0.0004, 4, "4.000e-04"),
        (0.004, 2, "4.0e-03"), (1e7, 4, "1.000e+07"), (9999999.0, 1, "9999999.0"),
        (-0.0, 4, "0.0000"), (float("-inf"), 4, "-inf"), (2.0, 0, "2"), (0.1, 0, "1.0e-01"),
        (7, 4, "7"), (True, 4, "yes"),
    ],
)  # fmt: skip
def test_numbers_never_lose_all_their_digits(value, decimals, text):
    assert format_number(value, decimals) == text
