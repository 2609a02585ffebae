""".npz archives, and JSON, which has no NaN."""

import io
import json
import struct
import warnings
import zipfile

import numpy as np
import pytest
from cli import (
    GRADIENT,
    LOGITS,
    LOSSES,
    PROBABILITIES,
    TARGETS,
    assert_done,
    assert_error,
    assert_unchanged,
    contents,
    described,
    from_npy,
    inside,
    npy,
    run,
    strict_json,
)
from helpers import assert_same_bits


@pytest.fixture
def archive(tmp_path):
    """Logits `x` and `half`, targets `y`."""
    path = tmp_path / "batch.npz"
    np.savez(path, x=LOGITS, half=LOGITS.astype("f2"), y=TARGETS)
    return path


def test_keys_choose_arrays_of_one_archive(archive, capfdbinary):
    result = inside(
        capfdbinary, "grad", archive, archive, "--key", "x", "--target-key", "y", "-f", "npy"
    )
    assert_done(result)
    np.testing.assert_allclose(from_npy(result.out), GRADIENT, rtol=1e-15)


def test_an_archive_gives_an_archive(archive, capfdbinary):
    result = inside(capfdbinary, "grad", archive, archive, "--key", "x", "--target-key", "y")
    assert_done(result)
    with np.load(io.BytesIO(result.out)) as written:
        assert len(written.files) == 1
        np.testing.assert_allclose(written[written.files[0]], GRADIENT, rtol=1e-15)


def test_the_only_array_needs_no_key(tmp_path, capfdbinary):
    np.savez(tmp_path / "l.npz", anything=LOGITS)
    np.savez_compressed(tmp_path / "t.npz", other=TARGETS)
    paths = tmp_path / "l.npz", tmp_path / "t.npz"
    result = inside(capfdbinary, "grad", *paths, "-f", "npy")
    assert_done(result)
    np.testing.assert_allclose(from_npy(result.out), GRADIENT, rtol=1e-15)


def test_a_written_archive_is_read_again(tmp_path, capfdbinary):
    np.save(tmp_path / "l.npy", LOGITS)
    first, second = tmp_path / "a.npz", tmp_path / "b.npy"
    assert_done(inside(capfdbinary, "softmax", tmp_path / "l.npy", "-o", first))
    assert inside(capfdbinary, "softmax", first, "-o", second, "-q").code == 0
    inner = np.exp(PROBABILITIES)
    expected = inner / inner.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.load(second), expected, rtol=1e-15)


def test_without_a_key_the_error_lists_the_arrays(archive, tmp_path, capfdbinary):
    np.save(tmp_path / "t.npy", TARGETS)
    result = inside(capfdbinary, "grad", archive, tmp_path / "t.npy")
    assert_error(result, 2, archive, "3 arrays", "x", "half", "y", "--key")


def test_the_missing_key_of_the_targets_names_its_own_option(archive, tmp_path, capfdbinary):
    np.save(tmp_path / "l.npy", LOGITS)
    result = inside(capfdbinary, "grad", tmp_path / "l.npy", archive)
    assert_error(result, 2, archive, "--target-key")


def test_an_unknown_key_is_an_error_that_lists_the_arrays(archive, capfdbinary):
    result = inside(capfdbinary, "softmax", archive, "--key", "z\x1b[31m")
    assert_error(result, 2, archive, r"\x1b[31m", "x", "half", "y")


def test_an_archive_is_read_from_a_pipe(archive, capfdbinary):
    options = "--key", "x", "-f", "npy"
    result = inside(capfdbinary, "softmax", "-", *options, stdin=archive.read_bytes())
    assert_done(result)
    np.testing.assert_allclose(from_npy(result.out), PROBABILITIES, rtol=1e-15)


def zipped(**members):
    """An archive of members as they are, deflated."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(f"{name}.npy", data)
    return stream.getvalue()


def stored(data, declared):
    """An archive whose only member `a.npy` claims to have `declared` bytes."""
    name = b"a.npy"
    extra = struct.pack("<HHQQ", 1, 16, declared, len(data))
    sizes = struct.pack("<II", 0xFFFFFFFF, 0xFFFFFFFF)
    crc = struct.pack("<I", zipfile.crc32(data))
    common = struct.pack("<HHHHH", 45, 0, 0, 0, 0x21) + crc + sizes
    lengths = struct.pack("<HH", len(name), len(extra))
    local = b"PK\x03\x04" + common + lengths + name + extra + data
    central = b"PK\x01\x02" + struct.pack("<H", 45) + common + lengths
    central += struct.pack("<HHHII", 0, 0, 0, 0, 0) + name + extra
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local), 0)
    return local + central + end


GOOD = npy(LOGITS)
PETABYTE = described(shape="(1000000000000, 125)")


def damaged(data):
    """The archive with a byte of its member's data changed."""
    middle = 30 + len("a.npy") + 20 + len(GOOD) - 4
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


