"""Formats that are recognised and not read: an error says what the file is and how to convert it.

To read one of them is to give its entry the functions of `format.Format`.
"""

from __future__ import annotations

from xentcli.errors import FormatError
from xentcli.files.format import Format, starts_with


def _is_pickle(start: bytes) -> bool:
    return start[:1] == b"\x80" and b"\x02" <= start[1:2] <= b"\x05"


PICKLE = Format(
    "pickle",
    matches=_is_pickle,
    description="a pickle, which can run any code when it is opened, so xent never opens one",
    convert="in Python: numpy.save('logits.npy', array)",
)
PYTORCH_CONVERT = "in Python: numpy.save('logits.npy', torch.load('FILE').float().numpy())"
OLD_PYTORCH = Format(
    "old-pytorch",
    matches=starts_with(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8"),
    description="a PyTorch file in the format before version 1.6, which is one pickle",
    convert="in Python, with a newer PyTorch: torch.save(torch.load('FILE'), 'NEW.pt')",
)
SPREADSHEET = Format(  # a zip: recognised by its members
    "xlsx",
    description="a spreadsheet",
    convert="save the sheet as CSV",
)
FOREIGN = (
    SPREADSHEET,
    Format(
        "mat",
        matches=starts_with(b"MATLAB 5.0 M"),
        description="a MATLAB file",
        convert="in Python: numpy.save('logits.npy', scipy.io.loadmat('FILE')['NAME'])",
    ),
    Format(  # HDF5 with all axes in reverse order
        "mat73",
        matches=starts_with(b"MATLAB 7.3 M"),
        description="a MATLAB file of version 7.3",
        convert="in Python: numpy.save('logits.npy', h5py.File('FILE')['NAME'][:].T)",
    ),
    Format(
        "gguf",
        matches=starts_with(b"GGUF"),
        description="a GGUF file, which holds a model and no logits",
        convert="write logits with llama.cpp, and read them as raw numbers",
    ),
    Format(
        "image",
        matches=starts_with(b"\x89PNG\r\n\x1a\n"),
        description="a PNG image",
        convert="write the numbers with numpy.save",
    ),
    OLD_PYTORCH,
    PICKLE,
)


def refusal(format: Format, where: str) -> FormatError:
    """The error for a file of a format that is recognised and cannot be read."""
    return FormatError(where, f"this is {format.description or format.name}", format.convert)


def refuse_archive(names: list[str], where: str) -> None:
    """An error for a zip of other programs, by the names of its members."""
    if "[Content_Types].xml" in names:
        raise refusal(SPREADSHEET, where)
    if any(name.endswith("data.pkl") for name in names):
        raise FormatError(where, "this is a PyTorch file", "read it with the format pt")
