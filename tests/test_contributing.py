"""CONTRIBUTING, CHANGELOG and the CI workflow say what is true of the code."""

import ast
import re
import sys
from functools import cache
from pathlib import Path

import pytest
import test_architecture as architecture

import xentcli
from xentcli.cli import COMMANDS, cli

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "xentcli"
CONTRIBUTING = (ROOT / ".github" / "CONTRIBUTING.md").read_text()
CHANGELOG = (ROOT / ".github" / "CHANGELOG.md").read_text()
WORKFLOW = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
PRE_COMMIT = (ROOT / ".pre-commit-config.yaml").read_text()
PYPROJECT = (ROOT / "pyproject.toml").read_text()

ELSEWHERE = (".venv/", "dist/")  # made by the commands that name them


# Reading the document


def section(text, heading):
    """What stands below a heading, up to the next one of its level or above."""
    level = heading.split()[0]
    found = re.search(
        rf"^{re.escape(heading)}\n(.*?)(?=^#{{2,{len(level)}}} |\Z)", text, re.M | re.S
    )
    assert found, heading
    return found[1]


def code(text):
    """What stands in backticks, and each line of a block."""
    fence = r"^```sh\n(.*?)^```$"
    for block in re.findall(fence, text, re.M | re.S):
        yield from block.splitlines()
    for span in re.findall(r"`([^`]+)`", re.sub(fence, "", text, flags=re.M | re.S)):
        yield " ".join(span.split())


def expanded(path):
    """The paths that a shell makes of `a/{b,c}.py`."""
    before, brace, rest = path.partition("{")
    if not brace:
        return [path]
    choices, _, after = rest.partition("}")
    return [before + choice + after for choice in choices.split(",")]


def named_paths(text):
    """Every path that the document names, from the root of the repository."""
    words = (word for span in code(text) for word in span.split())
    for word in words:
        is_path = re.fullmatch(r"[\w./{},-]*\w+/?[\w./{},-]*(/|\.py|\.md)|\.ci/run", word)
        if is_path and not word.startswith(ELSEWHERE):
            yield from expanded(word)


def listed(text, heading):
    """The modules in the numbered list below a heading, and problems with its numbers."""
    items = re.findall(r"^(\d+)\. (.*)$", section(text, heading), re.M)
    wrong = [n for n, (number, _) in enumerate(items, 1) if int(number) != n]
    paths = {path for _, item in items for path in named_paths(item) if path.endswith(".py")}
    return paths, [f"{heading}: number {n}" for n in wrong]


# Reading the code


@cache
def tree(path):
    return ast.parse((ROOT / path).read_text())


def sources(folder):
    """Its modules, but for this one, whose strings are those that it looks for."""
    paths = sorted((ROOT / folder).rglob("*.py"))
    return [str(path.relative_to(ROOT)) for path in paths if path != Path(__file__)]


def defined(path, name):
    """Whether a module defines a function, class, constant, or what a class has."""
    body = tree(path).body
    *owners, last = name.split(".")
    for owner in owners:
        classes = [node for node in body if isinstance(node, ast.ClassDef) and node.name == owner]
        body = classes[0].body if classes else []
    return last in set(names_in(body))


def names_in(body):
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def identifiers(path):
    """Names of attributes, parameters, keywords and fields, also as strings; no docstrings."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.keyword | ast.arg):
            yield node.arg
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def strings(path):
    return {
        node.value
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def lists(path):
    """The strings in each list, tuple or `Literal`."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.List | ast.Tuple | ast.Set):
            yield {item.value for item in node.elts if isinstance(item, ast.Constant)}


def mention(*options):
    return {path for path in sources("xentcli") if set(options) & set(identifiers(path))}


def of_a_format():
    """Where one of the formats is named, and the tests that have lists of all."""
    for path in sources("xentcli"):
        if "npz" in strings(path):
            yield path
    for path in sources("tests"):
        if any(re.search(r"npz\|safetensors", text) for text in strings(path)):
            yield path


def of_a_command():
    for path in sources("xentcli"):
        if "inspect" in strings(path):
            yield path
    for path in sources("tests"):
        if any({"grad", "loss", "inspect", "completion"} <= found for found in lists(path)):
            yield path


def of_a_backend():
    for path in sources("xentcli"):
        listed = any({"numpy", "cpu", "cuda"} <= found for found in lists(path))
        if listed or "NumpyBackend()" in (ROOT / path).read_text():
            yield path
    for path in sources("tests"):
        if strings(path) & {"numpy,cpu", "xentcli.backends.cpu.*"}:
            yield path


