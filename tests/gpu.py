"""Everything that needs a CUDA device, in one run: `python tests/gpu.py [--quick]`.

Versions and device; every kernel compiled, with its registers and spills; the tests that run on
any backend; results at real sizes against exact ones; arrays of the host and of PyTorch; speed
beside a copy in the device's memory, and beside others. A part that fails does not stop the rest,
each has a time limit, and a short table comes last. The exit code is 1 where anything failed, or
where there is no device.
xent need not be installed. NUMBA_ENABLE_CUDASIM=1 runs all of it at tiny sizes on the simulator.
"""

import argparse
import gc
import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from importlib import metadata
from pathlib import Path

TESTS = Path(__file__).resolve().parent
sys.path[:0] = [str(TESTS.parent), str(TESTS)]

import numpy as np  # noqa: E402 (the paths come first)
from backends import SIMULATED, up_to  # noqa: E402

MARK = "@@ "  # begins the lines that go into the table
KINDS = ("f32", "bf16", "f16", "f64")
CLASSES = (1, 2, 63, 64, 65, 1000, 4096, 8192, 8193, 32768, 50257, 65536, 128256, 262144, 1000003)
TIMED = (4096, 8192, 32768, 65536, 131072, 262144)
OPTIONS = (
    {"label_smoothing": 0.1},
    {"softcap": 30.0, "temperature": 0.7},
    {"z_loss": 1e-3},
    {"label_smoothing": 0.1, "softcap": 20.0, "temperature": 1.5, "z_loss": 0.01},
)
FORMATS = {"f16": (10, -24), "bf16": (7, -133), "f32": (23, -149), "f64": (52, -1074)}
SECONDS = {"compile": 150, "check": 180, "suite": 200, "arrays": 50, "speed": 150}


def say(text, table=False):
    """A line, at once; with `table` it is told again at the end."""
    sys.stdout.write((MARK if table else "") + text + "\n")
    sys.stdout.flush()


class Found:
    """How many checks there were, the worst errors, and what failed."""

    def __init__(self):
        self.checks, self.failed, self.worst = 0, [], {}

    def expect(self, true, what):
        """One check."""
        self.checks += 1
        if not true:
            self.failed.append(what)
            say(f"FAILED: {what}")

    def within(self, error, kind, what, limit=None):
        """An error in ULP."""
        self.worst[kind] = max(self.worst.get(kind, 0.0), error)
        limit = promised(kind) if limit is None else limit
        self.expect(error <= limit, f"{what}: {error:.3g} ULP, at most {limit}")

    def guarded(self, what, function, *arguments):
        """One case; whatever it raises is a failure of this case alone."""
        try:
            function(self, *arguments)
        except Exception as error:  # noqa: BLE001 (the rest goes on)
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            self.expect(False, f"{what}: {reason[:300]}")

    def tell(self, name):
        """The line of the table, and the exit code."""
        worst = ", ".join(f"{kind} {error:.2f}" for kind, error in self.worst.items())
        state = f"{len(self.failed)} FAILED" if self.failed else "passed"
        say(f"{name}: {self.checks} checks, {state}" + (f"; ULP: {worst}" if worst else ""), True)
        for what in self.failed[:5]:
            say(f"    {what[:150]}", True)
        return bool(self.failed)


def promised(kind, options=()):
    """The bound of the gradient's entries, as it is promised for some options of `OPTIONS`."""
    from xentcli.backends.accuracy import KINDS as KINDS_OF_OPTIONS
    from xentcli.backends.accuracy import PROMISES

    given = [name for name, own in KINDS_OF_OPTIONS.items() if {*options} & {*own}]
    bound = PROMISES[kind, given[-1] if given else "plain"]
    return max(bound.target, bound.others)


def spacing(exact, kind):
    """One unit in the last place."""
    digits, smallest = FORMATS[kind]
    exponents = np.frexp(exact)[1] - np.longdouble(1)
    return np.exp2(np.maximum(exponents - digits, smallest))


