"""Which columns of a table are read, as logits and as targets, and what they are called."""

import gzip
import io
import tracemalloc
from pathlib import Path

import naive
import numpy as np
import pytest
from cli import assert_error, at_terminal, inside, strict_json
from helpers import assert_same_bits

from xentcli.errors import OptionError, XentError, worded
from xentcli.files.columns import ColumnOptions, chosen
from xentcli.files.options import ReadOptions
from xentcli.files.source import Source, open_source
from xentcli.files.text import lines
from xentcli.files.text.style import TextStyle
from xentcli.files.text.table import open_text

LOGITS = [[1.0, 2.0, 3.0], [3.0, 1.0, 0.5], [0.0, 5.0, 1.0]]
LABELS = [0, 2, 1]
LOSS = naive.cross_entropy(LOGITS, LABELS)[0]

# One table of all kinds of columns: text with delimiters and quotes, numbers of rows, labels.
TABLE = '''id,text,cat,dog,bird,label,weight
17,"a, b",1,2,3,cat,0.5
9,"say ""no""",3,1,0.5,bird,1
12,plain,0,5,1,dog,2
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with the table, its logits alone, and targets in words and numbers."""
    monkeypatch.chdir(tmp_path)
    Path("table.csv").write_text(TABLE)
    rows = "".join(",".join(map(repr, row)) + "\n" for row in LOGITS)
    Path("plain.csv").write_text(rows)
    Path("named.csv").write_text(f"cat,dog,bird\n{rows}")
    Path("words.csv").write_text("cat\nbird\ndog\n")
    Path("indices.csv").write_text("0\n2\n1\n")
    Path("names.txt").write_text("cat\ndog\nbird\n")
    return tmp_path


def loss(capfdbinary, command, stdin=b""):
    """The number that `xent loss` prints."""
    result = inside(capfdbinary, "loss", *command.split(), stdin=stdin)
    assert result.code == 0, result.err
    return float(result.out)


@pytest.mark.parametrize(
    "command",
    [
        "table.csv --columns cat,dog,bird --target-column label",
        "table.csv --columns 3-5 --target-column label",
        "table.csv --columns 3,4,5 --target-column 6 --names names.txt",
        "table.csv --columns [cdb]*[tgd] --target-column label",
        "table.csv --drop id,text,weight --target-column label",
        "table.csv --drop 1-2,7- --target-column label",
        "table.csv indices.csv --columns cat,dog,bird",
        "table.csv words.csv --columns cat,dog,bird",
        "plain.csv table.csv --target-column label --names cat,dog,bird",
        "named.csv table.csv --target-column label",
        "named.csv words.csv",
        "plain.csv words.csv --names names.txt",
        "plain.csv words.csv --names cat,dog,bird",
    ],
)
def test_logits_and_targets_are_found_in_tables(command, folder, capfdbinary):
    assert loss(capfdbinary, command) == pytest.approx(LOSS, rel=1e-15)


@pytest.mark.parametrize("command", ["grad", "loss", "explain", "report", "calibrate"])
def test_every_command_takes_targets_from_a_column(command, folder, capfdbinary):
    options = ["--columns", "3-5", "--target-column", "label", "-q"]
    two = inside(capfdbinary, command, "named.csv", "indices.csv", "-q")
    one = inside(capfdbinary, command, "table.csv", *options)
    piped = inside(capfdbinary, command, "-", *options, stdin=TABLE.encode())
    assert two.code == one.code == piped.code, (one.err, piped.err)
    assert one.out == two.out == piped.out
    assert one.out or command == "calibrate"


def test_check_names_the_class_of_an_entry(folder, capfdbinary):
    inside(capfdbinary, "grad", "named.csv", "indices.csv", "-o", "g.npy")
    grad = np.load("g.npy")
    grad[1, 2] *= 2
    np.save("g.npy", grad)
    result = inside(capfdbinary, "check", "named.csv", "words.csv", "g.npy")
    assert result.code == 1
    assert "worst: row 1, class 2 (bird): " in result.text


def test_columns_are_read_in_the_order_that_is_asked_for(folder, capfdbinary):
    out = inside(capfdbinary, "grad", "table.csv", "indices.csv", "--columns", "bird,3,dog").text
    Path("turned.csv").write_text("".join(f"{row[2]},{row[0]},{row[1]}\n" for row in LOGITS))
    assert out == inside(capfdbinary, "grad", "turned.csv", "indices.csv").text


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ("--columns cat,dgo,bird", 2, ["no column 'dgo'", "did you mean 'dog'?"]),
        ("--columns 3-9", 2, ["no column 3-9", "numbered from 1 to 7"]),
        ("--columns 0", 2, ["no column 0", "numbered from 1 to 7"]),
        ("--columns cat,c*", 2, ["column 3 ('cat') is chosen twice"]),
        ("--drop *", 2, ["all of 7 columns are left out"]),
        ("--columns cat,,dog", 2, ["--columns", "is not a list such as a,b,c"]),
        ("--columns cat,dog,text", 1, ["line 2, column 2", "not a number", "--drop text"]),
        ("", 1, ["line 2, column 2", "--drop text leaves column 2 out"]),
        ("--columns 3-5 --names a,b", 2, ["--names: 2 names given, but there are 3 classes"]),
        ("--columns 3-5 --names nowhere", 2, ["neither a file nor a list such as a,b,c"]),
        ("--columns 3-5 --names a,,b", 2, ["--names: name 2 is empty"]),
        ("--raw f32 --shape 1,3 --drop 1", 2, ["--columns and --drop are for tables"]),
        ("-d , --decimal ,", 2, ["--delimiter and --decimal are both ','"]),
    ],
)  # fmt: skip
def test_a_wrong_choice_says_what_there_is(options, code, words, folder, capfdbinary):
    result = inside(capfdbinary, "softmax", "table.csv", *options.split())
    assert_error(result, code, *words)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("named.csv typo.csv", ["typo.csv: line 3, column 1: 'brid' is not a class", "'bird'"]),
        ("plain.csv words.csv", ["line 2, column 1: 'bird'", "--names FILE or a,b,c"]),
        ("table.csv --columns 3-5 --target-column text", ["'a, b' is not a class", "cat, dog"]),
        ("table.csv", ["TARGETS is missing", "--target-column NAME"]),
        ("twice.csv words.csv", ["several classes are called 'cat'"]),
        ("a.npy --target-column label", ["TARGETS is missing"]),
        ("a.npy indices.csv --columns 1", ["this is npy, and --columns is for tables: parquet"]),
    ],
)  # fmt: skip
def test_words_that_name_no_class_are_one_error(command, words, folder, capfdbinary):
    Path("typo.csv").write_text("label\ncat\nbrid\ndog\n")
    Path("twice.csv").write_text(Path("named.csv").read_text().replace("dog", "cat"))
    np.save("a.npy", LOGITS)
    result = inside(capfdbinary, "loss", *command.split())
    assert_error(result, result.code, *words)
    assert result.code in (1, 2)


@pytest.mark.parametrize(
    "names",
    [
        b"cat\ndog\nbird\n", b"cat\r\ndog\r\nbird\r\n\r\n", b"\xef\xbb\xbfcat\ndog\nbird",
        b'"cat"\n "dog"\nbird', b"cat,dog,bird\n", b'cat, "dog", bird',
        gzip.compress(b"cat\ndog\nbird", mtime=0),
    ],
)  # fmt: skip
def test_names_are_in_a_file_in_several_ways(names, folder, capfdbinary):
    Path("names").write_bytes(names)
    assert loss(capfdbinary, "plain.csv words.csv --names names") == pytest.approx(LOSS)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (b"cat\n\nbird\n", ["name 2 is empty"]), (b"", ["name 1 is empty"]),
        (b"cat\n\xff\n", ["byte 5 is not UTF-8"]), (b"cat\ndog\n", ["2 names", "3 classes"]),
    ],
)  # fmt: skip
def test_a_file_that_is_no_list_of_names_is_one_error(names, words, folder, capfdbinary):
    Path("names").write_bytes(names)
    result = inside(capfdbinary, "softmax", "plain.csv", "--names", "names")
    assert_error(result, result.code, *words)


def test_a_header_is_found_in_each_file_by_itself(folder, capfdbinary):
    Path("label.csv").write_text("label\n0\n2\n1\n")
    for logits in ("plain.csv", "named.csv"):
        for targets in ("indices.csv", "label.csv"):
            assert loss(capfdbinary, f"{logits} {targets}") == pytest.approx(LOSS)
    without = inside(capfdbinary, "loss", "plain.csv", "label.csv", "--target-header", "no")
    assert_error(without, 1, "'label'")
    without = inside(capfdbinary, "loss", "named.csv", "indices.csv", "--header", "no")
    assert_error(without, 1, "'cat'", "--header yes")


def test_options_without_a_prefix_are_for_the_logits_alone(folder, capfdbinary):
    Path("pipe.csv").write_text(Path("plain.csv").read_text().replace(",", "|"))
    Path("line.csv").write_text("0;2;1\n")
    assert loss(capfdbinary, "pipe.csv line.csv -d |") == pytest.approx(LOSS)
    assert loss(capfdbinary, "pipe.csv line.csv -d | --target-delimiter ;") == pytest.approx(LOSS)
    assert_error(inside(capfdbinary, "loss", "pipe.csv", "line.csv"), 1, "--delimiter '|'")
    command = "loss", "pipe.csv", "line.csv", "-d", "|", "--target-delimiter", ","
    assert_error(inside(capfdbinary, *command), 1, "line.csv", "--target-delimiter ';'")


def test_weights_of_pandas_are_read_with_a_note(folder, capfdbinary):
    Path("w.csv").write_text(",0\n0,0.5\n1,1\n2,2\n")
    Path("plain-w.csv").write_text("0.5\n1\n2\n")
    command = "loss", "named.csv", "words.csv", "--sample-weight"
    result = inside(capfdbinary, *command, "w.csv")
    assert result.out == inside(capfdbinary, *command, "plain-w.csv").out
    assert "note: w.csv: column 1 has no name and numbers the rows" in result.err
    assert_error(
        inside(capfdbinary, *command, "w.csv", "--strict"), 1, "w.csv: column 1 has no name"
    )


def test_targets_of_one_line_of_words(folder, capfdbinary):
    Path("line.csv").write_text("cat,bird,dog\n")
    assert loss(capfdbinary, "named.csv line.csv") == pytest.approx(LOSS)


def test_probabilities_in_columns_of_the_same_table(folder, capfdbinary):
    probs = [[0.5, 0.25, 0.25], [0.0, 0.0, 1.0], [0.125, 0.75, 0.125]]
    rows = [",".join(map(repr, [*x, *q])) for x, q in zip(LOGITS, probs, strict=True)]
    Path("both.csv").write_text("\n".join(["x0,x1,x2,q0,q1,q2", *rows, ""]))
    expected = naive.cross_entropy(LOGITS, probs)[0]
    assert loss(capfdbinary, "both.csv --target-column q*") == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(3,), (3, 1), (1, 3)])
def test_targets_of_an_npy_may_be_one_line(shape, folder, capfdbinary):
    np.save("t.npy", np.array(LABELS).reshape(shape))
    assert loss(capfdbinary, "plain.csv t.npy") == pytest.approx(LOSS)


def test_one_row_of_probabilities_is_not_taken_for_indices(folder, capfdbinary):
    np.save("l.npy", [[1.0, 2.0, 3.0]])
    np.save("t.npy", [[0.0, 1.0, 0.0]])
    expected = naive.cross_entropy([[1.0, 2.0, 3.0]], [1])[0]
    assert loss(capfdbinary, "l.npy t.npy") == pytest.approx(expected)


@pytest.mark.parametrize(
    ("given", "index"), [("dog", "1"), (" dog ", "1"), ("2", "2"), ("0.25,0.5,0.25", None)]
)
def test_explain_takes_a_target_in_words(given, index, capfdbinary):
    command = ["explain", "--logits", "1,2,3", "--names", "cat,dog,bird", "--brief", "--target"]
    result = inside(capfdbinary, *command, given)
    assert result.code == 0, result.err
    if index:
        assert result.out == inside(capfdbinary, *command, index).out


def test_explain_names_the_nearest_class(capfdbinary):
    command = "explain", "--logits", "1,2", "--target", "Cta"
    words = "--target", "'Cta' is not a class name", "did you mean 'cat'?"
    assert_error(inside(capfdbinary, *command, "--names", "dog,cat"), 1, *words)
    assert_error(inside(capfdbinary, *command), 2, "--target", "'Cta' is not a number", "--names")


def test_messages_and_json_name_classes(folder, capfdbinary):
    Path("nan.csv").write_text("cat,dog\n1,nan\n")
    Path("dog.csv").write_text("dog\n")
    text = inside(capfdbinary, "explain", "nan.csv", "dog.csv").text
    assert "The logit of class 1 (dog) is nan" in text
    command = "report", "table.csv", "--columns", "3-5", "--target-column", "label"
    facts = strict_json(inside(capfdbinary, *command, "--json").out)
    assert facts["names"] == ["cat", "dog", "bird"]
    text = inside(capfdbinary, *command, "--confusion", "3", "--worst", "1").text
    assert "bird → cat" in text


def test_a_preview_has_the_names_of_the_columns(folder):
    shown = at_terminal("softmax", "named.csv", columns=40)
    assert "cat" in shown.text
    assert "dog" in shown.text


# By the library: what is found in the first bytes


def opened(data, delimiter=",", **style):
    """A reader of bytes, as the command line opens it."""
    names = style.pop("names", ())
    columns = ColumnOptions(style.pop("keep", ()), style.pop("drop", ()))
    how = ReadOptions(style=TextStyle(**style), columns=columns, class_names=names)
    return open_text(Source(io.BytesIO(data), "a table"), how, delimiter)


def remarks(data, **style):
    """What is noted about a table."""
    return [worded(words) for words in opened(data, **style).remarks]


NUMBERS = np.array([[1.5, 2.0], [3.0, -4.0]])
TABLES = {
    "names": (b"a,b\n1.5,2\n3,-4\n", ("a", "b"), 0),
    "names in quotes": (b'"a, x","b ""c"""\r\n1.5,2\r\n3,-4\r\n', ("a, x", 'b "c"'), 0),
    "names after a byte order mark": (b"\xef\xbb\xbfa,b\n1.5,2\n3,-4", ("a", "b"), 0),
    "names after a blank": (b"a, b\n1.5, 2\n3, -4\n", ("a", "b"), 0),
    "names in a comment, as numpy.savetxt writes": (b"# a,b\n1.5,2\n3,-4\n", ("a", "b"), 0),
    "names that begin with digits": (b"1st,2nd\n1.5,2\n3,-4\n", ("1st", "2nd"), 0),
    "numbers in quotes": (b'"1.5","2"\n"3",-4\n', (), 0),
    "numbers in quotes after a blank": (b'"1.5", "2"\n3, "-4"\n', (), 0),
    "row numbers of pandas": (b",a,b\n0,1.5,2\n1,3,-4\n", ("a", "b"), 1),
    "row numbers of some rows": (b",a,b\n71,1.5,2\n8,3,-4\n", ("a", "b"), 1),
    "row names of pandas": (b",a,b\nx,1.5,2\ny z,3,-4\n", ("a", "b"), 1),
    "dates of pandas": (b",a,b\n2024-01-01,1.5,2\n2024-01-02,3,-4\n", ("a", "b"), 1),
    "row names with delimiters": (b'"",a,b\n"x,y",1.5,2\n"say ""z""",3,-4\n', ("a", "b"), 1),
    "row names of several lines": (b',a,b\n"x\n\ny",1.5,2\r\n"z,\r\n",3,-4\n', ("a", "b"), 1),
    "names of several lines": (b'a,"b\nc"\n1.5,2\n3,-4\n', ("a", "b\nc"), 0),
    "columns of pandas without names": (b",0,1\n0,1.5,2\n1,3,-4\n", ("0", "1"), 1),
    "R": (b'"a" "b"\n"x y" 1.5 2\n"2" 3 -4\n', ("a", "b"), 2),
    "R with commas": (b'"a","b"\n"1",1.5,2\n"2",3,-4\n', ("a", "b"), 1),
    "tabs": (b"1.5\t2\n3\t-4\n", (), 1),
    "semicolons": (b"a;b\n1.5;2\n3;-4\n", ("a", "b"), 1),
    "blanks": (b"1.5 2\n3 -4\n", (), 1),
    "aligned numbers": (b"  1.5    2\n  3.0   -4  \n", (), 1),
    "blanks and CRLF": (b" 1.5 2 \r\n 3 -4 \r\n", (), 1),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("chunk", [1 << 16, 30, 7])
def test_what_the_first_lines_say(name, chunk, monkeypatch):
    monkeypatch.setattr(lines, "CHUNK", chunk)
    data, names, noted = TABLES[name]
    reader = opened(data)
    assert_same_bits(reader.whole(), NUMBERS)
    assert reader.column_names == names
    assert len(reader.remarks) == noted


def test_a_first_column_without_a_name_that_holds_other_numbers_stays_with_a_note():
    data = b",a,b\n0.5,1,2\n0.25,3,4\n"
    assert opened(data).shape == (2, 3)
    assert remarks(data) == ["column 1 was read as class 0; drop='1' leaves it out"]


@pytest.mark.parametrize(
    ("data", "shape"),
    [
        (b"a\n1\n2\n", (2, 1)), (b"1\n2\n", (2, 1)), (b"1,2\n3,4\n", (2, 2)),
        (b"nan,inf\n1,2\n", (2, 2)), (b"NaN,1\n1,2\n", (2, 2)), (b"1e5,2\n1,2\n", (2, 2)),
        (b"1\n", (1, 1)), (b"Inf\n-inf\n", (2, 1)),
    ],
)  # fmt: skip
def test_a_first_line_with_a_number_is_no_header(data, shape):
    assert opened(data).shape == shape
    assert not opened(data).remarks


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"a,b\n1,2,3,4\n", "line 1 has 2 names, and the next line 4 fields"),
        (b"a,b,\n1,2,\n3,4,\n", "line 2, column 3: an empty field (drop='3' leaves column 3 out)"),
        (
            b"a,,b\n1,2,3\n",
            "line 1, column 1: 'a' is not a number (drop='1' leaves column 1 out, h",
        ),
        (b"a,b\r1,2\r3,4\r", "line 1: a carriage return without a line feed"),
        (b"1:2\n3:4\n", "line 1, column 1: '1:2' is not a number"),
        (b"My numbers\n1,2\n3,4\n", "line 1 has 1 name, and the next line 2 fields"),
        (b"My numbers\n1,2\n3.5,4\n", "line 1 has 1 name, and the next line 2 fields"),
        (b"# x\n1,2\n3,4\n", "line 1 has 1 name, and the next line 2 fields"),
        (b"a,b\n3,1,2\n1,5,6\n", "line 1 has 2 names, and the next line 3 fields"),
        (b"a;b\n1,5;2\n", "line 1 has 1 name, and the next line 2 fields"),
        (b"a,b\n", "line 1 is a header, and nothing follows"),
        (b"\x1b[31ma,b\n1,2\n", "is not a number"),
        (b"Gr\xf6\xdfe,b\n1,2\n", "line 1: byte 3 is not UTF-8"),
        (b'1,"2\n3,4\n', "has a quote that is not closed"),
        (b'1,"2"3\n', "is not a number"),
        (b'1,"2""3"\n', "is not a number"),
        (b'1,2"\n', "has a quote that is not closed"),
        (b'1,""\n', "an empty field"),
        (b'1,2\n"3\n3",4\n', "line 2, column 1: '3\\n3' is not a number"),
        (b'"a\nb",c\n1,2\n3\n', "line 4: 1 field, expected 2 as in line 3"),
    ],
)
def test_what_is_no_table_is_an_error(data, words):
    with pytest.raises(XentError, match=r"^a table: ") as caught:
        opened(data).whole()
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("lines_of_text", "words"),
    [
        (b'"x\n\ny",1\n2\n', "line 5: 1 field, expected 2 as in line 2"),
        (b'"x\n\ny",1\nz,w\n', "line 5, column 2: 'w' is not a number"),
        (b'"x\n\ny",1\n"z\n",w\n', "line 6, column 2: 'w' is not a number"),
    ],
)
def test_lines_are_numbered_as_an_editor_does(lines_of_text, words):
    with pytest.raises(XentError) as caught:
        opened(b"text,a\n" + lines_of_text, drop=("text",))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"1,5;2,5\n3,5;4\n",
        b"a;b\n1,5;2,5\n3,5;4\n",
        b"1,5\t2,5\n3,5\t4\n",
        b"1,5 2,5\n3,5 4\n",
    ],
)
def test_decimal_commas_are_read_and_hinted_at(data):
    assert_same_bits(opened(data, decimal=",").whole(), np.array([[1.5, 2.5], [3.5, 4.0]]))
    with pytest.raises(XentError, match=r"is not a number|1 name"):
        opened(data)
    if b" " not in data:
        with pytest.raises(XentError, match="seem to have decimal commas: decimal=','"):
            opened(data)


def test_a_point_is_no_decimal_comma():
    for cell in (b"1.234,5", b"1.5"):
        with pytest.raises(XentError, match="is not a number"):
            opened(cell + b";2\n", decimal=",")


def test_random_numbers_with_decimal_commas_are_read_exactly(rng):
    numbers = rng.standard_normal((200, 3)) * 10.0 ** rng.integers(-30, 30, (200, 3))
    text = "\n".join(";".join(map(repr, row)) for row in numbers.tolist()).replace(".", ",")
    assert_same_bits(opened(text.encode(), decimal=",").whole(), numbers)


def test_the_notes_do_not_come_for_ordinary_tables(rng):
    for number in range(1000):
        shape = rng.integers(1, 9), rng.integers(1, 6)
        numbers = rng.standard_normal(shape).round(int(rng.integers(0, 6)))
        header = [",".join(f"class{c}" for c in range(shape[1]))] if number % 2 else []
        rows = [",".join(map(repr, row)) for row in numbers.tolist()]
        data = "\n".join([*header, *rows, ""]).encode()
        assert opened(data).shape == shape
        assert not remarks(data) or np.array_equal(numbers, np.arange(numbers.size)), data


class Endless(io.RawIOBase):
    """A stream that begins with some bytes, and goes on with others, so many times."""

    def __init__(self, start, again, times):
        self.start, self.again, self.left = start, again, times

    def read(self, count=-1):
        if not self.start and self.left:
            some = min(self.left, 1 + count // len(self.again))
            self.left -= some
            self.start = self.again * some
        data, self.start = self.start[:count], self.start[count:]
        return data


def peak(act):
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize("again", [b'"x, ""y""",', b"some words,"])
def test_memory_is_bounded_with_columns_of_text(again):
    def drain(times):
        line = again + b"1,2,3,4,5,6,7,8,label\n"
        source = Source(Endless(b"name,a,b,c,d,e,f,g,h,label\n", line, times), "a table")
        how = ReadOptions(columns=ColumnOptions(drop=("name", "label")))
        reader = open_text(source, how, ",")
        reader.assume(times)
        for start in range(0, times, 1 << 14):
            reader.read(8 * min(1 << 14, times - start))
        reader.finish()

    sizes = [peak(lambda n=n: drain(n)) for n in (200_000, 400_000)]
    assert sizes[1] < 1.1 * sizes[0] < 64 << 20


def test_a_quote_that_is_never_closed_takes_bounded_memory(monkeypatch):
    monkeypatch.setattr(lines, "LONGEST", 8 << 20)
    source = Source(Endless(b'1,2\n3,"4\n', b"5,6\n", 10**9), "a table")

    def read():
        with pytest.raises(XentError, match=r"line 2 is longer than .*a quote in it is not closed"):
            open_text(source, ReadOptions(), ",")

    assert peak(read) < 32 << 20


def test_lines_are_counted_where_text_has_several(tmp_path):
    rows = 150_000
    lines_of_text = (f'"a ""b""\n{"," * (row % 3)}\n",{"1," * 7}{row}\n' for row in range(rows))
    path = tmp_path / "a.csv"
    path.write_text("".join(lines_of_text))
    with open_source(str(path)) as source:
        reader = open_text(source, ReadOptions(columns=ColumnOptions(drop=("1",))), ",")
        assert reader.shape == (rows, 8)
        last = [chunk.reshape(-1, 8)[:, 7] for chunk in reader.chunks()]
        assert np.array_equal(np.concatenate(last), np.arange(rows))


@pytest.mark.slow
@pytest.mark.parametrize("header", [False, True])
def test_a_first_line_of_many_megabytes_is_looked_at_in_its_first_bytes(header, monkeypatch):
    width = 1_500_000
    row = b"1.25," * (width - 1) + b"1.25\n"
    names = b"class10," * (width - 1) + b"class10\n" if header else b""
    seen = []
    real = Source.peek
    monkeypatch.setattr(Source, "peek", lambda s, n: (seen.append(n), real(s, n))[1])
    found = []
    source = Source(Endless(names + row, row, 1), "a table")
    most = peak(lambda: found.append(open_text(source, ReadOptions(), ",").unit))
    assert found == [width]
    assert max(seen) <= 1 << 16
    assert most < 60 * width  # two lines of numbers, and room for a third: as without a look


def test_names_of_a_hundred_thousand_classes_are_kept():
    count = 128_256
    names = ",".join(f"token_{c}" for c in range(count))
    keep = f"token_{count - 1}", "token_1"
    reader = opened(f"{names}\n{'0,' * (count - 1)}0\n".encode(), keep=keep)
    assert reader.column_names == keep
    assert reader.shape == (1, 2)


def test_a_long_text_beside_the_numbers_is_left_out():
    text = "x, " * 200_000
    data = f'text,a,b\n"{text}",1.5,2\n"{text}",3,-4\n'.encode()
    assert_same_bits(opened(data, drop=("text",)).whole(), NUMBERS)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("a",), (0,)), (("2",), (1,)), (("b", "a"), (1, 0)), (("1-3",), (0, 1, 2)),
        (("3-",), (2, 3)), (("c*",), (2, 3)), (("[ab]",), (0, 1)),
    ],
)  # fmt: skip
def test_columns_are_chosen_by_name_pattern_and_number(words, found):
    assert chosen(ColumnOptions(words), ["a", "b", "c1", "c2"], 4, "x") == found


def test_a_name_comes_before_a_number():
    names = ["", "2", "1"]
    assert chosen(ColumnOptions(("1",)), names, 3, "x") == (2,)
    assert chosen(ColumnOptions(("1-1",)), names, 3, "x") == (0,)


def test_a_name_that_is_there_twice_needs_a_number():
    with pytest.raises(OptionError, match="2 columns are called 'a': 1, 3"):
        chosen(ColumnOptions(("a",)), ["a", "b", "a"], 3, "x")
    assert chosen(ColumnOptions(("3",)), ["a", "b", "a"], 3, "x") == (2,)


@pytest.mark.parametrize(
    "data", [b"1,2\n1,x\n", b"a,b\n1,2\n3,4,\n", b"a,b\n1,2,3\n", b"cat\ndog\n"]
)
def test_no_hint_is_for_an_option_of_another_input(data, files, capfdbinary):
    Path("w.csv").write_bytes(data)
    for role in ("--weight", "--sample-weight", "--teacher"):
        kind = ["--teacher-kind", "logits", "--divergence", "ce"] if role == "--teacher" else []
        result = inside(capfdbinary, "loss", "l.npy", "t.npy", role, "w.csv", *kind)
        assert "w.csv: " in result.err  # an error or a note
        assert "--drop" not in result.err
        assert "--header" not in result.err


def test_no_hint_leaves_the_only_column_out(files, capfdbinary):
    Path("l.csv").write_bytes(b"word\ncat\ndog\n")
    result = inside(capfdbinary, "softmax", "l.csv")
    assert_error(result, 1, "line 2, column 1: 'cat' is not a number")
    assert "--drop" not in result.err
    result = inside(capfdbinary, "softmax", "l.csv", "--header", "no")
    assert_error(result, 1, "--header yes skips line 1")
    assert "--drop" not in result.err


def test_numbers_without_a_header_are_named_with_how_to_read_them(files, capfdbinary):
    numbers = np.random.default_rng(3).normal(size=(20, 3))
    for dtype in ("<f4", "<f2", "<f8"):
        Path("l.bin").write_bytes(numbers.astype(dtype).tobytes())
        result = inside(capfdbinary, "softmax", "l.bin")
        assert_error(result, 1, "binary, not text", "--raw f32 --shape N,C")
    assert inside(capfdbinary, "softmax", "l.bin", "--raw", "f64", "--shape", "20,3").code == 0
    targets = inside(capfdbinary, "loss", "l.npy", "l.bin")
    assert_error(targets, 1, "binary, not text", "--target-raw f32 --target-shape N,C")
    Path("l.bin").write_bytes(bytes(48))
    assert_error(inside(capfdbinary, "softmax", "l.bin"), 1, "NUL", "--raw f32 --shape N,C")
    weights = inside(capfdbinary, "loss", "l.npy", "t.npy", "--weight", "l.bin")
    assert_error(weights, 1, "NUL")
    assert "--raw" not in weights.err


@pytest.mark.parametrize("word", ["NA", '"NA"', "N/A", "#N/A", "NULL", "None"])
def test_a_missing_number_is_no_reason_to_leave_its_class_out(word, files, capfdbinary):
    Path("l.csv").write_text(f"a,b,c\n1,2,3\n3,{word},4\n")
    result = inside(capfdbinary, "softmax", "l.csv")
    assert_error(result, 1, "line 3, column 2", "for a missing number write nan")
    assert "--drop" not in result.err