FOUND = {
    "### An option of the loss": lambda: mention("label_smoothing", "z_loss", "softcap"),
    "### An option of the reduction": lambda: mention("normalizer", "empty_mean"),
    "### A format": of_a_format,
    "### A command": of_a_command,
    "### A backend": of_a_backend,
}


# Each check returns what is wrong with a text.


def wrong_paths(text):
    for path in named_paths(text):
        below = PACKAGE.glob(f"*/{path}")  # in the map, in the row of the folder that holds it
        if not any(found.exists() for found in (ROOT / path, PACKAGE / path, *below)):
            yield path


def wrong_map(text):
    """Rows of the map against the folders of the package and the layers of the import rules."""
    rows = re.findall(r"^\| (\d+) \| `(\w+)(/|\.py)` \|(.+)\|$", section(text, "## The map"), re.M)
    layers = {}
    for number, name, _, _ in rows:
        layers.setdefault(int(number), []).append(name)
    existing = [
        {name for name in layer if exists_in_package(name)} for layer in architecture.LAYERS
    ]
    if [set(layers[number]) for number in sorted(layers)] != [names for names in existing if names]:
        yield "the layers"
    if [int(number) for number, *_ in rows] != sorted(int(number) for number, *_ in rows):
        yield "the order of the rows"
    kinds = {"/": Path.is_dir, ".py": Path.is_file}
    for _, name, kind, words in rows:
        if not kinds[kind](PACKAGE / f"{name}{kind}"):
            yield name
        folders = {path.parent.name for path in (PACKAGE / name).glob("*/__init__.py")}
        if set(re.findall(r"`(\w+)/`", words)) != folders:
            yield f"the folders of {name}"


def exists_in_package(name):
    return (PACKAGE / f"{name}.py").exists() or (PACKAGE / name).is_dir()


def wrong_libraries(text):
    """`numba` and `llvmlite` only in …"""
    said = {}
    words = " ".join(section(text, "## The map").split())
    several = r"`[\w/]+`(?: and `[\w/]+`)*"
    for libraries, homes in re.findall(rf"({several}) only in ({several})", words):
        for library in re.findall(r"`(\w+)`", libraries):
            said[library] = set(re.findall(r"`([\w/]+)/`", homes))
    for library, homes in architecture.ONLY_IN.items():
        folders = {home.removeprefix("xentcli.").removesuffix(".*") for home in homes}
        folders = {name.replace(".", "/") for name in folders}
        existing = {name for name in folders if (PACKAGE / name).is_dir()}
        if said.get(library, set()) != existing:
            yield library


def wrong_names(text):
    """Functions and classes that are not where the document says, or nowhere."""
    one = r"`[\w.]+`"
    for path, names in re.findall(rf"`(xentcli/[\w/]+\.py)`: ({one}(?:, {one})*)", text):
        yield from (
            f"{path}: {n}" for n in re.findall(r"`([\w.]+)`", names) if not defined(path, n)
        )
    for name, path in re.findall(r"`([\w.]+)` in\s`(xentcli/[\w/]+\.py)`", text):
        if not defined(path, name):
            yield f"{path}: {name}"
    files = [*sources("xentcli"), *sources("tests")]
    options = set(identifiers("xentcli/options.py"))
    for span in code(text):
        is_name = re.fullmatch(r"[A-Z]\w+(\.[a-z]\w+)?|[a-z]\w*_\w+", span)
        if not is_name or span in options or span.endswith(".md"):
            continue
        if not any(defined(path, span) for path in files):
            yield span


def wrong_lists(text):
    """Lists of what to touch, against what a search of the code finds."""
    for heading, find in FOUND.items():
        paths, problems = listed(text, heading)
        yield from problems
        yield from (f"{heading}: {path}" for path in sorted(paths ^ set(find())))


def wrong_commands(text):
    """Commands with an option, argument, subcommand or marker that does not exist."""
    for line in (part for span in code(text) for part in span.split(" && ")):
        words = line.split()
        scripts = [word for word in words if word.startswith(("tests/", "sample_data/"))]
        if words[0] == "python" and scripts:
            text_of_script = (ROOT / scripts[0]).read_text()
            yield from (word for word in unknown(words[2:], text_of_script))
        elif words[0] == "xent" and len(words) > 1 and not words[1].startswith("-"):
            yield from unknown_to_xent(*words[1:])
        elif "-m" in words and "pytest" in line:
            marker = re.findall(r"\w+", line.split("-m", 1)[1])[-1]
            if not re.search(rf'"{marker}: ', PYPROJECT + (ROOT / "tests/conftest.py").read_text()):
                yield f"the marker {marker}"


