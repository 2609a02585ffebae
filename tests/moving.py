"""How arrays are moved to a device: run by test_cuda.py, in a process of its own that starts with
NUMBA_ENABLE_CUDASIM=1.

The simulator takes its time for each thread of a kernel, so that the arrays are tiny. Where only
the moving matters, a copy on the device stands for the kernel.
"""

import os
import sys
import tempfile
import threading
import time
import warnings
import weakref
from pathlib import Path

import numpy as np
import pytest
from cli import captured, from_npy
from helpers import assert_same_bits

from xentcli.arrays.dtypes import BF16, NAMES, bits, narrow, widen
from xentcli.backends import Scalars, cuda, get
from xentcli.backends.cuda import CudaBackend, staging
from xentcli.backends.reference import NumpyBackend
from xentcli.engine import rows
from xentcli.errors import UnavailableError

PLAIN = Scalars()
EVERY = Scalars(label_smoothing=0.1, temperature=0.7, softcap=20.0, z_loss=0.01)


def problem(outer, classes, inner, kind="f4", seed=5):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(outer, classes, inner)) * 5
    y = rng.integers(0, classes, outer * inner)
    y[1] = -1
    scale = rng.random(outer * inner) + 0.5
    return narrow(x.astype("f4"), BF16) if kind == "bf16" else x.astype(kind), y, scale


def computed(backend, x, y, scale, *, grad=None, scalars=PLAIN):
    """Losses, log-sum-exps and gradient; each is full of something else before."""
    results = np.full((2, x.shape[0] * x.shape[2]), 7.0)
    if grad is None:
        grad = narrow(np.full(x.shape, 7.0), x.dtype)
    weight = np.linspace(0.5, 2, x.shape[1])
    backend.rows(x, y, weight, scale, scalars, results, grad)
    return results, grad


def assert_alike(found, expected, dtype):
    digits = {2: 1e-2, 4: 1e-6, 8: 1e-14}[dtype.itemsize]
    np.testing.assert_allclose(
        found[0], expected[0], rtol=max(digits, 3e-8) if digits < 1e-2 else 3e-8
    )
    wide = (widen(grad, NAMES["f64"]) for grad in (found[1], expected[1]))
    np.testing.assert_allclose(*wide, rtol=digits, atol=1e-7)


class Late(staging.Copiers):
    """Every copy takes its time, in another thread."""

    def copy(self, target, source):
        def later():
            time.sleep(0.002)
            np.copyto(target, source)

        return [self._pool.submit(later)]


