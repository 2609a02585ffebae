"""Every place where an input is interpreted: what is taken, and what says so if it was not meant.

Each row is a concrete input that could be read in more than one way. Its `sign` is how a user
learns what was taken: an "error", a "note", or a "rule" that is written down at `place`. Where
there is a result, `logits` and `targets` are what was taken, as plain numbers, from which the
test computes the result by itself.
"""

import io
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Row:
    """One input and what it is taken for.

    `place` is README.md, or the command whose help has the rule; `code` is the exit code of
    an error; with --strict every note is one.
    """

    what: str
    inputs: dict
    command: str
    sign: str
    words: tuple
    place: str = "README.md"
    logits: list | None = None
    targets: list | None = None
    code: int = 1


@dataclass
class Table:
    """The rows, in the order of the reader's work: from bytes to numbers to meaning."""

    rows: list = field(default_factory=list)

    def add(self, *given, **more):
        """Add a row."""
        self.rows.append(Row(*given, **more))


def npy(values, dtype=None):
    """The bytes of an .npy file, by NumPy."""
    stream = io.BytesIO()
    np.save(stream, np.asarray(values, dtype))
    return stream.getvalue()


def npz(**arrays):
    """The bytes of an .npz file, by NumPy."""
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


L = [[2.0, 1.0, 0.5], [0.25, 1.5, -1.0]]
T = [0, 1]
NPY, TARGETS = npy(L), npy(T)
CSV = b"2,1,0.5\n0.25,1.5,-1\n"
BOTH = {"l.npy": NPY, "t.npy": TARGETS}
TABLE = Table()
add = TABLE.add

# Format: suffix and first bytes

add("suffix .csv on .npy bytes", {"l.csv": NPY}, "softmax l.csv", "error", ("another format",))
add("suffix .npy on text", {"l.npy": CSV}, "softmax l.npy", "error", ("not an .npy file",))
add("suffix .csv on a zip", {"l.csv": npz(a=L)}, "softmax l.csv", "error", ("another format",))
add("suffix .npz on .npy bytes", {"l.npz": NPY}, "softmax l.npz", "error", ("not an .npz file",))
add("no suffix, .npy bytes", {"l": NPY}, "softmax l", "rule", ("else the first bytes",), logits=L)
add("no suffix, text", {"l": CSV}, "softmax l", "rule", ("else it is text",), logits=L)
add("suffix .txt", {"l.txt": CSV}, "softmax l.txt", "rule", ("else it is text",), logits=L)
add(
    "suffix .txt with tabs",
    {"l.txt": CSV.replace(b",", b"\t")},
    "softmax l.txt -d ,",
    "error",
    ("delimiter seems to be tab",),
)
add(
    "suffix .txt with tabs, and no delimiter given",
    {"l.txt": CSV.replace(b",", b"\t")},
    "softmax l.txt",
    "note",
    ("no comma", "delimiter seems to be tab"),
    logits=L,
)
add(
    "suffix unknown to xent",
    {"l.dat": NPY},
    "softmax l.dat",
    "rule",
    ("else the first bytes",),
    logits=L,
)
add(
    "gzip under .csv",
    {"l.csv": b"\x1f\x8b\x08" + bytes(60)},
    "softmax l.csv",
    "error",
    ("the gzip stream is damaged",),
)
add("UTF-16 text", {"l.csv": CSV.decode().encode("utf-16")}, "softmax l.csv", "error", ("UTF-16",))
add(
    "byte order mark",
    {"l.csv": b"\xef\xbb\xbf" + CSV},
    "softmax l.csv",
    "rule",
    ("order mark before text is skipped",),
    logits=L,
)
add(
    "output suffix against --format",
    BOTH,
    "softmax l.npy -f csv -o p.npy",
    "rule",
    ("Format of the output; by default from its suffix",),
    "softmax",
)
add("output suffix that no format has", BOTH, "softmax l.npy -o p.pt", "error", ("pt",), code=2)

# Header and shape of .npy, members of .npz

