"""Python threads that run kernels: how many, what they share, and what they leave."""

import itertools
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from helpers import assert_same_bits
from test_kernels import CLASSES, KINDS, OPTIONS, in_kind, options_of, problem

from xentcli import cross_entropy, log_softmax, softmax
from xentcli.backends import processors
from xentcli.backends.cpu import backend, kept, loader, threads
from xentcli.backends.cpu.bandwidth import MemoryKernels
from xentcli.backends.cpu.kernel import Kernel
from xentcli.backends.cpu.loader import CannotLoadError
from xentcli.backends.cpu.workspace import space_for


def limits(root, groups, files):
    """A copy of what Linux says about control groups."""
    for name, text in {"proc/self/cgroup": groups, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return processors.quota(root)


FIRST = "sys/fs/cgroup/cpu,cpuacct"


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\\n", {"sys/fs/cgroup/cpu.max": "150000 100000\\n"}, 1.5),
        ("0::/\\n", {"sys/fs/cgroup/cpu.max": "max 100000\\n"}, np.inf),
        (  # the smallest of all groups around it counts
            "0::/a/b\\n",
            {"sys/fs/cgroup/a/cpu.max": "50000 100000", "sys/fs/cgroup/a/b/cpu.max": "2 1"},
            0.5,
        ),
        (
            "12:memory:/x\\n4:cpu,cpuacct:/docker/12ab\\n",
            {f"{FIRST}/cpu.cfs_quota_us": "300000\\n", f"{FIRST}/cpu.cfs_period_us": "100000\\n"},
            3.0,
        ),
        (
            "4:cpu,cpuacct:/a\\n",
            {f"{FIRST}/a/cpu.cfs_quota_us": "-1\\n", f"{FIRST}/a/cpu.cfs_period_us": "100000\\n"},
            np.inf,
        ),
        ("0::/\\n", {"sys/fs/cgroup/cpu.max": "nonsense"}, np.inf),
        ("0::/\\n", {"sys/fs/cgroup/cpu.max": "1 0"}, np.inf),
        ("", {}, np.inf),
    ],
)
def test_quotas_of_control_groups(tmp_path, groups, files, expected):
    text = {name: value.replace("\\n", "\n") for name, value in files.items()}
    assert limits(tmp_path, groups.replace("\\n", "\n"), text) == expected


def test_a_system_without_control_groups_has_no_quota(tmp_path):
    assert processors.quota(tmp_path) == np.inf


@pytest.mark.parametrize(("quota", "expected"), [(np.inf, 4), (9.0, 4), (2.5, 3), (0.2, 1)])
def test_the_default_is_what_the_mask_and_the_quota_allow(monkeypatch, quota, expected):
    monkeypatch.setattr(processors, "available", lambda: 4)
    monkeypatch.setattr(processors, "_own_quota", lambda: quota)
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    assert processors.default_threads() == expected
    assert backend.CpuBackend().threads == expected
    assert backend.CpuBackend(2).threads == 2
    assert backend.CpuBackend(100).threads == 4
    monkeypatch.setenv("NUMBA_NUM_THREADS", "6")
    assert backend.CpuBackend().threads == 6
    assert backend.CpuBackend(5).threads == 5


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs affinity masks")
def test_the_affinity_mask_is_respected():
    code = (
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "from xentcli.backends.cpu.backend import CpuBackend\n"
        "raise SystemExit(CpuBackend().threads != 1)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_NUM_THREADS"}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


def used(parts, threads_wanted):
    """Which threads ran the parts; each waits until so many are at it."""
    barrier, names = threading.Barrier(threads_wanted), []

    def part(*_):
        barrier.wait(30)
        names.append(threading.current_thread().name)

    threads.run(part, [(0, 1)] * parts, parts)
    return names


def test_parts_run_at_the_same_time_and_also_on_the_thread_that_asks():
    names = used(3, 3)
    assert len(names) == 3
    assert threading.current_thread().name in names


