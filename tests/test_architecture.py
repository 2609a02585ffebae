"""The plan of the house, held: who imports whom, what is loaded when, how long things are."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import xentcli

PACKAGE = Path(xentcli.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# What draws gets every number: it may know nothing that computes one.
DRAWING_KNOWS = {"xentcli.display.document", "xentcli.display", "xentcli.errors", "xentcli.files"}

# Lower layers first. A module may import from earlier layers, and from its own package.
LAYERS = [
    {"xentcli.errors", "xentcli.signals"},
    {"xentcli.options"},
    {"xentcli.arrays.dtypes"},
    {
        "xentcli.arrays.sums",
        "xentcli.arrays.layout",
        "xentcli.engine.notes",
        "xentcli.arrays.device_view",
    },
    {"xentcli.engine.targets", "xentcli.engine.output_buffer"},
    {"xentcli.engine.problem"},
    {"xentcli.engine.reduction"},
    {"xentcli.backends", "xentcli.files"},
    {"xentcli.engine.result"},
    {"xentcli.engine.device"},
    {"xentcli.engine.cross_entropy"},
    {
        "xentcli.engine.softmax",
        "xentcli.files.inspection",
        "xentcli.backends.machine",
        "xentcli.engine.pipeline",
    },
    {"xentcli.engine.stream"},
    {"xentcli.bench", "xentcli.check", "xentcli.display.document"},
    {"xentcli.explain"},
    {"xentcli.examples"},
    {"xentcli.cli.tables", "xentcli.display"},
    {"xentcli.cli"},
    {"xentcli.__main__"},
]

COMPILED = (
    "arithmetic",
    "cpu",
    "cuda",
    "exponential",
    "flow",
    "formulas",
    "kinds",
    "lanes",
    "limits",
    "memory",
    "pipeline",
    "ranges",
    "rows",
    "simd",
    "sweeps",
    "tiles",
    "turning",
)

ONLY_IN = {
    "numba": {f"xentcli.backends.{name}" for name in COMPILED},
    "rich": {
        "xentcli.cli.tables",
        "xentcli.display.terminal",
        "xentcli.display.svg",
        "xentcli.cli.console",
    },
    "click": {"xentcli.cli"},
}


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


def layer_of(name):
    for number, layer in enumerate(LAYERS):
        if any(name == member or name.startswith(f"{member}.") for member in layer):
            return number
    return None


def forbidden(name, imported):
    """Why a module may not import another, or None."""
    root = imported.split(".")[0]
    for library, homes in ONLY_IN.items():
        if root == library and not any(name == h or name.startswith(f"{h}.") for h in homes):
            return f"{library} belongs in {sorted(homes)}"
    drawn = name.startswith("xentcli.display") and root == "xentcli" and imported != "xentcli"
    if drawn and ".".join(imported.split(".")[:2]) not in DRAWING_KNOWS:
        return "what draws computes nothing"
    mine, theirs = layer_of(name), layer_of(imported)
    if theirs is None or mine is None:
        return None
    same = name.split(".")[1] == imported.split(".")[1]
    if theirs > mine or (theirs == mine and not same):
        return "imports go down only"
    if name.endswith(".reference") and imported.startswith("xentcli.backends."):
        allowed = imported.removeprefix("xentcli.backends.") in ("Scalars",)
        return None if allowed else "the reference shares no formula with the other kernels"
    compiled = any(f"{name}.".startswith(f"xentcli.backends.{home}.") for home in COMPILED)
    if imported.endswith(".reference") and compiled:
        return "the kernels share no formula with the reference"
    return None


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


def test_the_check_of_imports_can_fail():
    assert forbidden("xentcli.engine.cross_entropy", "rich.table")
    assert forbidden("xentcli.options", "xentcli.engine.cross_entropy")
    assert forbidden("xentcli.backends.cpu.backend", "xentcli.files.npy")
    assert forbidden("xentcli.backends.reference", "xentcli.backends.cpu.long_rows")
    assert forbidden("xentcli.backends.cpu.long_rows", "xentcli.backends.reference")
    assert forbidden("xentcli.backends.cuda.long_rows_fast", "xentcli.backends.reference")
    assert forbidden("xentcli.engine.cross_entropy", "numba")
    assert forbidden("xentcli.display.plain", "xentcli.explain")
    assert forbidden("xentcli.display.html", "xentcli.arrays.sums")
    assert forbidden("xentcli.display.html", "rich.table")
    assert not forbidden("xentcli.display.plain", "xentcli.display.document")
    assert not forbidden("xentcli.engine.cross_entropy", "xentcli.backends")


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
    limit = 60 if "kernels" in path.parts else 25
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
    return {name.split(".")[0] for name in done.stderr.splitlines()[-1].split()}


@pytest.mark.parametrize(
    "arguments", [["--help"], ["grad", "--help"], ["check", "--help"], ["--version"]], ids=str
)
def test_help_loads_nothing_heavy(arguments):
    loaded = loaded_by("from xentcli.cli import main; main()", *arguments)
    assert "click" in loaded
    assert not loaded & {"numpy", "numba", "rich"}


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
    assert not loaded & {"numba", "rich"}


def test_names_that_do_not_exist_are_attribute_errors():
    with pytest.raises(AttributeError, match="crossentropy"):
        _ = xentcli.crossentropy
    assert set(dir(xentcli)) == set(xentcli.__all__)
    for name in xentcli.__all__:
        assert getattr(xentcli, name) is not None