def exact_rows(x, y, label_smoothing=0.0, softcap=None, temperature=1.0, z_loss=0.0):
    """Losses, gradients and the size of a gradient's terms, in extended precision."""
    n, c = x.shape
    rows = np.arange(n)
    z = x.astype(np.longdouble) / np.longdouble(temperature)
    slope = 1 / np.longdouble(temperature)
    if softcap:
        t = np.tanh(z / softcap)
        z, slope = softcap * t, slope * (1 - t * t)
    e = np.exp(z - z.max(axis=1, keepdims=True))
    own = e[rows, y].copy()
    e[rows, y] = 0
    rest = e.sum(axis=1)  # without the target: nothing cancels
    e[rows, y] = own
    s = own + rest
    p = e / s[:, None]
    loss, lse = np.log1p(rest / own), z.max(axis=1) + np.log(s)
    if not (label_smoothing or z_loss or softcap):
        grad = p.copy()
        grad[rows, y] = -rest / s
        return loss, grad * slope, np.abs(grad * slope)
    eps, a = np.longdouble(label_smoothing), np.full(x.shape, np.longdouble(label_smoothing) / c)
    a[rows, y] += 1 - eps
    loss = (1 - eps) * loss + eps * (lse - z.mean(axis=1)) + z_loss * lse**2
    pull = 2 * np.longdouble(z_loss) * (lse[:, None] * p)
    return loss, (p - a + pull) * slope, (p + a + np.abs(pull)) * np.abs(slope)


def made(rng, classes, kind, rows):
    """Rows of every temper: flat, steep, certain, far from zero."""
    from xentcli.arrays.dtypes import NAMES, narrow, widen

    x = rng.standard_normal((rows, classes)) * rng.choice([0.1, 1, 4, 10], size=(rows, 1))
    y = rng.integers(0, classes, rows)
    x[0, y[0]] += 12
    x[-1] += 100
    x = narrow(x if kind == "f64" else x.astype(np.float32), NAMES[kind])
    return x, widen(x, NAMES["f64"]), y


def host(array):
    """NumPy's array of any."""
    return array.copy_to_host() if hasattr(array, "copy_to_host") else np.asarray(array)


def wide(array):
    """As float64."""
    from xentcli.arrays.dtypes import NAMES, widen

    return widen(host(array), NAMES["f64"])


