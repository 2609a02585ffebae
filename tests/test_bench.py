"""`xent bench`: what it prints, that it checks answers first, and that its figures fit together."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cli import assert_error, captured, environment, run

from xentcli.bench import BenchResult, Contestant, Plan, baseline, measure, peers, processes
from xentcli.bench import case as cases
from xentcli.bench.case import Case, Data
from xentcli.bench.columns import OF_CALLS as COLUMNS
from xentcli.bench.columns import OF_PROCESSES, cell
from xentcli.bench.exact import ExactResult
from xentcli.bench.export import as_json, as_lines, as_markdown
from xentcli.errors import FormatError, OptionError
from xentcli.options import LossOptions

COLUMN = {name: number for number, name in enumerate(COLUMNS)}
SMALL = ("--shape", "40,70", "--runs", "2", "--against", "numpy")


def result_of(case, *names, **plan):
    return measure(case, Plan(names, warmup=0, runs=2, **plan), lambda text: None)


def test_the_table_in_a_pipe():
    done = run("bench", *SMALL, "--shape", "2,3,5", "--class-axis", "-2")
    assert done.code == 0, done.err
    lines = done.text.splitlines()
    assert lines[0].startswith("# 40 × 70, float32, loss and gradient, axis -2; limit: ")
    assert done.err == ""  # the title is in the table
    assert lines[1].split("\t") == list(COLUMNS)
    assert lines[2].startswith("xent\t")
    assert [line.split("\t")[0] for line in lines[5:]] == ["who", "xent", "numpy"]
    assert "takes rows of classes only" in lines[-1]


def test_exports_hold_the_same_figures(tmp_path):
    kinds = {kind: tmp_path / f"out.{kind}" for kind in ("json", "csv", "markdown")}
    options = [f"--export-{kind}={path}" for kind, path in kinds.items()]
    done = captured("bench", *SMALL, *options)
    assert done.code == 0, done.err
    (case,) = json.loads(kinds["json"].read_text())["cases"]
    assert case["shape"] == [40, 70]
    assert case["bytes_moved"] == 2 * 40 * 70 * 4
    mine, other = case["contestants"]
    assert mine["median_ms"] == pytest.approx(np.median(mine["seconds"]) * 1e3)
    assert mine["of_the_limit"] == pytest.approx(case["limit_ms"] / mine["median_ms"])
    assert mine["gb_per_s"] == pytest.approx(case["bytes_moved"] / mine["median_ms"] / 1e6)
    assert other["times_ours"] == pytest.approx(other["median_ms"] / mine["median_ms"])
    rows = list(csv.DictReader(io.StringIO(kinds["csv"].read_text())))
    assert [float(row["median_ms"]) for row in rows] == [mine["median_ms"], other["median_ms"]]
    assert f"| xent | {cell('median_ms', mine['median_ms'])} |" in kinds["markdown"].read_text()


def test_an_export_may_be_standard_output():
    done = run("bench", *SMALL, "--export-json", "-", "-q")
    assert json.loads(done.text)["cases"][0]["dtype"] == "f32"


@pytest.mark.parametrize(
    "case",
    [
        Case((30, 8)),
        Case((30, 80), "f64"),
        Case((30, 80), "bf16"),
        pytest.param(Case((30, 80), "f16"), marks=pytest.mark.slow),
        Case((6, 8, 5), class_axis=1, weighted=True),
        Case((30, 80), weighted=True, options=LossOptions(z_loss=0.1)),
        Case((30, 8), probs=True),
        Case((30, 8), in_place=True),
        Case((30, 8), gradient=False),
        Case((30, 8), options=LossOptions(label_smoothing=0.1, temperature=2, softcap=5.0)),
    ],
    ids=Case.title,
)
def test_our_own_answer_passes_the_check(case):
    result = result_of(case)
    (mine,) = result.contestants
    assert mine.why_not is None
    assert len(mine.seconds) == 2
    assert mine.loss_ulp < 2
    assert mine.grad_ulp is None or mine.grad_ulp < 9
    assert result.limit() > 0
    assert as_lines(result)
    assert as_markdown([result])


@pytest.mark.parametrize("name", ["numpy", "scipy", "sklearn"])
def test_peers_that_are_here_give_the_right_answer(name):
    one = result_of(Case((64, 12)), name).contestants[1]
    assert one.why_not in (None, "is not installed")
    assert one.why_not or one.grad_ulp > 2  # one row in eight is nearly certain of its target


def wrong_loss(case, data, machine):
    return lambda: (1.0, np.zeros(case.shape))


def wrong_gradient(case, data, machine):
    right = peers.ours(case, data, machine)
    return lambda: (right()[0], right()[1] * 1.01)


def broken(case, data, machine):
    raise RuntimeError("no kernel image")


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (wrong_loss, "gives a wrong answer"),
        (wrong_gradient, "gives a wrong answer"),
        (broken, "failed: RuntimeError"),
    ],
)
def test_a_peer_with_a_wrong_answer_is_not_timed(monkeypatch, function, reason):
    monkeypatch.setitem(peers.PEERS, "numpy", function)
    one = result_of(Case((30, 8)), "numpy").contestants[1]
    assert (one.why_not, one.seconds) == (reason, [])


def test_the_same_seed_makes_the_same_data():
    case = Case((20, 6), "f16")
    a, b, c = (Data.make(case, seed) for seed in (1, 1, 2))
    assert a.logits.tobytes() == b.logits.tobytes() != c.logits.tobytes()
    rows = np.arange(0, 20, 8)
    assert (a.logits[rows].argmax(1) == a.targets[rows]).all()


@pytest.mark.parametrize(
    "case",
    [
        Case((29, 4)),
        Case((29, 2, 3), class_axis=1, weighted=True, options=LossOptions(z_loss=0.1)),
        Case((29, 4), probs=True, options=LossOptions(label_smoothing=0.1)),
    ],
    ids=Case.title,
)
def test_a_large_case_repeats_a_part_and_is_compared_with_all_of_it(monkeypatch, case):
    monkeypatch.setattr(cases, "PART", 50)
    part = Data.make(case)
    data = part.whole(case)
    assert len(part.logits) == max(8, 50 // (case.nbytes // 4 // 29))
    assert data.logits.shape == case.shape
    exact = ExactResult.of(case, part)
    monkeypatch.setattr(cases, "PART", 1 << 20)
    whole = ExactResult.of(case, data)
    assert exact.loss == pytest.approx(whole.loss, rel=1e-14)
    np.testing.assert_allclose(exact.grad, whole.grad, rtol=1e-13)
    last = Data(data.logits[-1:], data.targets[-1:], None)
    assert last.logits.tobytes() == part.logits[28 % len(part.logits)].tobytes()


SIMULATOR = "from simulated import complete; complete(); from xentcli.cli import main; main()"


def on_the_simulator(*arguments):
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            SIMULATOR,
            "bench",
            "--backend",
            "cuda",
            "--warmup",
            "0",
            *arguments,
        ],
        env=environment(NUMBA_ENABLE_CUDASIM="1", PYTHONPATH=str(Path(__file__).parent)),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [line.split("\t") for line in done.stdout.splitlines()]


@pytest.mark.slow  # the simulator starts anew for each
@pytest.mark.parametrize(
    "arguments",
    [
        ["--shape", "20,3", "--shape", "2,70", "--dtype", "bf16", "--in-place"],
        ["--shape", "3,2,4", "--class-axis", "1", "--weighted", "--z-loss", "0.1"],
        ["--shape", "4,8", "--loss-only", "--dtype", "f16"],
    ],
    ids=" ".join,
)
def test_everything_in_the_memory_of_a_device(arguments):
    lines = on_the_simulator(*arguments, "--runs", "2", "--against", "numpy")
    for line in (line for line in lines if line[0] == "xent"):
        assert float(line[COLUMN["median_ms"]]) > 0
        assert float(line[COLUMN["loss_ulp"]]) < 1
        assert line[COLUMN["grad_ulp"]] == "-" or float(line[COLUMN["grad_ulp"]]) < 2
    assert lines[-1][-1] == "is timed in the host's memory only"


def test_on_a_device_others_take_part_that_compute_there():
    lines = on_the_simulator("--shape", "4,8", "--runs", "1")
    assert [line[0] for line in lines[2:]] == ["xent", "torch", "torch-compile", "liger"]


def test_a_peer_that_computes_on_a_device_only_is_not_timed_without_one():
    one = result_of(Case((4, 8)), "liger").contestants[1]
    assert one.why_not == "computes on a device only"


def test_without_a_device_there_is_nothing_to_time():
    done = run(
        "bench", "-q", "--backend", "cuda", "--shape", "4,8", env={"CUDA_VISIBLE_DEVICES": ""}
    )
    assert_error(done, 3, "--backend")


def test_the_share_of_the_limit_counts_the_bytes():
    limits = {"copy": [2.0, 4.0, 3.0], "read": [1.0] * 3, "in place": [2.0] * 3}
    plain = BenchResult(Case((10, 10)), [], limits, 400)
    assert plain.limit() == 3.0
    assert BenchResult(Case((10, 10), gradient=False), [], limits, 400).limit() == 1.0
    assert BenchResult(Case((10, 10), in_place=True), [], limits, 400).limit() == 2.0
    assert BenchResult(Case((10, 10), probs=True), [], limits, 400).limit() == 4.0
    assert plain.rates()["copy"] == pytest.approx(800 / 3)


def test_no_share_of_the_limit_is_above_one():
    """Memory is at least as fast as the fastest that was seen in the same round."""
    slow = {"copy": [5.0, 5.0, 5.0], "copy of rows": [4.0, 2.0, 5.0], "read": [1.0] * 3}
    mine = Contestant("xent", [3.0, 3.0, 4.5])
    result = BenchResult(Case((10, 10)), [mine, Contestant("numpy", [9.0, 1.0, 9.0])], slow, 400)
    assert result.limit() == 3.0  # of 3, 1 and 4.5
    shares = [row["of_the_limit"] for row in result.rows()]
    assert shares == [1.0, pytest.approx(3 / 9)]


def test_calls_in_a_loop_have_no_limit_and_make_new_outputs():
    result = result_of(Case((10, 10)), "numpy", loop=True)
    assert "of_the_limit" not in result.columns
    assert all(len(one.seconds) == 2 for one in result.contestants)
    assert as_lines(result).splitlines()[0].endswith("; a new output in every call")
    data = Data.make(Case((10, 10)))
    run = peers.ours(Case((10, 10)), data, ("cpu", None), new_output=True)
    assert not np.shares_memory(run()[1], run()[1])


def processes_of(*names, runs=1):
    plan = Plan(names, warmup=0, runs=runs, machine=("numpy", None))
    return processes.measure(Case((30, 8)), plan, lambda text: None)


def test_whole_processes_of_xent_and_a_script():
    result = processes_of("numpy", runs=2)
    mine, other = result.rows()
    assert [mine["who"], other["who"]] == ["xent", "numpy"]
    assert mine["times_ours"] == 1
    assert len(other["seconds"]) == 2
    assert 5 < other["peak_mb"] < 500
    assert other["cpu_ms"] > 0
    ratios = np.divide(other["seconds"], mine["seconds"])
    assert other["times_ours"] == pytest.approx(np.median(ratios))
    lines = as_lines(result).splitlines()
    assert lines[1].split("\t") == list(OF_PROCESSES)
    assert json.loads(as_json([result]))["cases"][0]["contestants"][1]["who"] == "numpy"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("raise SystemExit('no\\x1b memory')", r"failed: no\x1b memory"),
        ("import sys, numpy as n; n.save(sys.argv[3], n.ones((30, 8)))", "gives a wrong answer"),
        ("import sys, numpy as n; n.save(sys.argv[3], n.ones(3))", "gives a wrong answer"),
    ],
)
def test_a_script_that_fails_or_is_wrong_is_not_timed(monkeypatch, tmp_path, script, reason):
    (tmp_path / "s.py").write_text(script)
    monkeypatch.setitem(processes.SCRIPTS, "numpy", str(tmp_path / "s.py"))
    mine, other = processes_of("numpy").rows()
    assert (other["why_not"], other["seconds"]) == (reason, [])
    assert mine["why_not"] is None


def test_a_library_that_is_not_there_is_not_started(monkeypatch):
    monkeypatch.setattr(processes.importlib.util, "find_spec", lambda name: None)
    assert processes_of("torch").rows()[1]["why_not"] == "is not installed"


def table(mine=2.0, limit=1.0, title="a", numpy=None):
    """The JSON of one case."""
    others = [] if numpy is None else [{"who": "numpy", "median_ms": numpy}]
    rows = [{"who": "xent", "median_ms": mine}, *others]
    return {"case": title, "limit_ms": limit, "contestants": rows}


class Measured:
    """A result with the figures of a table."""

    def __init__(self, **figures):
        self.case = table(**figures)

    def about(self):
        return {name: value for name, value in self.case.items() if name != "contestants"}

    def rows(self):
        return self.case["contestants"]


@pytest.mark.parametrize(
    ("old", "new", "factor", "unit"),
    [
        (table(), Measured(mine=6.0, limit=2.0), 1.5, "the limit"),  # of a slower machine
        (table(limit=None, numpy=4.0), Measured(mine=3.0, numpy=4.0), 1.5, "the time of numpy"),
        (table(limit=None), Measured(mine=3.0, numpy=9.0), 1.5, "ms"),
    ],
)
def test_times_are_compared_in_units_of_what_was_measured_beside_them(old, new, factor, unit):
    (change,) = baseline.changes([table(title="b"), old], [new, Measured(title="c")])
    assert (change.factor, change.unit) == (pytest.approx(factor), unit)


def test_a_case_that_has_become_slower_is_exit_code_1(tmp_path):
    old = tmp_path / "old.json"
    assert captured("bench", *SMALL, "-o", old).code == 0
    done = captured("bench", *SMALL, "--baseline", old, "--fail-above", "1000")
    assert done.code == 0, done.err
    assert "× the baseline, in units of the limit" in done.err
    figures = json.loads(old.read_text())
    figures["cases"][0]["limit_ms"] *= 1e6
    old.write_text(json.dumps(figures))
    done = captured("bench", *SMALL, "--baseline", old, "--fail-above", "1000")
    assert done.code == 1
    assert done.err.rstrip().endswith(": slower")
    assert done.text  # the table is there all the same
    assert_error(captured("bench", "--shape", "3,3", "--baseline", old, "-q"), 2, "--baseline")


@pytest.mark.parametrize(
    "text", ["", "[]", '{"cases": [3]}', '{"cases": [{"case": 1, "contestants": []}]}', "\xff"]
)
def test_a_baseline_that_is_none(tmp_path, text):
    path = tmp_path / "old.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(FormatError, match="not the JSON of xent bench"):
        baseline.load(str(path), [])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--shape", "5"], "--shape: (5,) is not allowed; expected N,C or more axes"),
        (["--shape", "5,x"], "whole numbers separated by commas"),
        (["--shape", "5,0"], "N,C or more axes"),
        (["--shape", "1000000000,1000000"], "N,C or more axes"),
        (["--against", "tensorflow"], "'tensorflow' is not one of"),
        (
            ["--shape", "5,5", "--in-place", "--loss-only"],
            "--in-place: without a gradient nothing is written",
        ),
        (["--runs", "0"], "x>=1"),
        (["--loop", "--process"], "not timed in a loop"),
        (["--process", "--shape", "5,5", "--weighted"], "the plain loss and gradient"),
        (["--process", "--shape", "5,5", "--dtype", "bf16"], "the plain loss and gradient"),
        (["--process", "--backend", "cuda"], "in the host's memory"),
        (["--fail-above", "0"], "x>0"),
        (["--baseline", "nowhere.json"], "nowhere.json"),
    ],
)
def test_wrong_use(arguments, words):
    done = captured("bench", *arguments)
    assert done.code == 2
    assert words in done.err
    assert not done.text


def test_an_unknown_peer_in_python():
    with pytest.raises(OptionError, match="not known"):
        Plan(("tensorflow",))