HOSTILE = {
    "not-a-zip": b"PK\x03\x04" + bytes(100),
    "empty": b"",
    "an-npy-file": GOOD,
    "truncated": zipped(a=GOOD)[:-30],
    "no-arrays": b"PK\x05\x06" + bytes(18),
    "a-member-that-is-no-array": zipped(a=b"1,2\n3,4\n"),
    "an-empty-member": zipped(a=b""),
    "B4-bomb-behind-a-small-array": zipped(a=GOOD + bytes(10**7)),
    "B4-bomb-of-a-header": zipped(a=PETABYTE),
    "B4-declared-as-a-petabyte": stored(PETABYTE, len(PETABYTE) + 10**15),
    "B4-declared-as-3-GB": stored(
        described(shape="(3000000000,)", descr="'|u1'"), 128 + 3_000_000_000
    ),
    "wrong-checksum": damaged(stored(GOOD, len(GOOD))),
    "pickled-member": zipped(a=described(descr="'|O'", shape="(1,)", data=b"\x80\x04N.")),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_broken_archive_is_one_error(data, tmp_path, capfdbinary):
    logits, targets = tmp_path / "l.npz", tmp_path / "t.npy"
    logits.write_bytes(data)
    np.save(targets, TARGETS)
    before = contents(tmp_path)
    result = inside(capfdbinary, "grad", logits, targets, "-o", tmp_path / "g.npy")
    code = 2 if data == HOSTILE["no-arrays"] else 1  # there is no array to choose
    assert_error(result, code, logits)
    assert_unchanged(tmp_path, before)


@pytest.mark.parametrize("name", [name for name in HOSTILE if name.startswith("B4")])
def test_a_bomb_is_one_error_in_little_memory(name, tmp_path):
    (tmp_path / "l.npz").write_bytes(HOSTILE[name])
    result = run("softmax", "l.npz", cwd=tmp_path, memory=2_000_000_000)
    assert_error(result, 1, "l.npz")


def test_the_forged_archives_are_right_but_for_their_size(tmp_path, capfdbinary):
    path = tmp_path / "l.npz"
    path.write_bytes(stored(GOOD, len(GOOD)))
    assert_done(inside(capfdbinary, "softmax", path))


def test_an_encrypted_archive_is_one_error(tmp_path, capfdbinary):
    data = bytearray(stored(GOOD, len(GOOD)))
    central = data.index(b"PK\x01\x02")
    data[6] |= 1
    data[central + 8] |= 1
    path = tmp_path / "l.npz"
    path.write_bytes(data)
    assert_error(inside(capfdbinary, "softmax", path), 1, path)


@pytest.mark.parametrize("options", [[], ["--key", "a"], ["--key", "b"]], ids=str)
@pytest.mark.parametrize("second", ["a.npy", "a"], ids=["same name", "without the suffix"])
def test_two_arrays_of_one_name_are_an_error(second, options, tmp_path, capfdbinary):
    """Each reader takes another one of them, and --key cannot say which."""
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the names
        for name, array in (("a.npy", LOGITS), ("b.npy", LOGITS), (second, 2 * LOGITS)):
            file.writestr(name, npy(array))
    for command in ("softmax", "inspect"):
        result = inside(capfdbinary, command, path, *options)
        assert_error(result, 1, "a.npz: holds two arrays called 'a'")
        assert "--key" not in result.err


def test_an_array_without_the_suffix_in_its_name_is_seen(tmp_path, capfdbinary):
    """Else the other one, the targets, would be the only array, and be taken for the logits."""
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as file:
        for name, data in (("logits", npy(LOGITS)), ("t.npy", npy(TARGETS)), ("notes", b"x")):
            file.writestr(name, data)
    assert_error(inside(capfdbinary, "softmax", path), 2, "holds 2 arrays: logits, t")
    result = inside(capfdbinary, "softmax", path, "--key", "logits", "-f", "npy")
    assert_done(result)
    np.testing.assert_allclose(from_npy(result.out), PROBABILITIES, rtol=1e-15)


def test_inspect_shows_every_member(archive, capfdbinary):
    result = inside(capfdbinary, "inspect", archive)
    lines = result.text.splitlines()
    assert result.code == 0
    assert [line.partition(": ")[0] for line in lines] == [
        f"{archive}[{name}]" for name in ("x", "half", "y")
    ]
    assert "(2, 3) float16" in lines[1]


def test_json_of_an_array_is_strict(tmp_path, capfdbinary):
    np.save(tmp_path / "l.npy", LOGITS)
    result = inside(capfdbinary, "softmax", tmp_path / "l.npy", "-f", "json")
    assert_done(result)
    value = strict_json(result.out)
    assert value.keys() == {"shape", "dtype", "nonfinite", "data"}
    assert (value["shape"], value["dtype"], value["nonfinite"]) == ([2, 3], "float64", 0)
    np.testing.assert_allclose(value["data"], PROBABILITIES, rtol=1e-15)


def test_json_has_null_and_a_count_where_numbers_are_not_finite(tmp_path, capfdbinary):
    logits = np.array([[0.0, np.nan], [0.0, 0.0], [0.0, -np.inf]])
    np.save(tmp_path / "l.npy", logits)
    result = inside(capfdbinary, "softmax", tmp_path / "l.npy", "--log", "-f", "json")
    value = strict_json(result.out)
    assert value["nonfinite"] == 3
    assert value["data"][0] == [None, None]
    assert value["data"][2] == [0.0, None]
    assert None not in value["data"][1]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_json_numbers_give_the_same_bits(dtype, rng):
    from xentcli.files.opening import save
    from xentcli.files.options import WriteOptions

    array = rng.standard_normal((30, 4)).astype(dtype) * np.array(1e-6, dtype)
    stream = io.BytesIO()
    save(stream, array, WriteOptions("json"))
    value = strict_json(stream.getvalue())
    assert_same_bits(np.array(value["data"]).astype(dtype), array)
    assert value["dtype"] == array.dtype.name


def test_json_numbers_of_float32_are_short(tmp_path, capfdbinary):
    np.save(tmp_path / "l.npy", np.zeros((1, 3), "f4"))
    result = inside(capfdbinary, "softmax", tmp_path / "l.npy", "-f", "json")
    assert b"0.33333334, " in result.out


def test_decimals_round_json_too(tmp_path, capfdbinary):
    np.save(tmp_path / "l.npy", np.zeros((1, 3)))
    result = inside(capfdbinary, "softmax", tmp_path / "l.npy", "-f", "json", "--decimals", 3)
    assert strict_json(result.out)["data"] == [[0.333, 0.333, 0.333]]


LOSS_KEYS = {
    "loss", "nonfinite", "reduction", "rows", "ignored", "backend", "seconds", "notes",
}  # fmt: skip


@pytest.fixture
def pair(tmp_path):
    """Paths of logits and targets."""
    paths = tmp_path / "l.npy", tmp_path / "t.npy"
    np.save(paths[0], LOGITS)
    np.save(paths[1], TARGETS)
    return paths


def test_loss_json_is_one_object(pair, capfdbinary):
    result = inside(capfdbinary, "loss", *pair, "--json", "-q")
    value = strict_json(result.out)
    assert value.keys() == LOSS_KEYS
    assert value["loss"] == pytest.approx(LOSSES.mean(), rel=1e-15)
    assert (value["reduction"], value["rows"], value["ignored"]) == ("mean", 2, 0)
    assert (value["nonfinite"], value["notes"], value["backend"]) == (0, [], "numpy")


def test_loss_json_has_one_loss_per_row(pair, capfdbinary):
    result = inside(capfdbinary, "loss", *pair, "--json", "-q", "--reduction", "none")
    np.testing.assert_allclose(strict_json(result.out)["loss"], LOSSES, rtol=1e-15)


def test_loss_json_counts_what_is_not_finite(pair, capfdbinary):
    np.save(pair[0], [[0.0, np.nan, 0.0], [0.0, -np.inf, 0.0]])
    result = inside(capfdbinary, "loss", *pair, "--json", "-q", "--reduction", "none")
    value = strict_json(result.out)
    assert (value["loss"], value["nonfinite"]) == ([None, None], 2)
    assert value["notes"]


def test_grad_json_is_one_object_beside_the_file(pair, tmp_path, capfdbinary):
    output = tmp_path / "g.npy"
    result = inside(capfdbinary, "grad", *pair, "--json", "-q", "-o", output)
    value = strict_json(result.out)
    assert value.keys() == LOSS_KEYS | {"grad"}
    assert value["grad"] == {"path": str(output), "shape": [2, 3], "dtype": "float64"}
    np.testing.assert_allclose(np.load(output), GRADIENT, rtol=1e-15)


@pytest.mark.parametrize("where", [[], ["-o", "-"]])
@pytest.mark.parametrize("command", ["grad", "softmax"])
def test_json_and_the_array_cannot_both_be_standard_output(command, where, pair, capfdbinary):
    paths = pair if command == "grad" else pair[:1]
    result = inside(capfdbinary, command, *paths, "--json", *where)
    assert_error(result, 2, "--json", "-o FILE")


def test_softmax_json_says_where_the_array_went(pair, tmp_path, capfdbinary):
    output = tmp_path / "p.npy"
    value = strict_json(inside(capfdbinary, "softmax", pair[0], "--json", "-q", "-o", output).out)
    assert value["softmax"] == {"path": str(output), "shape": [2, 3], "dtype": "float64"}


@pytest.mark.parametrize("data", ["NaN", '{"a": Infinity}'])
def test_strict_json_fails_on_what_is_not_json(data):
    assert json.loads(data) is not None
    with pytest.raises(AssertionError, match="is not JSON"):
        strict_json(data + "\n")


@pytest.mark.parametrize("data", ["[1]\n", '{"a": 1}', '{"a": 1}\n{"b": 1}\n', '{"a":\n1}\n'])
def test_strict_json_fails_on_anything_but_one_object_on_one_line(data):
    with pytest.raises((AssertionError, json.JSONDecodeError)):
        strict_json(data)
