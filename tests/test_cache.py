"""The cache of compiled kernels: private, never fatal, and safe with many first runs at once."""

import ast
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

import xentcli
from xentcli.backends import cache

# Prints a number, and whether its kernel was compiled or found in the cache.
LOSS = """
import numpy as np
from xentcli.engine.cross_entropy import Run, compute
from xentcli.engine.problem import Extras, build
from xentcli.engine.targets import Whole
from xentcli.options import LossOptions
said, x = [], np.eye(3, dtype="f4")
problem = build(x.shape, Whole(np.arange(3)), LossOptions(), Extras())
result = compute(problem, (x, None), LossOptions(), Run("cpu", 1, said.append), grad=False)
print(repr(result.loss), "compiled" if said else "found")
"""
# The same of the kernel that compiles fastest: where only the cache matters.
COPY = """
import numpy as np
from xentcli.backends.cpu.bandwidth import MemoryKernels
said, x = [], np.full(1 << 12, 1.5, "f4")
MemoryKernels(1, said.append).rewrite(x)
notes = [text for text in said if not text.startswith("waiting")]
assert len(notes) < 2, said
print(repr(float(x.sum())), "compiled" if notes else "found")
"""
RESULTS = {LOSS: "0.551444711476972", COPY: "6144.0"}


NOBODY = 65534
needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs to be root"
)