def unknown(arguments, script):
    """Arguments that a script does not name; numbers are any."""
    return [word for word in arguments if not word.isdigit() and f'"{word}"' not in script]


def unknown_to_xent(name, *arguments):
    if name not in COMMANDS:
        return [f"xent {name}"]
    known = {flag for parameter in cli.commands[name].params for flag in parameter.opts}
    return [word for word in arguments if word.startswith("-") and word not in known]


def wrong_budgets(text):
    """Lengths of modules and functions, against those that are tested."""
    words = " ".join(section(text, "## Conventions").split())
    said = re.search(r"Modules up to (\d+) lines, functions up to (\d+) .*?, up to (\d+) in", words)
    source = (ROOT / "tests/test_architecture.py").read_text()
    tested = re.search(r"<= (\d+)\n    limit = (\d+) if .* else (\d+)", source)
    if (said[1], said[3], said[2]) != tested.groups():
        yield "the budgets"


def wrong_versions(text):
    """Headings of the changelog: newest first, with dates, up to the version of the package."""
    headings = re.findall(r"^## (.+)$", text, re.M)
    unreleased = headings[0] == "Unreleased"
    versions = []
    for heading in headings[unreleased:]:
        found = re.fullmatch(r"(\d+\.\d+\.\d+) - \d{4}-\d{2}-\d{2}", heading)
        if not found:
            yield heading
        else:
            versions.append(numbers(found[1]))
    if versions != sorted(set(versions), reverse=True):
        yield "the order"
    ours = numbers(xentcli.__version__)
    if not versions or versions[0] > ours or (versions[0] < ours and not unreleased):
        yield f"no entry for {xentcli.__version__}"
    if versions[-1:] != [(0, 1, 0)]:
        yield "the first version"


def numbers(version):
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def wrong_pythons(text):
    """The Pythons of the workflow, against the classifiers and requires-python."""
    project = tomllib.loads(PYPROJECT)["project"]
    prefix = "Programming Language :: Python :: "
    supported = [line.removeprefix(prefix) for line in project["classifiers"] if prefix in line]
    supported = [version for version in supported if "." in version]
    run = re.findall(r'"([\d.]+)"', re.search(r"python: \[(.+)\]", text)[1])
    if run != supported or f">={run[0]}" != project["requires-python"]:
        yield f"{run}, but supported are {supported}, {project['requires-python']}"
    if "run: bash .ci/run" not in text:
        yield ".ci/run"


def wrong_hooks(text):
    """The ruff of pre-commit, against the one that the extra `dev` installs at least."""
    extra = tomllib.loads(PYPROJECT)["project"]["optional-dependencies"]["dev"]
    least = next(line.removeprefix("ruff>=") for line in extra if line.startswith("ruff>="))
    revision = re.search(r"ruff-pre-commit\n +rev: v([\d.]+)", text)
    if not revision or numbers(revision[1]) < numbers(least):
        yield "the version of ruff"
    if set(re.findall(r"- id: ([\w-]+)", text)) != {"ruff-check", "ruff-format"}:
        yield "the hooks"


TRUE = [
    (wrong_paths, CONTRIBUTING),
    (wrong_map, CONTRIBUTING),
    (wrong_libraries, CONTRIBUTING),
    (wrong_names, CONTRIBUTING),
    (wrong_lists, CONTRIBUTING),
    (wrong_commands, CONTRIBUTING),
    (wrong_budgets, CONTRIBUTING),
    (wrong_versions, CHANGELOG),
    (wrong_pythons, WORKFLOW),
    (wrong_hooks, PRE_COMMIT),
]

