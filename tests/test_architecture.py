"""The architecture is kept: who imports what, what is loaded when, how long things are."""

import ast
import re
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest

import xentcli
from xentcli.files.opening import save
from xentcli.files.options import WriteOptions

PACKAGE = Path(xentcli.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# Lower layers first, by wildcard: a new module of any of these folders has its place already. A
# module may import from earlier layers, and from its own folder.
LAYERS = [
    ("errors", "records", "signals"),
    ("options",),
    ("arrays",),
    ("backends", "files"),
    ("engine",),
    ("display",),
    ("explain", "check", "report"),
    ("dask",),
    ("examples", "bench"),
    ("cli",),
    ("__main__",),
]

# Where a library may be imported.
ONLY_IN = {
    "numba": ("xentcli.backends.cpu.*", "xentcli.backends.cuda.*"),
    "llvmlite": ("xentcli.backends.cpu.*", "xentcli.backends.cuda.*"),
    "rich": ("xentcli.display.*", "xentcli.cli.*"),
    "click": ("xentcli.cli.*",),
    "dask": ("xentcli.dask.*",),
    "distributed": ("xentcli.dask.*",),
}

# What must not import what, beyond the layers, and why.
STRANGERS = [
    ("xentcli.backends.reference.*", "xentcli.backends.c[pu]*", "the reference shares no formula"),
    ("xentcli.backends.c[pu]*", "xentcli.backends.reference.*", "the kernels share no formula"),
    ("xentcli.check.oracles.*", "xentcli.backends.c[pu]*", "the oracles share no formula"),
    ("xentcli.backends.reference.*", "xentcli.backends.elementary.*", "nor a constant of exp"),
    ("xentcli.check.oracles.*", "xentcli.backends.elementary.*", "nor a constant of exp"),
    ("xentcli.backends.reference_statistics.*", "xentcli.backends.c[pu]*", "no shared formula"),
    ("xentcli.backends.c[pu]*", "xentcli.backends.reference_statistics.*", "no shared formula"),
    ("xentcli.backends.reference_divergence.*", "xentcli.backends.c[pu]*", "no shared formula"),
    ("xentcli.backends.c[pu]*", "xentcli.backends.reference_divergence.*", "no shared formula"),
    ("xentcli.backends.reference_te*", "xentcli.backends.c[pu]*", "no shared formula"),
    ("xentcli.backends.c[pu]*", "xentcli.backends.reference_te*", "no shared formula"),
    ("xentcli.display.*", "xentcli.engine.*", "what draws computes nothing"),
    ("xentcli.display.*", "xentcli.arrays.*", "what draws computes nothing"),
    ("xentcli.display.*", "xentcli.backends.*", "what draws computes nothing"),
]


def name_of(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def imports_of(tree):
    """Every module that a file names in an import, those inside functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def folder_of(name):
    """The folder or module right below `xentcli`."""
    return name.split(".")[1] if name.startswith("xentcli.") else None


def layer_of(name):
    """The number of a module's layer, or None."""
    for number, layer in enumerate(LAYERS):
        if folder_of(name) in layer:
            return number
    return None


def matches(name, pattern):
    """Whether a module is, or lies below, what a pattern like `xentcli.cli.*` names."""
    return fnmatchcase(f"{name}.", pattern)


def forbidden(name, imported):
    """Why a module may not import another, or None."""
    homes = ONLY_IN.get(imported.split(".")[0])
    if homes and not any(matches(name, home) for home in homes):
        return f"only {', '.join(homes)} may import it"
    for one, other, why in STRANGERS:
        if matches(name, one) and matches(imported, other):
            return why
    mine, theirs = layer_of(name), layer_of(imported)
    if mine is None or theirs is None or folder_of(name) == folder_of(imported):
        return None
    return "imports go down only" if theirs >= mine else None


def test_every_module_has_a_layer():
    known = {"xentcli"} | {name_of(path) for path in MODULES if layer_of(name_of(path)) is not None}
    assert {name_of(path) for path in MODULES} == known


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_down_only(path):
    tree = ast.parse(path.read_text())
    name = name_of(path)
    if name != "xentcli":
        reasons = {i: forbidden(name, i) for i in imports_of(tree) if forbidden(name, i)}
        assert not reasons


FORBIDDEN = [
    ("xentcli.engine.cross_entropy", "rich.table"),
    ("xentcli.engine.cross_entropy", "numba"),
    ("xentcli.engine.cross_entropy", "xentcli.check"),
    ("xentcli.options", "xentcli.engine.cross_entropy"),
    ("xentcli.backends.cpu.backend", "xentcli.files.npy"),
    ("xentcli.files.npy", "xentcli.backends"),
    ("xentcli.backends.reference", "xentcli.backends.cpu.long_rows"),
    ("xentcli.backends.cpu.long_rows", "xentcli.backends.reference"),
    ("xentcli.backends.cuda.long_rows", "xentcli.backends.reference"),
    ("xentcli.check.oracles.double_double", "xentcli.backends.cpu.arithmetic"),
    ("xentcli.backends.reference", "xentcli.backends.elementary"),
    ("xentcli.display.plain", "xentcli.explain"),
    ("xentcli.display.html", "xentcli.arrays.sums"),
    ("xentcli.display.html", "xentcli.engine.result"),
    ("xentcli.explain.steps", "rich.table"),
    ("xentcli.bench", "click"),
    ("xentcli.cli.grad", "dask.array"),
    ("xentcli.report.api", "xentcli.dask.rows"),
]
ALLOWED = [
    ("xentcli.display.plain", "xentcli.display.document"),
    ("xentcli.engine.cross_entropy", "xentcli.backends"),
    ("xentcli.backends.cpu.a_new_kernel", "numba"),
    ("xentcli.dask.rows", "dask.array"),
    ("xentcli.dask.report", "xentcli.report.totals"),
]


@pytest.mark.parametrize(("name", "imported"), FORBIDDEN)
def test_the_check_of_imports_can_fail(name, imported):
    assert forbidden(name, imported)


@pytest.mark.parametrize(("name", "imported"), ALLOWED)
def test_the_check_of_imports_lets_pass_what_it_should(name, imported):
    assert not forbidden(name, imported)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_print_is_called_nowhere(path):
    calls = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
    ]
    assert not calls


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_and_functions_stay_small(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 300
    limit = 60 if "backends" in path.parts else 25
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert length(node) <= limit, f"{node.name} has {length(node)} lines of code"


def length(function):
    """Lines of code of a function's body, without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def loaded_by(code, *arguments):
    """The modules that a fresh process has loaded after some code."""
    tell = "print(*sys.modules, file=sys.__stderr__)"
    script = f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\n{tell}"
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return {*done.stderr.splitlines()[-1].split()}


@pytest.mark.parametrize(
    "arguments", [["--help"], ["grad", "--help"], ["check", "--help"], ["--version"]], ids=str
)
def test_help_loads_nothing_heavy(arguments):
    loaded = loaded_by("from xentcli.cli import main; main()", *arguments)
    assert "click" in loaded
    assert not loaded & {"numpy", "numba", "rich", "dask", "distributed"}


def test_importing_the_package_loads_nothing_heavy():
    assert not loaded_by("import xentcli") & {"numpy", "numba", "rich", "click"}
    assert not loaded_by("from xentcli import cross_entropy") & {"numba", "rich", "click"}


def test_a_small_job_does_not_start_numba(tmp_path):
    (tmp_path / "x.csv").write_text("1,2,3\n")
    (tmp_path / "y.csv").write_text("0\n")
    files = [str(tmp_path / name) for name in ("x.csv", "y.csv", "g.csv")]
    code = "from xentcli.cli import main; main()"
    loaded = loaded_by(code, "grad", *files[:2], "-q", "-o", files[2])
    assert "numpy" in loaded
    assert not loaded & {"numba", "rich", "dask", "distributed"}


def test_the_cpu_backend_starts_no_numba_unless_it_compiles():
    loaded = loaded_by("from xentcli.backends.cpu import ahead, backend, bandwidth")
    assert "llvmlite" in loaded
    assert "numba" not in loaded


LIBRARIES = {"pyarrow", "h5py", "zarr", "zipfile", "bz2", "lzma", "zlib", "gzip", "json", "ctypes"}
OWN = {"xentcli.files.arrow.columns", "xentcli.files.hdf5", "xentcli.files.interpreted"}
OWN |= {"xentcli.files.inflated", "xentcli.files.zipped", "xentcli.files.text.reader"}
NEEDED = {
    "npy": set(),
    "safetensors": {"json"},
    "parquet": {"pyarrow", "xentcli.files.arrow.columns"},
    "h5": {"h5py", "xentcli.files.hdf5"},
}


def written(path, array):
    """An array in a file of the format of its suffix."""
    if path.suffix == ".h5":
        with pytest.importorskip("h5py").File(path, "w") as file:
            file["x"] = array
    elif path.suffix == ".parquet":
        pytest.importorskip("pyarrow.parquet")
        import pyarrow as pa

        pa.parquet.write_table(pa.table({"a": array[:, 0], "b": array[:, 1]}), path)
    else:
        with path.open("wb") as stream:
            save(stream, array, WriteOptions(path.suffix[1:]))


@pytest.mark.parametrize("suffix", NEEDED)
def test_a_format_loads_what_it_needs_and_no_more(suffix, tmp_path):
    path = tmp_path / f"l.{suffix}"
    written(path, np.zeros((2, 2)))
    code = "import sys; from xentcli.files.opening import load; load(sys.argv[1])"
    loaded, before = loaded_by(code, path), loaded_by("import numpy, click")
    assert NEEDED[suffix] <= loaded
    if suffix in ("npy", "safetensors"):  # the others load what their libraries need
        assert loaded & (LIBRARIES | OWN) - before <= NEEDED[suffix]
    else:
        assert loaded & OWN <= NEEDED[suffix]


def test_names_that_do_not_exist_are_attribute_errors():
    with pytest.raises(AttributeError, match="crossentropy"):
        _ = xentcli.crossentropy
    assert set(dir(xentcli)) == set(xentcli.__all__)
    for name in xentcli.__all__:
        assert getattr(xentcli, name) is not None


def scalars_made(tree):
    """Calls that make kernel scalars from anything but defaults and another z-loss."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Scalars":
            others = {keyword.arg for keyword in node.keywords} - {"z_loss"}
            if node.args or others:
                yield node.lineno


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_options_become_scalars_in_one_place(path):
    assert not list(scalars_made(ast.parse(path.read_text())))


def test_the_check_of_scalars_can_fail():
    assert list(scalars_made(ast.parse("Scalars(o.label_smoothing, o.temperature)"))) == [1]
    assert list(scalars_made(ast.parse("Scalars(softcap=cap)"))) == [1]
    assert not list(scalars_made(ast.parse("Scalars.of(options) == Scalars(z_loss=2.0)")))


# `explain` and `examples` show whole commands; everything else speaks to Python callers too.
LIBRARY = ("arrays", "backends", "check", "engine", "files")


@pytest.mark.parametrize(
    "path", [path for path in MODULES if folder_of(name_of(path)) in LIBRARY], ids=name_of
)
def test_the_library_names_options_as_settings_not_as_flags(path):
    assert not list(flags_in(ast.parse(path.read_text())))


def flags_in(tree):
    """Every flag in a string that is not a docstring."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node)
    }
    for node in ast.walk(tree):
        text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if text and id(node) not in docstrings:
            yield from re.findall(r"(?<!\S)--[a-z][a-z-]*", node.value)


def test_the_check_of_flags_can_fail():
    assert list(flags_in(ast.parse('raise E("x", f"{n} rows, use --reduction none")')))
    assert not list(flags_in(ast.parse('def f():\n    """As --reduction does."""')))