add("bytes after the array", {"l.npy": NPY + NPY}, "softmax l.npy", "error", ("surplus",))
add("bytes missing", {"l.npy": NPY[:-8]}, "softmax l.npy", "error", ("missing",))
add(
    "Fortran order",
    {"l.npy": npy(np.asfortranarray(L))},
    "softmax l.npy",
    "rule",
    ("in any memory order and byte order",),
    logits=L,
)
add(
    "big-endian",
    {"l.npy": npy(L, ">f8")},
    "softmax l.npy",
    "rule",
    ("in any memory order and byte order",),
    logits=L,
)
add(
    "one axis",
    {"l.npy": npy(L[0]), "t.npy": npy(0)},
    "loss l.npy t.npy",
    "rule",
    ("the shape (C,), (N, C)",),
    logits=[L[0]],
    targets=[0],
)
add("no axes", {"l.npy": npy(1.0)}, "softmax l.npy", "error", ("shape () is not supported",))
add("no classes", {"l.npy": npy(np.empty((2, 0)))}, "softmax l.npy", "error", ("no classes",))
add(
    "no rows",
    {"l.npy": npy(np.empty((0, 3))), "t.npy": npy(np.empty(0, int))},
    "loss l.npy t.npy",
    "note",
    ("no row is left, so the mean is nan",),
)
add(
    "one array in an archive",
    {"l.npz": npz(whatever=L)},
    "softmax l.npz",
    "rule",
    ("with one, that one is read, whatever its name",),
    logits=L,
)
add(
    "several arrays in an archive",
    {"l.npz": npz(a=L, b=T)},
    "softmax l.npz",
    "error",
    ("holds 2 arrays: a, b", "--key"),
    code=2,
)
add(
    "logits and targets in one archive",
    {"l.npz": npz(logits=L, targets=T)},
    "loss l.npz l.npz",
    "error",
    ("holds 2 arrays",),
    code=2,
)
add(
    "--key for a file without keys",
    BOTH,
    "softmax l.npy --key a",
    "error",
    ("--key is for",),
    code=2,
)
add(
    "--key that is not there",
    {"l.npz": npz(a=L)},
    "softmax l.npz --key b",
    "error",
    ("no array 'b'",),
    code=2,
)

# Dtypes

add("dtype V2", {"l.npy": npy(np.zeros((2, 3), "V2"))}, "softmax l.npy", "error", ("--dtype bf16",))
add(
    "uint16 with --dtype bf16",
    {"l.npy": npy([[3, 1, 2]], "u2")},
    "softmax l.npy --dtype bf16",
    "note",
    ("uint16 was read as the bits of bfloat16",),
)
add(
    "uint16",
    {"l.npy": npy([[3, 1, 2]], "u2")},
    "softmax l.npy",
    "rule",
    ("Integer logits, unsigned 16-bit ones too, are numbers",),
    logits=[[3, 1, 2]],
)
add("bool logits", {"l.npy": npy(np.eye(3, dtype=bool))}, "softmax l.npy", "error", ("dtype bool",))
add(
    "bool targets",
    {"l.npy": NPY, "t.npy": npy([True, False])},
    "loss l.npy t.npy",
    "error",
    ("dtype bool",),
)
add(
    "complex logits",
    {"l.npy": npy(np.zeros((2, 3), complex))},
    "softmax l.npy",
    "error",
    ("is not supported",),
)
add(
    "text beyond the dtype asked for",
    {"l.csv": b"70000,1\n"},
    "softmax l.csv --dtype f16",
    "error",
    ("1 number out of the range of float16",),
)

# Text: delimiter, decimal mark, header, numbers

