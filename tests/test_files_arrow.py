"""Parquet and Arrow files, written by pyarrow: every layout of logits and targets, and what is
wrong in them is said."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from cli import (
    GRADIENT,
    LOGITS,
    TARGETS,
    assert_done,
    assert_error,
    from_npy,
    inside,
    strict_json,
)
from helpers import assert_same_bits

from xentcli.errors import DtypeError, FileError, FormatError, OptionError, UnavailableError
from xentcli.files import random_access
from xentcli.files.columns import ColumnOptions
from xentcli.files.opening import load, open_reader
from xentcli.files.options import ReadOptions
from xentcli.files.source import open_source

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

NUMBERS = np.random.default_rng(1).normal(size=(57, 5))
LABELS = np.arange(57) % 5


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def fixed(array):
    """A column of lists of a fixed length, nested for more axes."""
    column = pa.array(np.ascontiguousarray(array).reshape(-1))
    for length in array.shape[:0:-1]:
        column = pa.FixedSizeListArray.from_arrays(column, length)
    return column


def lists(array, kind=pa.list_):
    """A column of lists whose length only the rows tell."""
    return pa.array(list(map(list, array.tolist())), kind(pa.from_numpy_dtype(array.dtype)))


def parquet(table, **how):
    """The bytes of a Parquet file, by default of row groups of ten rows."""
    stream = io.BytesIO()
    pq.write_table(table, stream, **{"row_group_size": 10, **how})
    return stream.getvalue()


def arrow(table, **how):
    """The bytes of an Arrow file of record batches of ten rows."""
    return _ipc(pa.ipc.new_file, table, how)


def arrow_stream(table, **how):
    """The bytes of an Arrow stream of record batches of ten rows."""
    return _ipc(pa.ipc.new_stream, table, how)


def _ipc(create, table, how):
    stream = io.BytesIO()
    with create(stream, table.schema, options=pa.ipc.IpcWriteOptions(**how)) as writer:
        writer.write_table(table, max_chunksize=10)
    return stream.getvalue()


WRITERS = {"a.parquet": parquet, "a.arrow": arrow, "b.arrow": arrow_stream}


@pytest.fixture(params=WRITERS)
def write(request):
    """Write a table or columns to a file, and get its path."""

    def written(table=None, how=None, **columns):
        table = pa.table(columns) if table is None else table
        Path(request.param).write_bytes(WRITERS[request.param](table, **(how or {})))
        return request.param

    return written


def read(path, **how):
    return load(path, ReadOptions(**how))


# Every layout


@pytest.mark.parametrize(
    "column",
    [fixed, lists, lambda x: lists(x, pa.large_list), lambda x: lists(x, pa.list_view)],
    ids=["fixed", "list", "large", "view"],
)
def test_a_column_of_lists_is_an_array(column, write):
    if column.__name__ == "<lambda>" and "view" in str(column(NUMBERS).type):
        path = Path("a.arrow")
        path.write_bytes(arrow(pa.table({"x": column(NUMBERS)})))
        assert_same_bits(read(str(path)), NUMBERS)
        return
    assert_same_bits(read(write(x=column(NUMBERS))), NUMBERS)


def test_one_column_per_class_is_an_array(write):
    path = write(**{f"c{n}": NUMBERS[:, n] for n in range(5)})
    assert_same_bits(read(path), NUMBERS)


def test_more_axes_are_nested_lists(write):
    array = np.arange(2 * 3 * 4 * 5, dtype="f4").reshape(5, 2, 3, 4)
    assert_same_bits(read(write(x=fixed(array))), array)
    nested = pa.array(array.tolist(), pa.list_(pa.list_(pa.list_(pa.float32()))))
    assert_same_bits(read(write(x=nested)), array)


def test_tensors_of_a_fixed_shape_are_arrays(write):
    array = np.arange(24, dtype="f4").reshape(4, 2, 3)
    kind = pa.fixed_shape_tensor(pa.float32(), [2, 3])
    column = pa.ExtensionArray.from_storage(kind, fixed(array.reshape(4, 6)))
    assert_same_bits(read(write(x=column)), array)


def test_a_tensor_in_another_order_is_an_error(write):
    kind = pa.fixed_shape_tensor(pa.float32(), [2, 3], permutation=[1, 0])
    column = pa.ExtensionArray.from_storage(kind, fixed(np.zeros((4, 6), "f4")))
    with pytest.raises(DtypeError, match="fixed_shape_tensor"):
        read(write(x=column))


DTYPES = ["f2", "f4", "f8", *(f"{kind}{n}" for kind in "iu" for n in (1, 2, 4, 8))]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_kept(dtype, write):
    array = (NUMBERS * 9).astype("i8").astype(dtype)
    assert_same_bits(read(write(x=fixed(array))), array)
    assert_same_bits(read(write(x=array[:, 0], y=array[:, 1])), array[:, :2])
    assert_same_bits(read(write(x=array[:, 0], y=array[:, 1]), key="y"), array[:, 1])


def test_floats_of_several_widths_are_the_widest(write):
    found = read(write(a=NUMBERS[:, 0].astype("f4"), b=NUMBERS[:, 1]))
    expected = np.stack([NUMBERS[:, 0].astype("f4").astype("f8"), NUMBERS[:, 1]], axis=1)
    assert_same_bits(found, expected)


def test_dictionaries_of_integers_are_integers(write):
    column = pa.array(LABELS).dictionary_encode()
    assert_same_bits(read(write(y=column, x=fixed(NUMBERS)), key="y"), LABELS)


def test_sliced_tables_are_those_rows(write):
    for column in (fixed(NUMBERS), lists(NUMBERS), pa.array(LABELS).dictionary_encode()):
        table = pa.table({"x": column}).slice(3, 40)
        whole = LABELS if pa.types.is_dictionary(column.type) else NUMBERS
        assert_same_bits(read(write(table), key="x"), whole[3:43])


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "brotli", "zstd", "lz4"])
@pytest.mark.parametrize("pages", ["1.0", "2.0"])
def test_every_codec_and_version_of_pages_is_read(codec, pages):
    how = {"compression": codec, "data_page_version": pages, "data_page_size": 256}
    for dictionary in (True, False):
        data = parquet(
            pa.table({"x": fixed(NUMBERS), "y": LABELS}), use_dictionary=dictionary, **how
        )
        Path("a.parquet").write_bytes(data)
        assert_same_bits(read("a.parquet", key="x"), NUMBERS)
        assert_same_bits(read("a.parquet", key="y"), LABELS)


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_compressed_record_batches_are_read(codec):
    for layout in (arrow, arrow_stream):
        Path("a.arrow").write_bytes(layout(pa.table({"x": fixed(NUMBERS)}), compression=codec))
        assert_same_bits(read("a.arrow"), NUMBERS)


def test_no_rows_are_an_array_of_no_rows(write):
    assert read(write(x=fixed(NUMBERS)[:0])).shape == (0, 5)
    assert read(write(x=pa.array([], pa.float64()), y=pa.array([], pa.float64()))).shape == (0, 2)
    assert read(write(x=lists(NUMBERS)[:0])).shape == (0, 0)


@pytest.mark.parametrize("rows", [1, 3, 10, 11, 56])
def test_rows_come_in_any_portion(rows, write):
    path = write(x=fixed(NUMBERS), y=LABELS)
    with open_reader(path, ReadOptions(key="x")) as reader:
        found = [reader.read(min(rows, 57 - start) * 5) for start in range(0, 57, rows)]
        reader.finish()
    assert_same_bits(np.concatenate(found), NUMBERS.reshape(-1))


@pytest.mark.parametrize("skipped", [0, 1, 10, 25, 57])
def test_rows_can_be_skipped(skipped, write):
    path = write(x=fixed(NUMBERS))
    with open_reader(path, ReadOptions()) as reader:
        first = reader.read(10) if skipped > 2 else np.empty(0)
        reader.skip(skipped * 5 - first.size)
        rest = reader.read((57 - skipped) * 5)
        reader.finish()
    assert_same_bits(rest, NUMBERS.reshape(-1)[skipped * 5 :])


def test_rows_that_are_left_are_an_error(write):
    with open_reader(write(x=fixed(NUMBERS)), ReadOptions()) as reader:
        reader.read(50)
        with pytest.raises(FormatError, match="more rows follow"):
            reader.finish()


# Which columns


def of_pandas(index):
    """A table as pandas writes a frame whose index has a name, or none."""
    table = pa.table({"a": LOGITS[:, 0], index: [7, 9], "b": LOGITS[:, 1], "c": LOGITS[:, 2]})
    words = f'{{"index_columns": ["{index}"], "pandas_version": "3.1.1"}}'
    return table.replace_schema_metadata({b"pandas": words.encode()})


@pytest.mark.parametrize("index", ["__index_level_0__", "id"])
def test_the_index_of_a_frame_is_left_out_with_a_note(index, write, capfdbinary):
    np.save("t.npy", TARGETS)
    path = write(of_pandas(index))
    assert_same_bits(read(path), LOGITS)
    result = inside(capfdbinary, "loss", path, "t.npy")
    assert float(result.out) == pytest.approx(1.5 * np.log(2))
    assert f"column {index} is the index of a pandas frame" in result.err
    strict = inside(capfdbinary, "loss", path, "t.npy", "--strict")
    assert_error(strict, 1, path, "index of a pandas frame")
    assert list(read(path, key=index)) == [7, 9]


@pytest.mark.parametrize(
    "metadata", [b"{", b"[]", b'{"index_columns": 3}', b'{"index_columns": [{"kind": "range"}]}']
)
def test_without_readable_metadata_an_index_is_a_column(metadata, write):
    table = of_pandas("id").replace_schema_metadata({b"pandas": metadata})
    with pytest.raises(DtypeError, match="column 'id' is int64, column 'a' is double"):
        read(write(table))


def test_integers_beside_floats_are_an_error(write):
    with pytest.raises(DtypeError, match="column 'y' is int64, column 'a' is double"):
        read(write(a=NUMBERS[:, 0], b=NUMBERS[:, 1], y=LABELS))


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a", "b"]),
        pa.array([True, False]),
        pa.array([1, 2], pa.timestamp("s")),
        pa.array([{"a": 1}, {"a": 2}]),
        pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int8())),
        pa.array([1, 2], pa.decimal128(5, 2)),
        pa.array(["a", "b"]).dictionary_encode(),
        pa.array([["a"], ["b"]]),
    ],
    ids=lambda column: str(column.type),
)
def test_columns_of_no_numbers_are_an_error(column, write):
    path = write(x=column)
    with pytest.raises(DtypeError, match=r"\[x\]: type .* is not supported"):
        read(path, key="x")
    with pytest.raises(DtypeError, match="is not supported"):
        read(path)


def test_a_list_beside_other_columns_needs_a_key(write):
    path = write(x=fixed(NUMBERS), y=LABELS)
    with pytest.raises(OptionError, match="holds 2 arrays: x, y"):
        read(path)
    with pytest.raises(OptionError, match="no array 'z'; it holds x, y"):
        read(path, key="z")


def test_two_columns_of_a_name_are_an_error(write):
    table = pa.Table.from_arrays([fixed(NUMBERS), fixed(NUMBERS)], ["x", "x"])
    with pytest.raises(FormatError, match="two columns called 'x'"):
        read(write(table), key="x")


def test_names_with_dots_are_names():
    path = Path("a.parquet")
    path.write_bytes(parquet(pa.table({"a.b": NUMBERS[:, 0], "a": NUMBERS[:, 1]})))
    assert_same_bits(read(str(path), key="a.b"), NUMBERS[:, 0])
    assert_same_bits(read(str(path), key="a"), NUMBERS[:, 1])
    struct = pa.array([{"b": 1.0}] * 57)
    path.write_bytes(parquet(pa.table({"a.b": NUMBERS[:, 0], "a": struct})))
    with pytest.raises(FormatError, match="dots in their names"):
        read(str(path), key="a.b")


def test_columns_are_chosen_dropped_and_named(write):
    named = {f"c{n}": NUMBERS[:, n] for n in range(5)}
    path = write(id=LABELS, **named, y=LABELS)
    for options, columns in {
        ColumnOptions(drop=("id", "y")): [0, 1, 2, 3, 4],
        ColumnOptions(keep=("c*",)): [0, 1, 2, 3, 4],
        ColumnOptions(keep=("c3", "c1")): [3, 1],
        ColumnOptions(keep=("2-4",), drop=("c1",)): [0, 2],
    }.items():
        with open_reader(path, ReadOptions(columns=options)) as reader:
            assert reader.column_names == tuple(f"c{n}" for n in columns)
            assert_same_bits(reader.whole(), NUMBERS[:, columns])
    for options, array in {
        ColumnOptions(keep=("y",)): LABELS[:, None],
        ColumnOptions(keep=("c2",)): NUMBERS[:, 2:3],
    }.items():
        assert_same_bits(read(path, columns=options), array)
    with pytest.raises(OptionError, match="no column 'z'"):
        read(path, columns=ColumnOptions(keep=("z",)))


def test_a_column_of_lists_is_chosen_by_its_name(write):
    path = write(id=LABELS, x=fixed(NUMBERS), z=fixed(-NUMBERS))
    for name, array in (("x", NUMBERS), ("z", -NUMBERS)):
        with open_reader(path, ReadOptions(columns=ColumnOptions(keep=(name,)))) as reader:
            assert reader.column_names == ()
            assert_same_bits(reader.whole(), array)
    with pytest.raises(OptionError, match="holds 2 arrays: x, z"):
        read(path, columns=ColumnOptions(drop=("id",)))
    with pytest.raises(OptionError, match="a key names one array"):
        read(path, key="x", columns=ColumnOptions(keep=("x",)))
    assert_same_bits(read(path, key="x", columns=ColumnOptions(drop=("id",))), NUMBERS)


def test_an_index_can_be_chosen(write):
    path = write(of_pandas("id"))
    assert_same_bits(read(path, columns=ColumnOptions(keep=("id",))), np.array([[7], [9]]))
    assert_same_bits(read(path, columns=ColumnOptions(drop=("b",))), LOGITS[:, [0, 2]])


@pytest.mark.parametrize("kind", ["string", "large_string", "dictionary"])
def test_words_are_looked_up_in_the_names_of_the_classes(kind, write):
    words = ["cat", "dog", "bird"] * 19
    column = pa.array(words, pa.large_string() if kind == "large_string" else pa.string())
    column = column.dictionary_encode() if kind == "dictionary" else column
    path = write(x=fixed(NUMBERS), y=column)
    expected = np.array([2, 0, 1] * 19)
    how = {"class_names": ("dog", "bird", "cat")}
    assert_same_bits(read(path, columns=ColumnOptions(keep=("y",)), **how), expected)
    assert_same_bits(read(path, key="y", **how), expected)
    with pytest.raises(DtypeError, match="names of the classes"):
        read(path, key="y")
    words[40] = "dgo"
    with pytest.raises(FormatError, match=r"\[y\]: row 40: 'dgo' .*did you mean 'dog'"):
        read(write(x=fixed(NUMBERS), y=words), key="y", **how)
    words[40] = None
    with pytest.raises(FormatError, match="row 40 is null"):
        read(write(x=fixed(NUMBERS), y=words), key="y", **how)


# What is wrong


def test_nulls_are_errors_that_name_row_and_column(write):
    numbers = NUMBERS.tolist()
    numbers[23] = None
    # pyarrow before 26 cannot read them from Parquet, and says so in its own words
    with pytest.raises(FormatError, match=r"\[x\]: row 23 is null|all lists to be of size=5"):
        read(write(x=pa.array(numbers, pa.list_(pa.float64(), 5))))
    numbers[23] = [1.0, None, 2.0, 3.0, 4.0]
    for kind in (pa.list_(pa.float64(), 5), pa.list_(pa.float64())):
        with pytest.raises(FormatError, match=r"\[x\]: row 23 is null or holds a null"):
            read(write(x=pa.array(numbers, kind)))
    labels = [*range(40), None, *range(16)]
    for column in (pa.array(labels), pa.array(labels).dictionary_encode()):
        with pytest.raises(FormatError, match=r"\[y\]: row 40 is null"):
            read(write(y=column), key="y")
        with pytest.raises(FormatError, match=r"\[y\]: row 40 is null"):
            read(write(x=labels[:40] * 1 + [1] * 17, y=column))


def test_the_row_of_a_null_counts_from_the_first_row_of_the_file(write):
    numbers = NUMBERS.tolist()
    numbers[23][4] = None
    with open_reader(write(x=pa.array(numbers)), ReadOptions()) as reader:
        reader.skip(50)
        with pytest.raises(FormatError, match="row 23 "):
            reader.read(200)


def test_nested_nulls_are_found(write):
    array = np.arange(24.0).reshape(4, 2, 3).tolist()
    array[3][1][2] = None
    for kind in (pa.list_(pa.list_(pa.float64())), pa.list_(pa.list_(pa.float64(), 3), 2)):
        with pytest.raises(FormatError, match="row 3 is null or holds a null"):
            read(write(x=pa.array(array, kind)))


def test_lists_of_unequal_length_are_errors_that_name_the_row(write):
    numbers = NUMBERS.tolist()
    numbers[23] = [1.0, 2.0]
    for kind in (pa.list_, pa.large_list):
        with pytest.raises(FormatError, match="row 23 has a list of 2, the first row one of 5"):
            read(write(x=pa.array(numbers, kind(pa.float64()))))
    nested = [[[1.0, 2.0]], [[1.0, 2.0]], [[1.0]]]
    with pytest.raises(FormatError, match="row 2 has a list of 1, the first row one of 2"):
        read(write(x=pa.array(nested)))


def test_a_cut_file_is_an_error_at_every_length(write):
    path = Path(write(x=fixed(NUMBERS), y=LABELS))
    data = path.read_bytes()
    for length in [*range(0, len(data), 97), len(data) - 1]:
        path.write_bytes(data[:length])
        if path.name == "b.arrow" and data[length:] in (b"", data[-8:], data[-4:]):
            continue  # the end of a stream may be left out
        with pytest.raises((FormatError, OptionError)):
            read(str(path), key="x")


def test_an_encrypted_or_older_file_is_named():
    Path("a.parquet").write_bytes(b"PARE" + bytes(99))
    with pytest.raises(FormatError, match="encrypted"):
        read("a.parquet")
    Path("a.feather").write_bytes(b"FEA1" + bytes(99))
    with pytest.raises(FormatError, match="version 1"):
        read("a.feather")
    for name in ("a.parquet", "a.arrow"):
        Path(name).write_bytes(b"1,2,3\n")
        with pytest.raises(FormatError, match="not a"):
            read(name)


def test_a_negative_number_of_rows_is_an_error():
    data = arrow(pa.table({"y": LABELS[:10]}))
    rows, negative = (10).to_bytes(8, "little"), (-10).to_bytes(8, "little", signed=True)
    assert data.count(rows) >= 2
    Path("a.arrow").write_bytes(data.replace(rows, negative))
    with pytest.raises(FormatError, match="damaged: it announces -10 rows"):
        read("a.arrow")


def test_no_read_is_longer_than_the_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    with open_source(str(path)) as source:
        file = random_access.RandomAccess(source)
        assert file.read(4) == b"0123"
        assert file.read(1 << 60) == b"456789"
        assert (file.read(5), file.seek(-3, 2), file.seek(1, 1), file.read()) == (b"", 7, 8, b"89")
        buffer = bytearray(6)
        assert (file.seek(7), file.readinto(buffer), buffer) == (7, 3, b"789\0\0\0")
        assert file.tell() == 10


def test_a_file_that_changes_while_it_is_read_is_an_error(write):
    path = write(x=fixed(NUMBERS))
    with open_reader(path, ReadOptions()) as reader:
        reader.read(50)
        with Path(path).open("ab") as file:
            file.write(b"x")
        reader.read(57 * 5 - 50)
        with pytest.raises(FileError, match="changed"):
            reader.finish()


def test_an_error_of_the_disk_is_one_of_the_disk(write, monkeypatch):
    path = write(x=fixed(NUMBERS))
    reads, real = [], random_access.RandomAccess.read

    def failing(self, count=-1):
        reads.append(count)
        if len(reads) == 4:
            raise FileError("a", "reading failed: Input/output error")
        return real(self, count)

    monkeypatch.setattr(random_access.RandomAccess, "read", failing)
    with pytest.raises(FileError, match="Input/output"):
        read(path)


def test_without_pyarrow_the_error_says_how_to_install_it(write, monkeypatch, capfdbinary):
    path = write(x=fixed(LOGITS))
    for module in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UnavailableError):
        read(path)
    result = inside(capfdbinary, "softmax", path)
    assert_error(result, 3, "extra arrow", "pip install 'xentcli[arrow]'")


# The commands


def test_the_targets_are_a_column_of_the_same_table(write, capfdbinary):
    per_class = {name: LOGITS[:, n] for n, name in enumerate("abc")}
    words = ["grad", "FILE", "-f", "npy", "--target-column", "y"]
    for columns, more in (
        ({"y": TARGETS, **per_class}, []),
        ({"id": [1, 2], "y": TARGETS, **per_class}, ["--drop", "id"]),
        ({"id": [1, 2], "y": [*"ab"], **per_class}, ["--columns", "a,b,c"]),
        ({"id": ["x", "z"], "y": TARGETS, "x": fixed(LOGITS)}, ["--key", "x"]),
        ({"y": [*"qr"], "x": fixed(LOGITS)}, ["--key", "x", "--names", "q,r,s"]),
    ):
        path = write(**columns)
        result = inside(capfdbinary, *(path if word == "FILE" else word for word in words), *more)
        assert_done(result)
        np.testing.assert_allclose(from_npy(result.out), GRADIENT, rtol=1e-15)
    error = inside(capfdbinary, "grad", write(y=TARGETS, **per_class), "-f", "npy")
    assert_error(error, 2, "holds 4 arrays: y, a, b, c; none is called logits")


def test_a_table_with_targets_is_no_table_of_logits(write, capfdbinary):
    np.save("t.npy", TARGETS)
    path = write(a=LOGITS[:, 0], b=LOGITS[:, 1], label=TARGETS)
    result = inside(capfdbinary, "grad", path, "t.npy")
    assert_error(result, 1, "column 'label' is int64", "--drop label", "--target-column label")


def test_one_file_holds_logits_and_targets(write, capfdbinary):
    path = write(id=["a", "b"], logits=fixed(LOGITS), labels=TARGETS)
    result = inside(capfdbinary, "grad", path, "-f", "npy")
    assert_done(result)
    np.testing.assert_allclose(from_npy(result.out), GRADIENT, rtol=1e-15)
    named = inside(capfdbinary, "grad", path, path, "--key", "logits", "--target-key", "labels")
    assert_error(named, 2, "--format")


def test_results_of_a_file_that_cannot_be_written(write, capfdbinary):
    np.save("t.npy", TARGETS)
    path = write(x=fixed(LOGITS))
    result = inside(capfdbinary, "grad", path, "t.npy", "-o", "g.npy")
    assert_done(result)
    np.testing.assert_allclose(np.load("g.npy"), GRADIENT, rtol=1e-15)
    suffix = Path(path).suffix
    error = inside(capfdbinary, "grad", path, "t.npy", "-o", f"g{suffix}")
    assert_error(error, 2, f"g{suffix}: cannot write {suffix[1:]}", ".npy")


def test_targets_in_a_file_of_one_column_are_class_indices(write, capfdbinary):
    np.save("l.npy", LOGITS)
    result = inside(capfdbinary, "grad", "l.npy", write(y=TARGETS))
    assert_done(result)
    np.testing.assert_allclose(from_npy(result.out), GRADIENT, rtol=1e-15)


def test_a_pipe_is_read(write, capfdbinary):
    data = Path(write(x=fixed(LOGITS))).read_bytes()
    np.save("t.npy", TARGETS)
    result = inside(capfdbinary, "grad", "-", "t.npy", "-f", "npy", stdin=data)
    assert_done(result)
    np.testing.assert_allclose(from_npy(result.out), GRADIENT, rtol=1e-15)


def test_the_inspection_names_columns_rows_and_metadata(write, capfdbinary):
    table = pa.table({"logits": fixed(LOGITS), "labels": TARGETS, "text": ["a", "b"]})
    path = write(table.replace_schema_metadata({"model": "m\n1"}))
    result = inside(capfdbinary, "inspect", path)
    assert result.code == 0
    lines = result.text.splitlines()
    kind = Path(path).suffix[1:]
    assert lines[0].startswith(f"{path}[logits]: (2, 3) float64, {kind}")
    assert lines[1].startswith(f"{path}[labels]: (2,) int64, {kind}")
    assert lines[2].startswith(f"{path}[text]: (2,) string, {kind}")
    assert r"model=m\n1" in lines[0]
    about = strict_json(inside(capfdbinary, "inspect", path, "--json", "--stats").text)["arrays"]
    assert about[1]["max"] == 1
    assert "max" not in about[2]


def test_the_inspection_of_one_column_per_class_is_of_one_array(write, capfdbinary):
    path = write(a=LOGITS[:, 0], b=LOGITS[:, 1])
    result = inside(capfdbinary, "inspect", path, "--stats")
    assert result.text.startswith(f"{path}: (2, 2) float64, ")
    assert "min 0, max 0.693147181" in result.text
    mixed = write(a=LOGITS[:, 0], y=TARGETS, text=["a", "b"])
    result = inside(capfdbinary, "inspect", mixed)
    assert result.text.startswith(f"{mixed}: (2, 3) double and int64 and string")


def test_the_inspection_shows_the_columns_that_are_chosen(write, capfdbinary):
    path = write(y=TARGETS, a=LOGITS[:, 0], b=LOGITS[:, 1], text=["a", "b"])
    for options in (["--drop", "y,text"], ["--columns", "a,b"], ["--columns", "2-3"]):
        result = inside(capfdbinary, "inspect", path, "--stats", *options)
        assert result.text.startswith(f"{path}: (2, 2) float64, "), result.err
        assert "min 0, max 0.693147181" in result.text
    lists = write(logits=fixed(LOGITS), y=TARGETS)
    result = inside(capfdbinary, "inspect", lists, "--drop", "y")
    assert result.text.startswith(f"{lists}[logits]: (2, 3) float64")
    assert len(result.text.splitlines()) == 1


def test_the_hint_for_a_column_of_words_is_the_option_of_that_input(write, capfdbinary):
    path = write(a=LOGITS[:, 0], b=LOGITS[:, 1], text=["a", "b"])
    np.save("l.npy", LOGITS)
    np.save("t.npy", TARGETS)
    logits = inside(capfdbinary, "loss", path, "t.npy")
    assert_error(logits, 1, "[text]: type", "--drop text leaves it out")
    targets = inside(capfdbinary, "loss", "l.npy", path)
    assert_error(targets, 1, "[text]: type", "--target-drop text leaves it out")
    weights = inside(capfdbinary, "loss", "l.npy", "t.npy", "--sample-weight", path)
    assert_error(weights, 1, "[text]: type")
    assert "--drop" not in weights.err
    mixed = write(a=LOGITS[:, 0], y=TARGETS)
    targets = inside(capfdbinary, "loss", "l.npy", mixed)
    assert_error(targets, 1, "column 'y' is int64", "--target-drop y leaves it out")