# A check, what is true, what stands there instead, and what the check says of it.
LIES = [
    (wrong_paths, "tests/faults.py", "tests/fault.py", ["tests/fault.py"]),
    (wrong_paths, "bash .ci/run", "bash .ci/run/all.py", [".ci/run/all.py"]),
    (wrong_paths, "`tests/naive.py`", "`tests/native.py`", ["tests/native.py"]),
    (wrong_paths, "{case,peers,exact}", "{case,pears,exact}", ["xentcli/bench/pears.py"]),
    (wrong_paths, "in `oracles/`", "in `oracle/`", ["oracle/"]),
    (wrong_map, "| 5 | `engine/`", "| 6 | `engine/`", ["the layers"]),
    (
        wrong_map,
        "| 4 | `files/`",
        "| 4 | `formats/`",
        ["the layers", "formats", "the folders of formats"],
    ),
    (wrong_map, "| 9 | `bench/`", "9 | `bench/`", ["the layers"]),
    (wrong_map, "`device/` for arrays", "arrays", ["the folders of engine"]),
    (wrong_map, "| 2 | `options.py`", "| 2 | `options/`", ["options"]),
    (
        wrong_libraries,
        "`rich` only in `display/` and\n",
        "`rich` only in `engine/` and\n",
        ["rich"],
    ),
    (wrong_libraries, "`numba` and `llvmlite` only", "`numba` only", ["llvmlite"]),
    (
        wrong_names,
        "`LossCalculation.add`",
        "`LossCalculation.plus`",
        ["xentcli/engine/cross_entropy.py: LossCalculation.plus", "LossCalculation.plus"],
    ),
    (wrong_names, "then `compute` in", "then `work` in", ["xentcli/engine/cross_entropy.py: work"]),
    (wrong_names, "`InMemoryReader` is", "`MemoryReader` is", ["MemoryReader"]),
    (wrong_names, "`assert_grad_close`", "`assert_grad_near`", ["assert_grad_near"]),
    (
        wrong_lists,
        "{launch_params,launch,",
        "{launch,",
        ["### An option of the loss: xentcli/backends/cuda/launch_params.py"],
    ),
    (
        wrong_lists,
        "`xentcli/backends/{reference,softmax_steps}.py`: the",
        "`xentcli/backends/softmax_steps.py`, `xentcli/files/sink.py`: the",
        [
            "### An option of the loss: xentcli/backends/reference.py",
            "### An option of the loss: xentcli/files/sink.py",
        ],
    ),
    (
        wrong_lists,
        "7. `xentcli/bench/exact.py`\n",
        "",
        ["### An option of the reduction: xentcli/bench/exact.py"],
    ),
    (
        wrong_lists,
        "2. `xentcli/files/binary.py`",
        "2. `xentcli/files/format.py`",
        ["### A format: xentcli/files/binary.py", "### A format: xentcli/files/format.py"],
    ),
    (
        wrong_lists,
        "2. `xentcli/cli/__init__.py`: the command's",
        "2. the command's",
        ["### A command: xentcli/cli/__init__.py"],
    ),
    (
        wrong_lists,
        "3. `xentcli/cli/bench.py`: the name",
        "4. `xentcli/cli/bench.py`: the name",
        ["### A backend: number 3"],
    ),
    (
        wrong_lists,
        "2. `xentcli/options.py`: the name",
        "2. the name",
        ["### A backend: xentcli/options.py"],
    ),
    (wrong_commands, "xent examples --write", "xent examples --save-all", ["--save-all"]),
    (wrong_commands, "`xent examples", "`xent samples", ["xent samples"]),
    (wrong_commands, "gpu.py --quick", "gpu.py --fast", ["--fast"]),
    (wrong_commands, "test_accuracy.py search", "test_accuracy.py hunt", ["hunt"]),
    (wrong_commands, '- `pytest -m "not slow"`', '- `pytest -m "not long"`', ["the marker long"]),
    (wrong_budgets, "Modules up to 300", "Modules up to 400", ["the budgets"]),
    (wrong_budgets, "up to 60 in backends", "up to 80 in backends", ["the budgets"]),
    (wrong_versions, "## Unreleased", "## Soon", ["Soon"]),
    (
        wrong_versions,
        "## 0.1.0 - 2026-11-26",
        "## 0.1.0",
        ["0.1.0", "no entry for 0.1.0", "the first version"],
    ),
    (wrong_versions, "## 0.1.0 -", "## 9.0.0 -", ["no entry for 0.1.0", "the first version"]),
    (wrong_pythons, '"3.10", ', "", None),
    (wrong_pythons, '"3.14"', '"3.13"', None),
    (wrong_pythons, "bash .ci/run", "pytest", [".ci/run"]),
    (wrong_hooks, "rev: v0.15", "rev: v0.14", ["the version of ruff"]),
    (wrong_hooks, "ruff-format", "ruff", ["the hooks"]),
]


@pytest.mark.parametrize(("wrong", "text"), TRUE, ids=lambda value: getattr(value, "__name__", ""))
def test_what_is_written_is_true(wrong, text):
    assert list(wrong(text)) == []


@pytest.mark.slow  # each reads all sources
@pytest.mark.parametrize(("wrong", "true", "lie", "found"), LIES)
def test_a_lie_is_found(wrong, true, lie, found):
    text = dict(TRUE)[wrong]
    assert text.count(true) >= 1
    said = list(dict.fromkeys(wrong(text.replace(true, lie))))
    assert said
    assert found is None or said == found
