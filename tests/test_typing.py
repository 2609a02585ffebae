"""What mypy finds in commands: options that are misspelt, and options that a command lacks."""

import subprocess
import sys

import pytest

# A command as somebody would write it; each mistake replaces one line.
COMMAND = """
from xentcli.cli.command import command
from xentcli.cli.inputs import loss_paths, loss_reading, open_inputs
from xentcli.cli.job import Job
from xentcli.cli.options import LogitsReading, LossInputs, RunningOptions, WritingOptions
from xentcli.cli.sinks import LossConsumers, open_outputs
from xentcli.options import LossOptions, TeacherOptions


@command("mean", examples=[])
def mean(
    options: LossOptions,
    soft: TeacherOptions,
    sources: LossInputs,
    writing: WritingOptions,
    running: RunningOptions,
) -> None:
    paths = loss_paths(sources.logits, sources.targets, sources)
    reading = loss_reading(sources, writing.dtype)
    with open_outputs(writing) as outputs:
        with open_inputs(paths, reading, outputs, options.class_axis) as inputs:
            job = Job(running, writing.dtype)
            job.cross_entropy(options, inputs, None, LossConsumers(), soft)


LossOptions(reduction="mean", label_smoothing=0.1)
"""
MISTAKES = {
    "a misspelt option": (
        "options.class_axis",
        "options.clas_axis",
        '"LossOptions" has no attribute "clas_axis"; maybe "class_axis"?',
    ),
    "a misspelt keyword": (
        "label_smoothing=0.1",
        "label_smooting=0.1",
        'Unexpected keyword argument "label_smooting" for "LossOptions"',
    ),
    "a value that is not allowed": (
        'reduction="mean"',
        'reduction="average"',
        "expected \"Literal['mean', 'sum', 'none']\"",
    ),
    "a command that does not say how targets are read": (
        "sources: LossInputs",
        "sources: LogitsReading",
        '"LogitsReading" has no attribute "targets"',
    ),
    "a command without the options of the machine": (
        "running: RunningOptions",
        "running: LogitsReading",
        'incompatible type "LogitsReading"; expected "RunningOptions"',
    ),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What mypy says of the command and of each mistake, in one run."""
    folder = tmp_path_factory.mktemp("snippets")
    snippets = {"right": COMMAND}
    for number, (before, after, _) in enumerate(MISTAKES.values()):
        assert before in COMMAND
        snippets[f"wrong{number}"] = COMMAND.replace(before, after)
    for name, text in snippets.items():
        (folder / f"{name}.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", *(f"{name}.py" for name in snippets)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,  # a guard against hanging
    )
    lines = done.stdout.splitlines()
    return {name: [line for line in lines if line.startswith(f"{name}.py:")] for name in snippets}


@pytest.mark.slow
def test_a_right_command_is_accepted(found):
    assert found["right"] == []


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(MISTAKES)), ids=list(MISTAKES))
def test_mypy_finds(number, found):
    *_, words = list(MISTAKES.values())[number]
    assert any(words in line for line in found[f"wrong{number}"]), found[f"wrong{number}"]