add(
    "semicolons",
    {"l.csv": b"1;2;3\n"},
    "softmax l.csv",
    "note",
    ("delimiter seems to be ';'",),
    logits=[[1, 2, 3]],
)
add(
    "blanks between numbers",
    {"l.csv": b"1 2  3\n"},
    "softmax l.csv",
    "note",
    ("delimiter seems to be ' '",),
    logits=[[1, 2, 3]],
)
add("decimal commas", {"l.csv": b"1,5;2,5\n"}, "softmax l.csv", "error", ("--decimal ,",))
add(
    "decimal commas with the option",
    {"l.csv": b"1,5;2,5\n"},
    "softmax l.csv --decimal ,",
    "rule",
    ("`--decimal ,`",),
    logits=[[1.5, 2.5]],
)
add(
    "decimal commas in one column",
    {"l.csv": b"1,5\n2,5\n"},
    "softmax l.csv",
    "rule",
    ("a point is the decimal mark",),
    logits=[[1, 5], [2, 5]],
)
add(
    "commas in .tsv",
    {"l.tsv": CSV},
    "softmax l.tsv -f csv",
    "note",
    ("no tab", "delimiter seems to be comma"),
    logits=L,
)
add(
    "-d against the suffix",
    {"l.tsv": CSV},
    "softmax l.tsv -d , -f csv",
    "rule",
    ("Field delimiter of the logits, of weights and of text outputs",),
    "softmax",
    logits=L,
)
add(
    "header of words",
    {"l.csv": b"a,b,c\n" + CSV},
    "softmax l.csv",
    "rule",
    ("if no cell of it is empty or a number",),
    "softmax",
    logits=L,
)
add(
    "header of numbers",
    {"l.csv": b"0,1,2\n" + CSV},
    "softmax l.csv",
    "note",
    ("line 1 counts up, like names of columns", "--header yes skips it"),
    logits=[[0, 1, 2], *L],
)
add(
    "--header yes where there is none",
    {"l.csv": CSV},
    "softmax l.csv --header yes",
    "rule",
    ("Whether line 1 of the logits is a header",),
    "softmax",
    logits=L[1:],
)
add(
    "row numbers in a column",
    {"l.csv": b"0,5,1\n1,2,2\n2,3,7\n"},
    "softmax l.csv",
    "note",
    ("column 1 counts up, like numbers of rows",),
    logits=[[0, 5, 1], [1, 2, 2], [2, 3, 7]],
)
add(
    "row names of pandas",
    {"l.csv": b",a,b\n0,5,1\n1,2,2\n2,3,7\n"},
    "softmax l.csv",
    "note",
    ("column 1 has no name and numbers the rows, so it is left out",),
    logits=[[5, 1], [2, 2], [3, 7]],
)
add(
    "row numbers with a name",
    {"l.csv": b"id,a,b\n7,5,1\n9,2,2\n"},
    "softmax l.csv",
    "note",
    ("column 1, 'id', was read as class 0", "--drop id leaves it out"),
    logits=[[7, 5, 1], [9, 2, 2]],
)
add(
    "a column of labels",
    {"l.csv": b"a,b,label\n5,1,0\n2,2,1\n"},
    "softmax l.csv",
    "note",
    ("column 3, 'label', was read as class 2", "--drop label leaves it out"),
    logits=[[5, 1, 0], [2, 2, 1]],
)
add(
    "quoted numbers",
    {"l.csv": b'"1","2"\n'},
    "softmax l.csv",
    "rule",
    ("Numbers may be in quotes",),
    logits=[[1, 2]],
)
add("empty field", {"l.csv": b"1,,3\n"}, "softmax l.csv", "error", ("an empty field",))
add("NA", {"l.csv": b"1,NA,3\n"}, "softmax l.csv", "error", ("'NA' is not a number",))
add("nan", {"l.csv": b"1,nan,3\n"}, "softmax l.csv", "note", ("is not finite",))
add("inf", {"l.csv": b"1,inf,3\n"}, "softmax l.csv", "note", ("is not finite",))
add("a number beyond float64", {"l.csv": b"1,1e400\n"}, "softmax l.csv", "error", ("out of the",))
add(
    "a number below float64",
    {"l.csv": b"1,1e-400\n"},
    "softmax l.csv",
    "rule",
    ("read as the nearest float64",),
    logits=[[1, 0]],
)
add("underscores", {"l.csv": b"1_0,2\n"}, "softmax l.csv", "error", ("is not a number",))
add(
    "blank line at the end",
    {"l.csv": CSV + b"\n\n"},
    "softmax l.csv",
    "rule",
    ("blank lines at its end are ignored",),
    logits=L,
)
add("blank line within", {"l.csv": b"1,2\n\n3,4\n"}, "softmax l.csv", "error", ("line 2 is blank",))
add("comment", {"l.csv": b"# x\n1,2\n"}, "softmax l.csv", "error", ("line 1 has 1 name",))
add("lines of different length", {"l.csv": b"1,2\n3\n"}, "softmax l.csv", "error", ("1 field",))

