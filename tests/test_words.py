"""Words that users read are run: README, help, docstrings, the sample data's README."""

import doctest
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

import xentcli
import xentcli.check
from xentcli.cli import EXAMPLES, cli
from xentcli.options import LossOptions

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = {name: cli.commands[name] for name in cli.commands}
FAST = {"grad", "check"}  # of the commands whose examples are run; `bench` alone takes seconds


def blocks(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def sessions():
    """(command, expected output) for every `$ ` line of the README."""
    for block in blocks("console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            yield command, output


def shell(command, folder):
    """Run a line as the README's reader does; seconds are masked."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=900,  # a guard against hanging; `xent compile --all` takes five minutes
    )
    assert done.returncode == 0, done.stderr
    return masked(done.stdout + done.stderr)


def masked(text):
    return re.sub(r"\d+\.\d+ s\b", "… s", text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("readme")
    # The README shows what is printed by the second job of a kind.
    jobs = [part for job in ("grad", "loss", "softmax", "teacher") for part in ("--job", job)]
    subprocess.run([sys.executable, "-m", "xentcli", "compile", "-q", *jobs], check=True)
    shutil.copytree(ROOT / "sample_data", folder / "sample_data")
    digits = folder / "sample_data" / "digits"
    for name in ("logits", "targets"):
        shutil.copy(digits / f"{name}.npy", folder)
        array = np.load(digits / f"{name}.npy")[:20]
        np.savetxt(folder / f"{name}.csv", array, delimiter=",", fmt="%.9g")
    shutil.copy(folder / "targets.csv", folder / "labels.csv")
    (folder / "table.csv").write_text("id,logit_a,logit_b,label\n7,1,2,logit_b\n9,3,1,logit_a\n")
    np.savez(folder / "batch.npz", logits=np.eye(3), targets=np.arange(3))
    shared = (".local/share/bash-completion/completions", ".local/share/man/man1")
    for place in (".zfunc", ".config/fish/completions", *shared):
        (folder / place).mkdir(parents=True)
    return folder


@pytest.mark.parametrize(("command", "expected"), list(sessions()), ids=lambda text: text[:50])
def test_the_readme_shows_what_is_printed(command, expected, folder):
    assert shell(command, folder) == masked(expected)


def test_the_pictures_of_the_readme_are_what_their_commands_make(folder):
    pictures = re.findall(r"!\[.+\]\((.+)\)", README)
    assert len(pictures) == 2
    for picture in pictures:
        command = next(line for line, _ in sessions() if line.endswith(f"-o {picture}"))
        (folder / picture).unlink()
        shell(command, folder)
        assert (folder / picture).read_bytes() == (ROOT / picture).read_bytes()


def test_the_check_of_the_readme_can_fail(folder):
    assert shell("echo 1 row in 0.25 s", folder) != masked("2 rows in 0.25 s\n")


def test_the_readmes_python_is_run():
    example = "\n".join(blocks("python"))
    test = doctest.DocTestParser().get_doctest(example, {}, "README", "README.md", 0)
    assert test.examples
    assert doctest.DocTestRunner().run(test).failed == 0


def test_the_readme_has_two_commands():
    commands = [block.strip() for block in blocks("sh")]
    assert len(commands) == 2
    assert all("\n" not in command for command in commands)


def test_every_command_that_the_readme_names_exists():
    named = set(re.findall(r"\bxent ([a-z]+)", "\n".join(blocks("console"))))
    named |= set(re.findall(r"`xent ([a-z]+)", README))
    assert {"grad", "check"} <= named <= COMMANDS.keys()


def test_the_readme_names_every_exit_code():
    for code in (0, 1, 2, 3, 4, 70):
        assert f"| {code} |" in README


def test_every_option_of_the_readme_exists():
    known = {name for c in COMMANDS.values() for p in c.params for name in p.opts}
    known |= {"--help", "--some-name", "--without-pip", "--python"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", README)) <= known


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_help(name):
    command = COMMANDS[name]
    assert command.short_help
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            variables = np.atleast_1d(parameter.envvar)
            assert all(name.startswith("XENT_") for name in variables), parameter.name


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in COMMANDS],
)
def test_the_examples_of_the_help_run(name, folder):
    assert 2 <= len(COMMANDS[name].examples) <= 3
    for line in COMMANDS[name].examples:
        line = line.replace("compile --all", "compile --dtype f64 --job loss")  # not minutes
        if "| man " in line and not shutil.which("man"):
            continue
        shell(line.replace("~", shlex.quote(str(folder))), folder)


def test_the_examples_of_the_main_help_run(folder):
    for line in EXAMPLES:
        shell(line, folder)


def help_of(name, columns, charset="utf-8"):
    """A command's help page on a terminal of that width and encoding."""
    runner = CliRunner(charset=charset)
    result = runner.invoke(cli, [*name, "--help"], env={"COLUMNS": str(columns)})
    assert result.exit_code == 0, result.exception
    return result.stdout_bytes.decode(charset)


PAGES = [[], *([name] for name in COMMANDS)]


@pytest.mark.parametrize("name", PAGES, ids=str)
@pytest.mark.parametrize("columns", [40, 80])
def test_help_breaks_no_word(name, columns):
    lines = help_of(name, columns).splitlines()
    too_long = [line for line in lines if len(line) > columns]
    assert all(max(map(len, line.split())) > columns - 6 for line in too_long)  # one long path
    wide = help_of(name, 100).replace(" \\\n", " ")
    narrow = "\n".join(lines).replace(" \\\n", " ")
    assert sorted(words_of(narrow)) == sorted(words_of(wide))


def words_of(text):
    """The words of a page; a list of choices is one for each."""
    return re.sub(r"\|\s*", "| ", text).split()


@pytest.mark.parametrize("name", PAGES, ids=str)
@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_help_works_in_any_encoding(name, encoding):
    page = help_of(name, 80, encoding)
    assert "Usage: " in page
    assert "?" not in page
    assert not re.search(r"\\[xuU]", page)  # every character of ours has a plain form


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_process_prints_help_in_the_encoding_of_its_output(encoding, folder):
    done = subprocess.run(
        [sys.executable, "-m", "xentcli", "bench", "--help"],
        cwd=folder,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "xent bench" in done.stdout.decode(encoding)


def test_every_option_has_a_group():
    for command in COMMANDS.values():
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.group


@pytest.mark.parametrize("item", fields(LossOptions), ids=lambda item: item.name)
def test_the_options_of_the_loss_are_those_of_the_library(item):
    for name in ("grad", "loss", "explain", "check"):
        options = {p.name: p for p in COMMANDS[name].params}
        assert options[item.name].default == item.default
        assert item.metadata["help"] in options[item.name].help
    parameters = xentcli.cross_entropy.__kwdefaults__
    assert parameters[item.name] == item.default


def test_public_docstrings_have_all_their_parts():
    judges = xentcli.check.check, xentcli.check.assert_grad_close
    for function in (xentcli.cross_entropy, xentcli.softmax, xentcli.log_softmax, *judges):
        for part in ("Shapes:", "Units:", "Errors:", ">>> ", "Source:"):
            assert part in function.__doc__, f"{function.__name__} lacks {part}"


def test_the_version_is_one(folder):
    assert shell("xent --version", folder) == f"xent {xentcli.__version__}\n"
    assert shell("xentcli -V", folder) == f"xent {xentcli.__version__}\n"
    assert shell(f"{sys.executable} -m xentcli -V", folder) == f"xent {xentcli.__version__}\n"


def test_sample_data_is_the_same_as_npy_and_as_csv():
    for path in sorted(ROOT.glob("sample_data/*/*.csv")):
        array = np.load(path.with_suffix(".npy"))
        text = np.loadtxt(path, delimiter=",", ndmin=array.ndim)
        np.testing.assert_array_equal(text, array)


def test_every_folder_of_sample_data_is_described():
    words = (ROOT / "sample_data" / "README.md").read_text()
    folders = [path.name for path in (ROOT / "sample_data").iterdir() if path.is_dir()]
    assert len(folders) >= 8
    for name in folders:
        assert f"| `{name}` |" in words


def test_the_digits_are_real_logits_of_a_model_that_works():
    logits = np.load(ROOT / "sample_data/digits/logits.npy")
    targets = np.load(ROOT / "sample_data/digits/targets.npy")
    assert logits.shape == (1797, 10)
    assert logits.dtype == np.float32
    assert round((logits.argmax(axis=1) == targets).mean(), 3) == 0.981


def test_the_top_level_holds_what_it_should():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    tops = {line.split("/")[0] for line in listed.stdout.splitlines()}
    names = {"pyproject.toml", "README.md", "LICENSE", "xentcli", "tests", "sample_data"}
    assert {top for top in tops if not top.startswith(".")} <= names