def one_case(found, classes, kind, rows, options):
    """In place on the device: exact, the same bits twice, and for each row alone."""
    from xentcli import cross_entropy
    from xentcli.backends.cuda.bench_arrays import repeated

    what = f"C={classes} N={rows} {kind} {options or ''}"
    few = min(rows, max(2, min(16, up_to(1 << 20, 64) // classes)))
    x, x64, y = made(np.random.default_rng(classes), classes, kind, few)
    logits, targets = repeated(x, rows), repeated(y, rows)
    out = logits.copy()
    given = {"reduction": "none", **options}
    r = cross_entropy(out, targets, out=out, **given)
    losses, grad = host(r.loss), wide(out[:few])
    loss, exact, terms = exact_rows(x64, y, **options)
    limit = None if not options or kind in ("f16", "bf16") else promised(kind, options)
    size = terms if limit else exact
    error = np.abs(grad - exact) / spacing(size, kind)
    found.within(float(error.max()), kind, f"{what} gradient", limit)
    unit = "f64" if kind == "f64" else "f32"
    error = np.abs(losses[:few] - loss) / spacing(loss, unit)
    found.expect(float(error.max()) <= (limit or 2), f"{what} loss: {error.max():.3g} ULP")
    same = losses.tobytes() == np.resize(losses[:few], rows).tobytes()
    found.expect(same, f"{what}: equal rows have other losses elsewhere")
    last = host(out[rows - 1]).tobytes()
    found.expect(last == host(out[(rows - 1) % few]).tobytes(), f"{what}: nor gradients")
    again = logits.copy()
    second = host(cross_entropy(again, targets, out=again, **given).loss)
    found.expect(second.tobytes() == losses.tobytes(), f"{what}: the second run has other bits")
    alone, mine = logits[:1].copy(), targets[:1]
    r = cross_entropy(alone, mine, out=alone, **given)
    found.expect(host(alone).tobytes() == host(out[:1]).tobytes(), f"{what}: one row alone differs")
    lost = host(cross_entropy(logits, targets, grad=False, **given).loss)
    found.expect(lost.tobytes() == losses.tobytes(), f"{what}: the loss alone has other bits")


def out_of_range(found, classes, rows):
    """Found before it is used; nothing is written."""
    from xentcli import DataError, cross_entropy
    from xentcli.backends.cuda.bench_arrays import repeated

    logits = repeated(np.ones((1, classes), np.float32), rows)
    for bad in (classes, -1):
        y = np.zeros(rows, np.int64)
        y[rows // 2 :] = bad
        try:
            cross_entropy(logits, repeated(y, rows), out=logits)
            found.expect(False, f"target {bad} of {classes} classes was taken")
        except DataError as error:
            words = f"row {rows // 2} is {bad}"
            found.expect(words in str(error), f"{words} is not in: {error}")
    found.expect((wide(logits[:1]) == 1).all(), "a wrong target, and something was written")


def probabilities(found, classes, kind):
    """softmax and its logarithm, and probability targets against the class indices they mean."""
    from xentcli import cross_entropy, log_softmax, softmax
    from xentcli.backends.cuda.bench_arrays import repeated

    x, x64, y = made(np.random.default_rng(1), classes, kind, 4)
    z = x64.astype(np.longdouble)
    z -= z.max(axis=1, keepdims=True)
    logs = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    for function, exact in ((softmax, np.exp(logs)), (log_softmax, logs)):
        out = repeated(x, 4)
        function(out, out=out)
        error = np.abs(wide(out) - exact) / spacing(exact, kind)
        found.within(float(error.max()), kind, f"{function.__name__} C={classes} {kind}")
    hot = np.zeros((4, classes), "f4")
    hot[np.arange(4), y] = 1
    a, b = repeated(x, 4), repeated(x, 4)
    cross_entropy(a, repeated(y, 4), out=a, reduction="none")
    cross_entropy(b, repeated(hot, 4), out=b, reduction="none", target_kind="probs")
    close = np.allclose(wide(a), wide(b), rtol=2e-6 if kind == "f32" else 1e-2, atol=0)
    found.expect(close, f"C={classes} {kind}: one-hot probabilities are not the indices")


def check(quick):
    """Results at real sizes."""
    found = Found()
    sizes = (1, 5, 40) if SIMULATED else CLASSES[::2] if quick else CLASSES
    for classes in sizes:
        for kind in KINDS[:2] if SIMULATED else KINDS:
            rows = up_to(min(1000, max(3, (1 << 24) // classes)), 3)
            found.guarded(f"C={classes} {kind}", one_case, classes, kind, rows, {})
    for classes in (33,) if SIMULATED else (63, 1000, 8193, 50257, 262144):
        for kind in ("f32", "bf16"):
            for options in OPTIONS[-1:] if SIMULATED else OPTIONS:
                found.guarded(f"{options}", one_case, classes, kind, up_to(40, 2), options)
            found.guarded(f"softmax {classes}", probabilities, classes, kind)
    for rows, classes in (
        ((1, 40), (4, 8))
        if SIMULATED
        else (
            *((1, 262144), (2, 1000003), (3, 128256)),  # few rows, many classes
            *((16400, 131072), ((1 << 25) + 5, 64)),  # more than 2³¹ logits
        )
    ):
        found.guarded(f"{rows} × {classes}", one_case, classes, "bf16", rows, {})
    found.guarded("out of range", out_of_range, up_to(1000, 4), up_to(100_000, 6))
    return found.tell("real sizes")


def host_arrays(found, rows, classes):
    """Through the page-locked buffers: the same bits, and how fast."""
    from xentcli import cross_entropy
    from xentcli.backends.cuda.bench_arrays import repeated

    for kind in ("f32", "bf16"):
        x, _, y = made(np.random.default_rng(3), classes, kind, min(rows, 64))
        again = -(-rows // len(x))
        logits, targets = np.concatenate([x] * again)[:rows], np.resize(y, rows)
        out, moved, given = np.empty_like(logits), repeated(x, rows), {"reduction": "none"}
        seconds = []
        for _ in range(up_to(4, 1)):
            start = time.perf_counter()
            r = cross_entropy(logits, targets, out=out, backend="cuda", **given)
            seconds.append(time.perf_counter() - start)
        there = cross_entropy(moved, repeated(targets, rows), out=moved, **given)
        found.expect(host(moved).tobytes() == out.tobytes(), f"{kind}: other bits from the host")
        found.expect(host(there.loss).tobytes() == r.loss.tobytes(), f"{kind}: other losses")
        rate = 2 * logits.nbytes / min(seconds) / 1e9
        say(f"host arrays {kind} {rows} × {classes}: {rate:.1f} GB/s in and out", True)


def torch_tensors(found, rows, classes):
    """In, out, in place, on a stream of their own; memory stays as it is."""
    import torch

    from xentcli import cross_entropy

    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        x = torch.randn(rows, classes, device="cuda", dtype=torch.float32).mul_(4).to(dtype)
        y = torch.randint(0, classes, (rows,), device="cuda")
        before, out = x.clone(), torch.empty_like(x)
        r = cross_entropy(x, y, out=out)
        found.expect(r.grad is out and torch.equal(x, before), f"torch {dtype}: out")
        leaf = x.float().requires_grad_(True)
        expected = torch.nn.functional.cross_entropy(leaf, y)
        expected.backward()
        close = torch.allclose(out.float(), leaf.grad, rtol=0.02, atol=1e-3 / rows)
        found.expect(close, f"torch {dtype}: another gradient")
        found.expect(abs(r.loss - expected.item()) < 1e-4 * r.loss, f"torch {dtype}: another loss")
        torch.cuda.synchronize()
        with torch.cuda.stream(torch.cuda.Stream()):
            side = x.clone()
            cross_entropy(side, y, out=side)
            found.expect(torch.equal(side, out), f"torch {dtype}: in place, another stream")
        for _ in range(3):
            cross_entropy(x, y, grad=False)
        free = torch.cuda.mem_get_info()[0]
        for _ in range(50):
            cross_entropy(x, y, out=out)
            cross_entropy(x, y, grad=False)
        grown = free - torch.cuda.mem_get_info()[0]
        found.expect(grown < 1 << 26, f"torch {dtype}: {grown >> 20} MiB more after 100 calls")


def arrays(quick):
    """Arrays of the host and of PyTorch."""
    found = Found()
    shape = (5, 7) if SIMULATED else (4096 if quick else 8192, 32768)
    found.guarded("host arrays", host_arrays, *shape)
    if SIMULATED or importlib.util.find_spec("torch") is None:
        say("torch tensors: PyTorch is not used here", True)
    else:
        found.guarded("torch", torch_tensors, 1000, 4099)
    return found.tell("arrays")


def used(dispatcher):
    """(name, registers, local and shared bytes) of everything that a kernel was compiled to."""
    for kernel in dispatcher.overloads.values():
        if hasattr(kernel, "regs_per_thread"):  # functions that kernels call have none
            memory = kernel.local_mem_per_thread, kernel.shared_mem_per_block
            yield dispatcher.py_func.__name__, kernel.regs_per_thread, *memory


def compile_all(quick):
    """Every kernel by using it once."""
    found, start = Found(), time.perf_counter()
    for classes in (3,) if SIMULATED else (3, 100, 3000, 70000, 300_000):
        for kind in KINDS[:1] if SIMULATED else KINDS:
            for options in ({}, OPTIONS[-1]):
                found.guarded(f"C={classes} {kind}", one_case, classes, kind, 2, options)
            found.guarded(f"softmax {classes} {kind}", probabilities, classes, kind)
    say(f"compiled and run once: {time.perf_counter() - start:.1f} s", True)
    kernels = [item for item in gc.get_objects() if type(item).__name__ == "CUDADispatcher"]
    lines = sorted({line for item in kernels for line in used(item)})
    for name, registers, local, shared in lines:
        spilled = f", SPILLS {local} bytes" if local else ""
        say(f"{name}: {registers} registers, {shared} bytes shared{spilled}", bool(local))
    if lines:
        most = max(lines, key=lambda line: line[1])
        spills = sum(bool(line[2]) for line in lines)
        say(f"{len(lines)} kernels, {spills} spill; most registers: {most[0]} {most[1]}", True)
    return found.tell("compiled kernels")


def suite(quick):
    """The tests that run on any backend, on `cuda`."""
    from test_cuda_suite import PYTEST, files

    wanted = [path for path in files() if not (SIMULATED and path.name != "test_edges.py")]
    if importlib.util.find_spec("click") is None:  # without the command line
        wanted = [path for path in wanted if "from cli import" not in path.read_text()]
    some = ["-k", "masked"] if SIMULATED else ["-k", "not pair"] if quick else []
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [*PYTEST, "-q", "-m", "backends", f"-ocache_dir={cache}", *some, *map(str, wanted)],
            cwd=TESTS.parent,
            env={**os.environ, "XENT_TEST_BACKENDS": "cuda", "PYTHONPATH": str(TESTS.parent)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    say(done.stdout[-6000:])
    last = (done.stdout.strip().splitlines() or ["pytest said nothing"])[-1]
    say(f"suite on the device: {last.strip('= ')}", True)
    for line in re.findall(r"^(?:FAILED|ERROR) .*", done.stdout, re.MULTILINE)[:5]:
        say(f"    {line[:150]}", True)
    return bool(done.returncode)


def timed(case, against, runs):
    """Milliseconds, the share of what moving the bytes takes, and the others' times."""
    from xentcli.bench import Plan, measure

    result = measure(case, Plan(against, 2, runs, 0, ("cuda", None)), lambda text: None)
    mine, *others = result.rows()
    if mine["why_not"]:
        raise RuntimeError(f"{case.title()}: xent {mine['why_not']}")
    for row in others:
        if row["why_not"]:
            say(f"{case.title()}: {row['who']} {row['why_not']}")
    rates = {name: rate / 1e9 for name, rate in result.rates().items()}
    return mine, {row["who"]: row["times_ours"] for row in others}, rates


def alone(shape, kind, runs):
    """Seconds of the kernels for loss and gradient, without the checks and sums around them: many
    calls are put into a stream one after the other, so that the device waits for nobody."""
    from numba import cuda

    from xentcli.backends import Scalars
    from xentcli.backends.cuda import launch
    from xentcli.backends.cuda.bench_arrays import repeated
    from xentcli.backends.cuda.box import boxed
    from xentcli.bench.case import Case, Data

    part, (rows, classes) = Data.make(Case(shape, kind)), shape
    x = repeated(part.logits, rows).data.reshape(-1)
    y = repeated(part.targets.astype(np.int64), rows).data
    weight, scale = (repeated(np.ones(n), n).data for n in (classes, 1))
    results, grad = cuda.device_array((2, rows)), cuda.device_array(x.shape, x.dtype)
    boxes = [boxed(array, (rows, classes, 1)) for array in (x, grad)]

    def call():
        launch.rows(boxes[0], y, weight, scale, Scalars(), results, boxes[1])

    call()
    cuda.synchronize()
    start = time.perf_counter()
    for _ in range(runs):
        call()
    cuda.synchronize()
    return (time.perf_counter() - start) / runs


def speed_of(found, classes, kind, nbytes, runs, compiled):
    """One line of the table."""
    from xentcli.arrays.dtypes import NAMES
    from xentcli.bench.case import Case

    shape = (max(1, nbytes // NAMES[kind].itemsize // classes), classes)
    cells, compiling = [], ("torch-compile",) if compiled else ()
    for options, against in (
        ({}, ("torch", *compiling, "liger")),
        ({"in_place": True}, ("liger",)),
        ({"gradient": False}, ("torch", "liger")),
    ):
        mine, others, rates = timed(Case(shape, kind, **options), against, runs)
        if mine["grad_ulp"] is not None:
            found.within(mine["grad_ulp"], kind, f"{shape} gradient of the mean")
        share, words = (
            mine["of_the_limit"],
            "".join(
                f" {who.replace('torch-compile', 'compile')}×{times:.1f}"
                for who, times in others.items()
                if times
            ),
        )
        cells.append(f"{mine['median_ms']:.3f} {mine['gb_per_s']:.0f} {share:.0%}{words}")
    seconds = alone(shape, kind, runs)
    rate = 2 * shape[0] * classes * NAMES[kind].itemsize / seconds / 1e9
    cells.append(f"{seconds * 1e3:.3f} {rate:.0f} {rate / max(rates['copy'], 1e-9):.0%}")
    moved = "/".join(f"{rates[name]:.0f}" for name in ("copy", "in place", "read"))
    say(f"{kind} {classes}: {' | '.join(cells)} | {moved}", True)


def speed(quick):
    """Beside the limits and the others; each answer is checked before it is timed."""
    found = Found()
    nbytes = up_to(1 << (30 if quick else 31), 256)
    head = "speed, ms GB/s share (others' time by ours): both | in place | loss | kernels of both"
    say(f"{head} | GB/s of copy/in place/read", True)
    sizes = (8,) if SIMULATED else TIMED[::2] if quick else TIMED
    for kind in ("bf16",) if SIMULATED else ("bf16", "f32"):
        for classes in sizes:
            compiled = kind == "bf16" and classes in (32768, 131072)
            what = f"speed {kind} {classes}"
            found.guarded(
                what, speed_of, classes, kind, nbytes, up_to(10 if quick else 20, 1), compiled
            )
    return found.tell("speed")


PARTS = {
    "compile": compile_all,
    "check": check,
    "arrays": arrays,
    "suite": suite,
    "speed": speed,
}


def versions():
    """Of everything that takes part."""
    names = ("numpy", "numba", "numba-cuda", "torch", "triton", "liger-kernel", "pytest")
    found = [f"Python {sys.version.split()[0]}"]
    for name in names:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"no {name}")
    return ", ".join(found)


def device():
    """What runs the kernels."""
    if SIMULATED:
        return "simulator"
    ask = "name,driver_version,memory.total,compute_cap,clocks.max.memory,power.limit"
    command = ["nvidia-smi", f"--query-gpu={ask}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nvidia-smi: {error}"


def missing():
    """Why nothing of this can run here, in a line, or nothing."""
    from xentcli.backends import get
    from xentcli.errors import XentError

    try:
        get("cuda", 0)
    except XentError as error:
        return str(error)
    return ""


class Part:
    """A part in a process of its own: what a device kills with it is this part alone."""

    def __init__(self, name, quick):
        self.name, self.start = name, time.perf_counter()
        self.file = tempfile.TemporaryFile("w+")  # noqa: SIM115 (`end` reads it)
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), "--part", name, *(["--quick"] if quick else [])],
            stdout=self.file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that what it has started ends with it
        )

    def end(self):
        """(its lines of the table, whether it failed)."""
        try:
            code = self.process.wait(max(1, self.start + SECONDS[self.name] - time.perf_counter()))
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            code = "out of time"
        self.file.seek(0)
        text = self.file.read()
        say(f"--- {self.name}\n{text}")
        lines = [line.removeprefix(MARK) for line in text.splitlines() if line.startswith(MARK)]
        taken = time.perf_counter() - self.start
        lines.append(f"[{self.name}: {taken:.0f} s" + (f", exit code {code}]" if code else "]"))
        if code not in (0, 1) and text.strip():
            lines.append(f"    {text.strip().splitlines()[-1][:150]}")
        return lines, code != 0


def run_part(name, quick):
    """In the part's own process."""
    warnings.filterwarnings("ignore", module="numba")
    if SIMULATED:
        from simulated import complete

        complete()
    return int(PARTS[name](quick))


def main(arguments):
    """All parts; the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="about half of everything")
    parser.add_argument("--part", choices=PARTS, help="only this one, in this process")
    given = parser.parse_args(arguments)
    if given.part:
        return run_part(given.part, given.quick)
    table, failed = [versions(), f"device: {device()}"], False
    say("\n".join(table))
    if reason := missing():
        say(f"FAILED: {reason}")
        return 1
    # What is timed, or looks at the device's memory, is alone; the rest compiles side by side.
    for names in (("compile", "check", "suite"), ("arrays",), ("speed",)):
        for part in [Part(name, given.quick) for name in names]:
            lines, bad = part.end()
            table += lines
            failed |= bad
    say("=" * 80 + "\n" + "\n".join(table[:58]))
    say("FAILED" if failed else "everything passed")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