@pytest.mark.parametrize("threads_wanted", [2, 3, 128])
@pytest.mark.parametrize(("rows", "least"), [(1, 1), (7, 1), (1000, 65), (1 << 25, 1 << 10)])
def test_shares_are_all_rows_once_and_get_smaller(rows, least, threads_wanted):
    shares = backend.shares_of(rows, threads_wanted, least)
    assert [begin for begin, _ in shares] == [0, *(end for _, end in shares[:-1])]
    assert shares[-1][1] == rows
    lengths = [end - begin for begin, end in shares]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] <= max(least, rows // 3)
    assert min(lengths[:-1], default=least) >= least
    assert len(shares) <= 2 + rows // least


def test_many_callers_at_once_have_their_own_parts():
    results = {}

    def caller(number):
        found = []
        for _ in range(50):
            threads.run(lambda i, _: found.append(i), [(i, i + 1) for i in range(5)], 5)
        results[number] = sorted(found)

    callers = [threading.Thread(target=caller, args=(number,)) for number in range(6)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    assert all(results[number] == sorted([*range(5)] * 50) for number in range(6))


def test_a_part_that_fails_is_an_error_of_the_job():
    both = threading.Barrier(2)

    def part(*_):
        both.wait(30)
        if threading.current_thread().name == "xent":
            raise RuntimeError("of a helper")

    with pytest.raises(RuntimeError, match="of a helper"):
        threads.run(part, [(0, 1)] * 2, 2)


@pytest.mark.parametrize("where", ["working", "waiting"])
def test_ctrl_c_waits_for_the_parts_that_are_begun(monkeypatch, where):
    begun, go_on, done = threading.Event(), threading.Event(), []

    def slow():
        begun.set()
        go_on.wait(30)
        done.append(1)

    def interrupted(*_):
        begun.wait(30)
        threading.Timer(0.05, go_on.set).start()
        raise KeyboardInterrupt

    def part(*_):
        if threading.current_thread().name == "xent":
            slow()
        elif where == "working":
            interrupted()
        else:
            begun.wait(30)

    if where == "waiting":
        wait_for, calls = threading.Condition.wait_for, []

        def once(self, predicate, timeout=None):
            calls.append(1)
            if len(calls) == 1:
                interrupted()
            return wait_for(self, predicate, timeout)

        monkeypatch.setattr(threading.Condition, "wait_for", once)
    with pytest.raises(KeyboardInterrupt):
        threads.run(part, [(0, 1)] * 2, 2)
    assert done == [1]


def test_where_no_thread_can_be_started_one_does_it_all(monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(threads, "_helpers", threads._Helpers())
    done = []
    threads.run(lambda i, _: done.append(i), [(i, i + 1) for i in range(3)], 3)
    assert done == [0, 1, 2]


FORK = """
import os, signal, sys, warnings
import numpy as np
warnings.simplefilter("ignore")  # that a process with threads forks
from xentcli import cross_entropy
from xentcli.backends.cpu import backend
backend.LEAST_PART = 1
x, y = np.random.default_rng(0).normal(size=(500, 9)), np.arange(500) % 9
first = cross_entropy(x, y, backend="cpu", threads=2).grad
pid = os.fork()
if pid == 0:
    signal.alarm(100)
    same = cross_entropy(x, y, backend="cpu", threads=2).grad.tobytes() == first.tobytes()
    os._exit(0 if same else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_has_threads_of_its_own():
    environment = {**os.environ, "NUMBA_NUM_THREADS": "2"}
    assert (
        subprocess.run([sys.executable, "-c", FORK], env=environment, timeout=120).returncode == 0
    )


@pytest.fixture
def many_threads(monkeypatch):
    """Eight threads, each with whatever little there is to do."""
    monkeypatch.setenv("NUMBA_NUM_THREADS", "8")
    monkeypatch.setattr(backend, "LEAST_PART", 1)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("classes", [2, 64, 65, 100])
def test_any_number_of_threads_gives_the_same_bits(many_threads, classes, name):
    x, y = problem(classes, "f32", rows=150)
    options = {**options_of(name, classes), "backend": "cpu", "reduction": "none"}
    one = cross_entropy(x, y, threads=1, **options)
    for count in (2, 3, 8):
        found = cross_entropy(x, y, threads=count, **options)
        assert_same_bits(found.grad, one.grad)
        assert_same_bits(found.loss, one.loss)
        assert_same_bits(found.lse, one.lse)


GUARD = 1 << 14  # bytes


@pytest.fixture
def guarded(monkeypatch):
    """Work space between bytes that no kernel may change; a function that looks at them."""
    rooms = []

    def work_space(nbytes):
        room = np.full(nbytes + 2 * GUARD + 64, 0xA5, np.uint8)
        begin = GUARD + -(backend.address(room) + GUARD) % 64
        rooms.append((room, begin, begin + nbytes))
        return room[begin : begin + nbytes]

    def look():
        assert rooms
        for room, begin, end in rooms:
            assert (room[:begin] == 0xA5).all()
            assert (room[end:] == 0xA5).all()
        rooms.clear()

    monkeypatch.setattr(backend, "work_space", work_space)
    return look


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("classes", [1, 2, 15, 17, 64, 65, 79, 100, 1000])
def test_a_kernel_stays_inside_its_work_space(guarded, classes, name):
    options = {**options_of(name, classes), "backend": "cpu"}
    for rows in (1, 7, 33):
        x, y = problem(classes, "f32", rows=rows)
        cross_entropy(x, y, **options)
        cross_entropy(np.asfortranarray(x), y, **options)
        softmax(x, backend="cpu")
        softmax(np.asfortranarray(x), backend="cpu")
        guarded()


def test_the_check_of_the_work_space_can_fail(guarded, monkeypatch):
    monkeypatch.setattr(backend, "space_for", lambda *shape: space_for(*shape) - GUARD // 2)
    x, y = problem(1000, "f32")
    cross_entropy(x, y, backend="cpu")
    with pytest.raises(AssertionError):
        guarded()


def by_numba(function, *arguments, **options):
    """The same where machine code can be neither kept nor loaded: by njit(parallel=True)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept, "find", lambda kernel, notify: None)
        return function(*arguments, backend="cpu", **options)


def assert_same_by_numba(kind, classes, name, **more):
    x, y = problem(classes, kind, rows=150)
    options = {**options_of(name, classes), "reduction": "none", **more}
    image = np.asfortranarray(x)
    for logits, count in ((x, 1), (x, 2), (image, 2)):
        outs = in_kind(x.shape, kind), in_kind(x.shape, kind)
        ours = cross_entropy(logits, y, backend="cpu", out=outs[0], **options)
        other = by_numba(cross_entropy, logits, y, threads=count, out=outs[1], **options)
        assert_same_bits(outs[0].view("u1"), outs[1].view("u1"))
        assert_same_bits(ours.loss, other.loss)
        assert_same_bits(ours.lse, other.lse)


def test_numbas_threads_are_used_where_machine_code_cannot_be_loaded(monkeypatch, tmp_path):
    """The kernel that compiles fastest; Numba gives no object code, or LLVM takes none."""
    from xentcli.backends.cpu import kernels

    def cannot(*_):
        raise CannotLoadError

    for place, name in ((kernels, "compile_kernel"), (loader, "_link")):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, cannot)
            patch.setattr(kept, "_loaded", {})
            patch.setenv("XENT_CACHE_DIR", str(tmp_path))
            x, y = np.linspace(0, 1, 999, dtype="f4"), np.zeros(999, "f4")
            memory = MemoryKernels(2)
            memory.copy(x, y)
            assert kept._loaded == {Kernel("copy", "float32"): None}
            assert np.count_nonzero(x == y) >= 999 - 32


@pytest.mark.slow  # each is compiled by Numba in this process
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize(("kind", "classes"), [*itertools.product(KINDS, CLASSES[1::2])])
def test_numbas_parallel_loops_give_the_same_bits(kind, classes, name):
    assert_same_by_numba(kind, classes, name)


@pytest.mark.slow  # each is compiled by Numba in this process
@pytest.mark.parametrize("classes", [17, 100])
@pytest.mark.parametrize("function", [softmax, log_softmax])
def test_numbas_parallel_softmax_gives_the_same_bits(function, classes):
    for kind in ("f32", "f64"):
        x, _ = problem(classes, kind)
        assert_same_bits(function(x, backend="cpu"), by_numba(function, x))


@pytest.mark.slow
@pytest.mark.parametrize("classes", [17, 100])
def test_numbas_parallel_loops_take_probabilities_and_no_gradient(classes):
    x, y = problem(classes, "f32")
    q = np.random.default_rng(0).dirichlet(np.ones(classes), len(x)).astype("f4")
    for targets, grad in ((q, True), (q, False), (y, False)):
        ours = cross_entropy(x, targets, backend="cpu", grad=grad, reduction="none")
        other = by_numba(cross_entropy, x, targets, grad=grad, reduction="none")
        assert_same_bits(ours.loss, other.loss)
        if grad:
            assert_same_bits(ours.grad, other.grad)