def start(folder, job=COPY, environment=None):
    return subprocess.Popen(
        [sys.executable, "-c", job],
        env={**os.environ, "XENT_CACHE_DIR": str(folder), **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process, job=COPY):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    result, how = out.split()
    assert result == RESULTS[LOSS if job == LOSS else COPY]
    return how


def run(folder, job=COPY, environment=None):
    return end(start(folder, job, environment), job)


def open_parents(folder):
    """Let other users look into what pytest made for this one only."""
    for path in (folder, *folder.parents):
        if path.owner() == "root" and str(path).startswith(tempfile.gettempdir() + os.sep):
            path.chmod(path.stat().st_mode | 0o055)


def entries_in(folder):
    """The files of machine code."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(path for path in found if path.suffix != ".lock")


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A cache after its first job, which was compiled."""
    folder = tmp_path_factory.mktemp("cache")
    assert run(folder) == "compiled"
    return folder


@pytest.mark.slow
def test_the_second_process_compiles_no_loss(tmp_path):
    assert run(tmp_path, LOSS) == "compiled"
    assert run(tmp_path, LOSS) == "found"


def test_the_second_process_compiles_nothing_and_starts_no_numba(filled):
    assert run(filled, COPY + "\nimport sys\nassert 'numba' not in sys.modules") == "found"
    (own,) = filled.iterdir()
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    assert len(entries_in(filled)) == 1
    assert stat.S_IMODE(entries_in(filled)[0].stat().st_mode) == 0o600


@pytest.mark.parametrize("left", [0, -20], ids=["empty", "truncated"])
def test_damaged_files_are_replaced(filled, left):
    """Every other kind of damage is in test_kept.py, in one process."""
    (entry,) = entries_in(filled)
    entry.write_bytes(entry.read_bytes()[:left])
    assert run(filled) == "compiled"
    assert run(filled) == "found"


# Another user may not see where Python is installed: what is needed is imported before.
BECOME_NOBODY = f"""
import os
from xentcli.backends.cpu.bandwidth import MemoryKernels
import numpy as np
folder, os.environ["XENT_CACHE_DIR"] = os.environ["XENT_CACHE_DIR"], "/dev/null/nowhere"
MemoryKernels(1).read(np.full(1 << 12, 1.5, "f4"))
os.environ["XENT_CACHE_DIR"] = folder
os.seteuid({NOBODY})
"""


@needs_root
@pytest.mark.slow
def test_an_unreadable_entry_is_replaced(tmp_path):
    """Root may read everything, so somebody else tries it."""
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    open_parents(tmp_path)
    job = BECOME_NOBODY + COPY
    assert run(home / "cache", job) == "compiled"
    entries_in(home)[0].chmod(0)
    assert run(home / "cache", job) == "compiled"
    assert run(home / "cache", job) == "found"


def test_without_a_folder_everything_works(tmp_path):
    (tmp_path / "file").write_text("")
    assert run(tmp_path / "file" / "no folder") == "compiled"


def test_without_a_home_everything_works():
    job = "import os\nos.path.expanduser = lambda path: path\n" + COPY
    gone = {"XENT_CACHE_DIR": "", "XDG_CACHE_HOME": "", "HOME": "/nonexistent/home"}
    assert run("", job, environment=gone) == "compiled"


@pytest.mark.slow
def test_many_first_runs_at_once(tmp_path):
    """One of them compiles; the others wait for it, and read."""
    processes = [start(tmp_path) for _ in range(16)]
    assert sorted(end(process) for process in processes) == ["compiled"] + ["found"] * 15


@pytest.mark.slow
def test_many_first_runs_of_which_some_are_killed(tmp_path):
    for number in range(5):
        folder = tmp_path / str(number)
        processes = [start(folder) for _ in range(16)]
        time.sleep(0.15 * number)
        for process in processes[::3]:
            process.kill()
        for process in processes:
            out, err = process.communicate(timeout=300)
            assert process.returncode in (0, -signal.SIGKILL), err
            if process.returncode == 0:
                assert out.split()[0] == RESULTS[COPY]
        assert run(folder) in ("found", "compiled")
        assert run(folder) == "found"


PACKAGE = Path(xentcli.__file__).parent

# Changes every file in turn, and prints those after which the cache has another name.
EDITS = """
from pathlib import Path
import xentcli
from xentcli.backends import cache
package = Path(xentcli.__file__).parent
def edited(path):
    before, text = cache.folder(), path.read_bytes() if path.exists() else None
    path.parent.mkdir(exist_ok=True)
    path.write_bytes((text or b"") + b"# edited")
    if cache.folder() != before:
        print(path.relative_to(package).as_posix())
    path.write_bytes(text) if text is not None else path.unlink()
for path in [*sorted(package.rglob("*.py")), package / "backends" / "cpu" / "new" / "kernel.py"]:
    edited(path)
"""


def test_an_edited_file_renews_the_cache_exactly_where_it_makes_machine_code(tmp_path):
    """Every file of every folder, and one in a new folder below the kernels."""
    shutil.copytree(PACKAGE, tmp_path / "xentcli", ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-c", EDITS], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    files = [path.relative_to(PACKAGE).as_posix() for path in sorted(PACKAGE.rglob("*.py"))]
    kernels = {path for path in files if path.startswith("backends/cpu/")}
    scalars = {path for path in files if "class Scalars(" in (PACKAGE / path).read_text()}
    shared = {"backends/elementary.py", "backends/cpu/new/kernel.py"}
    assert len(scalars) == 1
    assert set(done.stdout.split()) == kernels | scalars | shared


def imported_from_elsewhere(tree):
    """The names that a file takes from files of the package that the cache does not know."""
    paths = [path.relative_to(PACKAGE.parent).with_suffix("") for path in cache.sources()]
    known = {path.as_posix() for path in paths}
    known |= {name.removesuffix("/__init__") for name in known}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("xentcli"):
            module = node.module.replace(".", "/")
            for alias in node.names:
                if module not in known and f"{module}/{alias.name}" not in known:
                    yield alias.asname or alias.name


def compiled_functions(tree):
    """Those that Numba compiles, which have no annotations, and those that write LLVM's code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            arguments = [a for a in node.args.args if a.arg not in ("self", "cls")]
            bare = any(a.annotation is None for a in arguments)
            if bare or any("intrinsic" in ast.unparse(one) for one in node.decorator_list):
                yield node


def used_from_elsewhere(tree):
    """The names from elsewhere that compiled functions use."""
    names = {
        node.id
        for function in compiled_functions(tree)
        for node in ast.walk(function)
        if isinstance(node, ast.Name)
    }
    return names & set(imported_from_elsewhere(tree))


@pytest.mark.parametrize("path", cache.sources(), ids=lambda path: path.stem)
def test_what_is_compiled_comes_from_files_that_the_cache_knows(path):
    assert not used_from_elsewhere(ast.parse(path.read_text()))


def test_the_check_of_what_is_compiled_can_fail():
    text = "from xentcli.arrays.sums import BLOCK\ndef kernel(x):\n    return x + BLOCK\n"
    assert used_from_elsewhere(ast.parse(text)) == {"BLOCK"}