# Streams

add(
    "a stream that ends early",
    {"-": NPY[:-8], "t.npy": TARGETS},
    "loss - t.npy",
    "error",
    ("missing",),
)
add(
    "a stream that goes on",
    {"-": NPY + b"x", "t.npy": TARGETS},
    "loss - t.npy",
    "error",
    ("more bytes follow",),
)
add(
    "text that ends early",
    {"-": CSV[:8], "t.npy": TARGETS},
    "loss - t.npy",
    "error",
    ("shape (2,) does not fit",),
)
add(
    "text that is cut before a number",
    {"-": CSV[:-2], "t.npy": TARGETS},
    "loss - t.npy",
    "error",
    ("line 2, column 3: '-' is not a number",),
)
add(
    "text that is cut within a number, or has no line feed at its end",
    {"-": b"2,1,0.5\n0.25,1.5,-1.2", "t.npy": TARGETS},
    "loss - t.npy",
    "rule",
    ("the last line needs no line feed",),
    logits=[L[0], [0.25, 1.5, -1.2]],
    targets=T,
)
add("standard input twice", {"-": NPY}, "loss - -", "error", ("only once",), code=2)
add("an empty stream", {"-": b""}, "softmax -", "error", ("the file is empty",))

# Targets

add(
    "integers in the shape of the logits",
    {"l.npy": NPY, "t.npy": npy([[1, 0, 0], [0, 1, 0]])},
    "loss l.npy t.npy",
    "rule",
    ("are probabilities, integers too (one-hot)",),
    logits=L,
    targets=T,
)
add(
    "indices for logits of one row and as many classes",
    {"l.npy": npy(L[0]), "t.npy": npy([0, 1, 2])},
    "loss l.npy t.npy",
    "note",
    ("not a probability distribution",),
)
add(
    "probabilities that do not sum to 1",
    {"l.npy": NPY, "t.npy": npy([[0.5, 0.1, 0.1], [1, 0, 0.0]])},
    "loss l.npy t.npy",
    "note",
    ("row 0 sums to 0.7",),
)
add(
    "whole floats",
    {"l.npy": NPY, "t.npy": npy(T, float)},
    "loss l.npy t.npy",
    "rule",
    ("floats must be whole",),
    logits=L,
    targets=T,
)
add("fractions", {"l.npy": NPY, "t.npy": npy([0, 1.5])}, "loss l.npy t.npy", "error", ("1.5",))
add(
    "targets as a column",
    {"l.npy": NPY, "t.npy": npy([[0], [1]])},
    "loss l.npy t.npy",
    "rule",
    ("one line or column is class indices",),
    logits=L,
    targets=T,
)
add(
    "targets as a line of text",
    {"l.npy": NPY, "t.csv": b"0,1\n"},
    "loss l.npy t.csv",
    "rule",
    ("one line or column is class indices",),
    logits=L,
    targets=T,
)
add(
    "classes that start at 1",
    {"l.npy": NPY, "t.npy": npy([1, 3])},
    "loss l.npy t.npy",
    "error",
    ("row 1 is 3", "class indices start at 0"),
)
add(
    "-1 for no class",
    {"l.npy": NPY, "t.npy": npy([0, -1])},
    "loss l.npy t.npy",
    "error",
    ("--ignore-index -1",),
)
add(
    "255 for no class",
    {"l.npy": NPY, "t.npy": npy([0, 255], "u1")},
    "loss l.npy t.npy",
    "error",
    ("row 1 is 255",),
)
add(
    "-100",
    {"l.npy": NPY, "t.npy": npy([0, -100])},
    "loss l.npy t.npy",
    "rule",
    ("Targets of −100 are ignored",),
    logits=L[:1],
    targets=T[:1],
)
add(
    "--ignore-index that is a class",
    BOTH,
    "loss l.npy t.npy --ignore-index 1",
    "rule",
    ("another number, which may be a class",),
    logits=L[:1],
    targets=T[:1],
)
add(
    "--ignore-index with probabilities",
    {"l.npy": NPY, "t.npy": npy([[1, 0, 0.0]] * 2)},
    "loss l.npy t.npy --ignore-index 1",
    "error",
    ("applies to class indices",),
    code=2,
)
add(
    "--ignore-index -100 with probabilities",
    {"l.npy": NPY, "t.npy": npy([[1, 0, 0.0]] * 2)},
    "loss l.npy t.npy --ignore-index -100",
    "error",
    ("--ignore-index: -100 applies to class indices",),
    code=2,
)
add(
    "every row ignored",
    {"l.npy": NPY, "t.npy": npy([-100, -100])},
    "loss l.npy t.npy",
    "note",
    ("no row is left",),
)
add(
    "--targets probs for indices",
    BOTH,
    "loss l.npy t.npy --targets probs",
    "error",
    ("do not fit",),
)
add(
    "--targets index for probabilities",
    {"l.npy": NPY, "t.npy": npy([[1, 0, 0.0]] * 2)},
    "loss l.npy t.npy --targets index",
    "error",
    ("for probabilities",),
)