def copied(source, target, entries, copiers):
    """What `staging.run` makes of a box when the device only copies, in pieces of rows."""
    step = max(1, entries // (source.shape[1] * source.shape[2]))

    def start(inputs, outputs, stream):
        outputs[0].copy_to_device(inputs[0], stream=stream)

    pieces = (
        staging.Transfer((source[a : a + step],), (target[a : a + step],), start)
        for a in range(0, len(source), step)
    )
    with staging.exclusive_device():
        staging.run(pieces, copiers)


def check_pieces_of_any_size_give_the_same_bits():
    for shape in ((7, 5, 1), (2, 5, 3)):
        x, y, scale = problem(*shape)
        expected = computed(CudaBackend(), x, y, scale, scalars=EVERY)
        assert_alike(expected, computed(NumpyBackend(), x, y, scale, scalars=EVERY), x.dtype)
        for piece in (1, 16):
            found = computed(CudaBackend(piece=piece), x, y, scale, scalars=EVERY)
            assert_same_bits(found[0], expected[0])
            assert_same_bits(found[1], expected[1])


def check_logits_are_overwritten_in_place():
    x, y, scale = problem(5, 4, 1)
    expected = computed(CudaBackend(), x, y, scale)
    found = computed(CudaBackend(piece=8), x, y, scale, grad=x)
    assert found[1] is x
    assert_same_bits(found[0], expected[0])
    assert_same_bits(x, expected[1])


def check_every_kind_goes_there_and_back():
    for kind in ("f2", "bf16", "f8"):
        x, y, scale = problem(3, 4, 1, kind)
        found = computed(CudaBackend(piece=8), x, y, scale)
        assert found[1].dtype == x.dtype
        assert_alike(found, computed(NumpyBackend(), x, y, scale), x.dtype)


def check_probabilities_and_no_gradient():
    x, _, scale = problem(3, 4, 1)
    q = np.random.default_rng(0).random(x.shape)
    results, weight = np.zeros((2, 2, 3)), np.ones(4)
    for backend, out in zip((CudaBackend(piece=8), NumpyBackend()), results, strict=True):
        backend.rows(x, q, weight, scale[:1], PLAIN, out, None)
    np.testing.assert_allclose(results[0], results[1], rtol=3e-8)


def check_softmax_along_a_middle_axis():
    x, _, _ = problem(2, 3, 4)
    for log in (False, True):
        p, q = np.full((2, *x.shape), 7.0, "f4")
        CudaBackend(piece=8).softmax(x, EVERY, log, p)
        NumpyBackend().softmax(x, EVERY, log, q)
        np.testing.assert_allclose(p, q, rtol=1e-6)


def check_no_rows():
    x, y, scale = problem(2, 3, 1)
    computed(CudaBackend(), x[:0], y[:0], scale[:0])


def check_what_lies_apart_is_gathered_and_scattered():
    """In several threads too, which share out what is large."""
    rng = np.random.default_rng(1)
    wide = rng.random((40, 600, 128)).astype("f4")
    for kind in (wide, narrow(wide, BF16)):
        source = kind[::2, :, :100]
        for threads in (1, 3):
            room = narrow(np.zeros((20, 601, 110)), kind.dtype)
            target = room[:, 1:, 10:]
            copied(source, target, 10 * 600 * 100, staging.Copiers(threads))
            assert_same_bits(bits(np.ascontiguousarray(target)), bits(source.copy()))
            assert not bits(room)[:, 0].any()
            assert not bits(room)[:, :, :10].any()


def check_weights_that_change_are_noticed():
    """And are there before any stream reads them."""
    weight, waited = np.ones(3), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(staging.cuda, "synchronize", lambda: waited.append(len(waited)))
        first = staging.device_weight(weight)
        assert staging.device_weight(weight.copy()) is first
        weight[1] = 2
        assert staging.device_weight(weight).copy_to_host().tolist() == [1, 2, 1]
    assert waited == [0, 1]


def check_a_failure_on_the_way_leaves_nothing_behind():
    source, target = np.arange(60.0).reshape(20, 3, 1), np.zeros((20, 3, 1))

    def start(inputs, outputs, stream):
        if inputs[0].copy_to_host()[0] == 18:
            raise KeyboardInterrupt
        outputs[0].copy_to_device(inputs[0], stream=stream)

    pieces = (
        staging.Transfer((source[a : a + 2],), (target[a : a + 2],), start) for a in range(0, 20, 2)
    )
    with pytest.raises(KeyboardInterrupt), staging.exclusive_device():
        staging.run(pieces, staging.Copiers(1))
    assert not target[6:].any()
    before, other = target.copy(), np.zeros_like(target)
    copied(source, other, 6, staging.Copiers(1))
    assert_same_bits(other, source)
    assert_same_bits(target, before)


def check_copies_that_are_interrupted_are_done_afterwards():
    """Nobody reads the caller's arrays any more when the call has ended."""
    begun, interrupted = [], threading.Event()

    class Interrupted(staging.Copiers):
        def copy(self, target, source):
            def later():
                interrupted.wait()
                time.sleep(0.05)

            begun.append(self._pool.submit(later))
            return begun[-1:]

        def wait(self, copies):
            copies = list(copies)
            if begun and not interrupted.is_set():
                interrupted.set()
                raise KeyboardInterrupt
            super().wait(copies)

    source = np.ones((1, 3, 1))
    with pytest.raises(KeyboardInterrupt):
        copied(source, np.zeros_like(source), 3, Interrupted(1))
    assert begun[0].done()


def check_memory_that_is_too_small_is_given_back_before_there_is_more():
    made, alive = [], []

    def pinned(size, dtype):
        alive.append(sum(one() is not None for one in made))
        array = np.empty(size, dtype)
        made.append(weakref.ref(array))
        return array

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(staging.cuda, "pinned_array", pinned)
        room = staging.StagingBuffer()
        for size in (3, 2, 5):
            assert room.of(np.ones(size))[0].shape == (size,)
    assert alive == [0, 0]


def check_a_buffer_is_used_again_only_when_it_is_free():
    source, target = np.arange(40.0).reshape(20, 2, 1), np.zeros((20, 2, 1))
    copied(source, target, 2, Late(2))
    assert_same_bits(target, source)


def check_threads_take_turns():
    sources = [np.full((50, 7, 1), float(number)) for number in range(4)]
    targets = [np.zeros((50, 7, 1)) for _ in sources]
    threads = [
        threading.Thread(target=copied, args=(a, b, 28, Late(2)))
        for a, b in zip(sources, targets, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for source, target in zip(sources, targets, strict=True):
        assert_same_bits(target, source)


def check_a_stream_hands_over_some_slabs_at_a_time():
    sizes = []

    class Watched(CudaBackend):
        slabs = 3

        def rows(self, logits, *rest):
            sizes.append(logits.shape)
            super().rows(logits, *rest)

    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        np.save(folder / "l.npy", np.arange(60, dtype="f4").reshape(20, 3) % 7)
        np.save(folder / "t.npy", np.arange(20) % 3)
        command = ["grad", folder / "l.npy", folder / "t.npy", "-q"]
        expected = from_npy(captured(*command).out)
        patch.setattr(rows, "SLAB", 9)
        patch.setattr(cuda, "CudaBackend", Watched)
        found = from_npy(captured(*command, "--backend", "cuda").out)
    assert sizes == [(9, 3, 1), (9, 3, 1), (2, 3, 1)]
    assert_same_bits(found, expected)


def check_a_long_start_is_explained_once():
    x, y, scale = problem(2, 3, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "run", lambda pieces, copiers: time.sleep(0.1))
        for patience, expected in ((0.001, [cuda.STARTING]), (60, [])):
            patch.setattr(cuda, "NOTIFY_AFTER", patience)
            said = []
            backend = CudaBackend(notify=said.append)
            for _ in range(2):
                computed(backend, x, y, scale)
            assert said == expected


def check_a_forked_child_says_so():
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are threads
        child = os.fork()
    if child == 0:
        try:
            get("cuda", 1)
        except UnavailableError as error:
            os.write(writer, str(error).encode())
        os._exit(0)
    os.close(writer)
    assert b"forked child" in os.read(reader, 1000)
    os.close(reader)
    os.waitpid(child, 0)


if __name__ == "__main__":
    names = [name for name in globals() if name.startswith("check_")]
    for name in names:
        globals()[name]()
        sys.stdout.write(f"{name}\n")
