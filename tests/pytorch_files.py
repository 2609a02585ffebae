"""PyTorch files that no PyTorch has written: any view of any storage, in a pickle made by hand."""

import io
import struct
import zipfile


def value(x):
    """The instructions that put a value on the stack."""
    if isinstance(x, bool):
        return b"\x88" if x else b"\x89"
    if isinstance(x, int):
        data = x.to_bytes(10, "little", signed=True)
        return b"\x8a\x0a" + data
    if isinstance(x, str):
        data = x.encode()
        return b"X" + struct.pack("<I", len(data)) + data
    return b"(" + b"".join(map(value, x)) + b"t"


def pickled(storage, offset, shape, strides):
    """The pickle of one tensor."""
    kind, key, count = storage
    reference = b"(" + value("storage") + b"ctorch\n" + kind.encode() + b"\n" + value(key)
    reference += value("cpu") + value(count) + b"tQ"
    hooks = b"ccollections\nOrderedDict\n)R"
    inner = reference + value(offset) + value(shape) + value(strides) + value(False) + hooks
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + inner + b"tR."


KINDS = {"f4": "FloatStorage", "f8": "DoubleStorage"}


def pytorch(array, **changes):
    """The members of a file with one tensor, and changes of what its pickle says."""
    strides = tuple(stride // array.itemsize for stride in array.strides)
    kind = KINDS[array.dtype.str[1:]]
    told = {"storage": (kind, "0", array.size), "offset": 0, "shape": array.shape}
    told |= {"strides": strides} | changes
    return {"a/data.pkl": pickled(**told), "a/byteorder": b"little", "a/data/0": array.tobytes()}


def repacked(members, compression=zipfile.ZIP_STORED):
    """A zip of members."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()
