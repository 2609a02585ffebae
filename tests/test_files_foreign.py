"""Files that people have and xent does not read: what they are is said, and how to convert them."""

import io
import pickle
import zipfile

import numpy as np
import pytest
from cli import assert_error, inside, npy


def spreadsheet():
    """The beginning of what spreadsheet programs write: a zip of XML."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("xl/worksheets/sheet1.xml", "<worksheet/>")
    return data.getvalue()


FILES = {
    "l.xlsx": (spreadsheet(), ["spreadsheet", "CSV"]),
    "l.mat": (b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + bytes(99), ["MATLAB", "loadmat"]),
    "l.gguf": (b"GGUF\3\0\0\0" + bytes(99), ["GGUF"]),
    "l.png": (b"\x89PNG\r\n\x1a\n" + bytes(99), ["PNG"]),
    "l.pth": (pickle.dumps([1], 2), ["pickle", "numpy.save"]),
    "l.pkl": (pickle.dumps([1]), ["pickle", "numpy.save"]),
    "new.mat": (b"MATLAB 7.3 MAT-file, Platform: GLNXA64" + bytes(99), ["MATLAB", "h5py"]),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("command", [["grad", "FILE", "t.npy"], ["inspect", "FILE"]])
def test_a_foreign_file_is_named(command, name, files, capfdbinary):
    data, words = FILES[name]
    (files / name).write_bytes(data)
    arguments = [name if word == "FILE" else word for word in command]
    assert_error(inside(capfdbinary, *arguments), 1, name, *words)


@pytest.mark.parametrize("name", FILES)
def test_a_foreign_stream_is_named(name, files, capfdbinary):
    data, words = FILES[name]
    assert_error(inside(capfdbinary, "softmax", "-", stdin=data), 1, "<stdin>", *words)


def test_a_pickle_under_another_name_is_named_too(files, capfdbinary):
    (files / "a.npy").write_bytes(pickle.dumps([1]))
    assert_error(inside(capfdbinary, "softmax", "a.npy"), 1, "a.npy", "pickle")


def test_text_that_only_looks_like_a_foreign_file_is_read(files, capfdbinary):
    (files / "a").write_bytes(npy(np.zeros((2, 3))))
    assert inside(capfdbinary, "softmax", "a").code == 0
    assert inside(capfdbinary, "softmax", "-", stdin=b"1,2,3\n").code == 0
