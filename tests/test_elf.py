"""Object files put into memory without LLVM: what that covers, and that LLVM takes the rest."""

import sys

import numpy as np
import pytest
from llvmlite import binding
from test_architecture import loaded_by

from xentcli import cross_entropy
from xentcli.backends.cpu import elf, kept, llvm, loader

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or binding.get_process_triple().split("-")[0] != "x86_64",
    reason="for x86-64 on Linux",
)

NOTHING = "define i32 @f(ptr %r, ptr %e, ptr %x) { ret i32 0 }"
CONSTANT = """
@table = constant [4 x i32] [i32 1, i32 2, i32 3, i32 4], align 64
define i32 @g(i64 %i) noinline {
    %p = getelementptr [4 x i32], ptr @table, i64 0, i64 %i
    %v = load i32, ptr %p
    ret i32 %v
}
define i32 @f(ptr %r, ptr %e, ptr %x) {
    %v = call i32 @g(i64 2)
    store i32 %v, ptr %x
    ret i32 0
}
"""
VARIABLE = """
@count = global i32 3
define i32 @f(ptr %r, ptr %e, ptr %x) {
    %v = load i32, ptr @count
    store i32 %v, ptr %x
    ret i32 0
}
"""
FOREIGN = """
declare i64 @labs(i64)
define i32 @f(ptr %r, ptr %e, ptr %x) {
    %v = call i64 @labs(i64 -3)
    store i64 %v, ptr %x
    ret i32 0
}
"""


def object_code(source, model="large"):
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    target = binding.Target.from_default_triple()
    machine = target.create_target_machine(jit=True, codemodel=model, reloc="static")
    return machine.emit_object(binding.parse_assembly(source))


def outcome(code):
    """What the function writes."""
    x = np.zeros(1, "i8")
    loader.MachineCode("f", code)(x.__array_interface__["data"][0])
    return x[0]


@pytest.fixture
def without_llvm(monkeypatch):
    def refuse(*_):
        raise AssertionError("LLVM has been asked")

    monkeypatch.setattr(llvm, "link", refuse)


def test_code_that_refers_to_its_own_parts_needs_no_llvm(without_llvm):
    assert outcome(object_code(CONSTANT)) == 3
    assert outcome(object_code(NOTHING)) == 0


@pytest.mark.parametrize(
    ("source", "model"),
    [(VARIABLE, "large"), (FOREIGN, "large"), (CONSTANT, "small")],
    ids=["a variable", "a foreign function", "addresses of 32 bits"],
)
def test_llvm_takes_the_rest(source, model):
    code = object_code(source, model)
    with pytest.raises(elf.NeedsLinkerError):
        elf.link(code, "f")
    assert outcome(code) == 3


def test_a_function_that_is_not_there():
    for name in ("no", "tabl", "able"):
        with pytest.raises(elf.NeedsLinkerError):
            elf.link(object_code(CONSTANT), name)


def test_a_kernel_gives_the_same_bits_either_way(monkeypatch, rng):
    x, y = rng.normal(size=(7, 300)).astype("f4"), np.arange(7)
    results = []
    for link in (elf.link, llvm.link):
        monkeypatch.setattr(loader, "_link", lambda symbol, code, link=link: link(code, symbol))
        monkeypatch.setattr(kept, "_loaded", {})
        results.append(cross_entropy(x, y, backend="cpu", reduction="none"))
    ours, by_llvm = results
    assert ours.grad.tobytes() == by_llvm.grad.tobytes()
    assert ours.loss.tobytes() == by_llvm.loss.tobytes()


def test_a_command_loads_no_llvm_where_its_kernel_is_kept(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((100, 10), "f4"))
    np.save(tmp_path / "y.npy", np.zeros(100, "i8"))
    code = "from xentcli.cli import main; main()"
    files = [str(tmp_path / name) for name in ("x.npy", "y.npy", "g.npy")]
    arguments = ["grad", *files[:2], "-q", "-o", files[2]]
    loaded_by(code, *arguments)
    loaded = loaded_by(code, *arguments)
    assert "xentcli.backends.cpu.elf" in loaded
    assert not loaded & {"llvmlite.binding", "numba", "rich", "json", "difflib", "tempfile"}


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("", ()),
        ("processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd\nCPU part\t: 0xd0c\n", ()),
        ("model\t: 1\n\nmodel\t: 2\n", ("model: 1",)),
    ],
)
def test_what_tells_processors_apart(text, known):
    assert loader.identity(text.splitlines()) == known


def test_llvm_is_asked_where_linux_does_not_say(monkeypatch, tmp_path):
    path = tmp_path / "cpuinfo"
    for text in (None, "Features\t: fp asimd\n", b"\xff\xfe"):
        if text is not None:
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        monkeypatch.setattr(loader, "CPU_INFO", path)
        assert loader.processor() == llvm.processor()
    monkeypatch.undo()
    assert loader.processor() != llvm.processor()
    assert any(line.startswith("flags: ") for line in loader.processor())