# Axes, and what stands for what

add(
    "both axes fit",
    {"l.npy": npy(np.zeros((2, 4, 4))), "t.npy": npy(np.zeros((2, 4), int))},
    "loss l.npy t.npy",
    "error",
    ("--class-axis 1 or --class-axis 2",),
    code=2,
)
add(
    "logits with more axes and no targets",
    {"l.npy": npy([L])},
    "softmax l.npy -f npy -o p.npy",
    "rule",
    ("without targets they are on the last",),
)
add(
    "one class",
    {"l.csv": b"1\n2\n3\n"},
    "softmax l.csv",
    "note",
    ("has one class",),
    logits=[[1], [2], [3]],
)
add("logits and targets swapped", BOTH, "loss t.npy l.npy", "error", ("seem to be swapped",))
add(
    "logits and targets swapped, as text",
    {"l.csv": b"1,2.5,3\n4,5,6\n7,8,9\n7,8,9\n", "t.csv": b"0\n1\n2\n0\n"},
    "loss t.csv l.csv",
    "error",
    ("seem to be swapped: the logits, of shape (4, 3), come first",),
)
add(
    "log-probabilities",
    {"l.npy": npy(np.log([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]))},
    "softmax l.npy --logits-kind log-probs",
    "rule",
    ("log-probabilities, or probabilities, whose logarithms are taken",),
    place="softmax",
    logits=np.log([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]).tolist(),
)
add(
    "probabilities with --logits-kind probs",
    {"l.npy": npy([[0.5, 0.5, 0.0], [0.1, 0.2, 0.7]])},
    "softmax l.npy --logits-kind probs",
    "rule",
    ("log-probabilities, or probabilities, whose logarithms are taken (-inf for 0)",),
    place="softmax",
    logits=[[np.log(0.5), np.log(0.5), -np.inf], np.log([0.1, 0.2, 0.7]).tolist()],
)
add(
    "negative probabilities",
    {"l.npy": npy(L)},
    "softmax l.npy --logits-kind probs",
    "error",
    ("probability -1 at number 5 is negative",),
)
add(
    "masked logits with a softcap",
    {"l.npy": npy([[0.5, -np.inf, 3]])},
    "softmax l.npy --softcap 30",
    "note",
    ("--softcap 30.0 makes 1 logit of -inf finite",),
)
add(
    "probabilities as logits",
    {"l.npy": npy([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]])},
    "softmax l.npy -f csv",
    "note",
    ("as probabilities do",),
    logits=[[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]],
)
add(
    "weights as a line",
    BOTH | {"w.csv": b"1,1,1\n"},
    "loss l.npy t.npy --weight w.csv",
    "rule",
    ("may be one line, one column",),
    logits=L,
    targets=T,
)
add(
    "too few weights",
    BOTH | {"w.csv": b"1,1\n"},
    "loss l.npy t.npy --weight w.csv",
    "error",
    ("shape (1, 2) does not fit; expected (3,)",),
)
add(
    "--upstream that is a number and a file",
    BOTH | {"2": b"1\n"},
    "loss l.npy t.npy --upstream 2",
    "error",
    ("there is a file of that name",),
    code=2,
)
add(
    "several upstream gradients for one loss",
    BOTH | {"u.npy": npy([1.0, 2.0])},
    "loss l.npy t.npy --upstream u.npy",
    "error",
    ("--reduction none",),
)
