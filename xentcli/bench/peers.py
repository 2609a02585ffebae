"""Other libraries that compute the same. Each converts the data first, and is timed without that.

A contestant is called with a case and its data, and returns a function that computes (loss,
gradient) once, or raises `CannotError` with the reason. None of the libraries is required.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import BF16, NAMES, widen
from xentcli.backends.processors import default_threads
from xentcli.bench.case import OPTIONS, Case, Data
from xentcli.engine.cross_entropy import cross_entropy
from xentcli.options import Backend

Answer = tuple[float, Any]
Contestant = Callable[[Case, Data, "Machine"], Callable[[], Answer]]
Machine = tuple[Backend, int | None]  # xent's backend, and threads for every implementation


class CannotError(Exception):
    """A case that a contestant cannot compute."""


def ours(
    case: Case, data: Data, machine: Machine, *, new_output: bool = False
) -> Callable[[], Answer]:
    """xent itself, into an allocated buffer, because PyTorch reuses its memory too; or with
    `new_output` into a new array in each call."""
    backend, threads = machine
    out = data.logits.copy() if case.gradient and not (new_output and not case.in_place) else None
    logits = out if case.in_place else data.logits
    options = case.loss_options()

    def run() -> Answer:
        result = cross_entropy(
            logits,
            data.targets,
            weight=data.weight,
            class_axis=case.class_axis,
            grad=case.gradient,
            out=out,
            backend=backend,
            threads=threads,
            **options,
        )
        return result.loss, result.grad

    return run


def _needs(case: Case, *, options: tuple[str, ...] = (), axis: bool = True) -> None:
    plain = type(case.options)()
    for name in OPTIONS:
        if name not in options and getattr(case.options, name) != getattr(plain, name):
            raise CannotError(f"has no {name}")
    if case.in_place:
        raise CannotError("does not work in place")
    if not axis and len(case.shape) != 2:
        raise CannotError("takes rows of classes only")


def _import(name: str) -> Any:
    if importlib.util.find_spec(name.partition(".")[0]) is None:
        raise CannotError("is not installed")
    return importlib.import_module(name)


def _tensor(torch: Any, array: Any) -> Any:
    if not isinstance(array, np.ndarray):
        tensor = torch.as_tensor(array.data, device="cuda")  # the same memory
        return tensor.view(torch.bfloat16) if array.numpy_dtype == BF16 else tensor
    if array.dtype == BF16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array)


def _torch_loss(torch: Any, case: Case, data: Data) -> Callable[[Any], Any]:
    x = _tensor(torch, data.logits)
    targets = _tensor(torch, data.targets).to(x.dtype) if case.probs else None
    t = targets if targets is not None else _tensor(torch, data.targets)
    weight = None if data.weight is None else _tensor(torch, data.weight).to(x.dtype)
    options, axis = case.options, case.layout.class_axis
    if axis != 1 and len(case.shape) != 2:
        raise CannotError("needs the classes on axis 1")
    function = torch.nn.functional.cross_entropy

    def loss(z: Any) -> Any:
        if options.temperature != 1:
            z = z / options.temperature
        if options.softcap is not None:
            z = options.softcap * torch.tanh(z / options.softcap)
        value = function(z, t, weight=weight, label_smoothing=options.label_smoothing)
        if options.z_loss:
            value = value + options.z_loss * (torch.logsumexp(z, axis) ** 2).mean()
        return value

    return loss


def _torch(case: Case, data: Data, machine: Machine, *, compiled: bool) -> Callable[[], Answer]:
    _needs(case, options=OPTIONS)
    torch = _import("torch")
    if machine[1]:
        torch.set_num_threads(machine[1])
    loss = _torch_loss(torch, case, data)
    loss = torch.compile(loss) if compiled else loss
    x = _tensor(torch, data.logits)

    def run() -> Answer:
        if not case.gradient:
            with torch.no_grad():
                return float(loss(x)), None
        leaf = x.detach().requires_grad_(True)
        value = loss(leaf)
        value.backward()
        return float(value.detach()), leaf.grad

    return run


def torch_eager(case: Case, data: Data, machine: Machine) -> Callable[[], Answer]:
    """PyTorch, eager: `cross_entropy(...).backward()`."""
    return _torch(case, data, machine, compiled=False)


def torch_compiled(case: Case, data: Data, machine: Machine) -> Callable[[], Answer]:
    """PyTorch with `torch.compile`."""
    return _torch(case, data, machine, compiled=True)


def liger(case: Case, data: Data, machine: Machine) -> Callable[[], Answer]:
    """Liger's kernel. It always overwrites the logits with the gradient; here it gets its own copy
    of them, which is not timed."""
    torch = _import("torch")
    _needs(
        replace(case, in_place=False), options=("label_smoothing", "softcap", "z_loss"), axis=False
    )
    if case.probs:
        raise CannotError("is compared with index targets only")
    function = _import("liger_kernel.transformers.functional").liger_cross_entropy
    t = _tensor(torch, data.targets)
    weight = None if data.weight is None else _tensor(torch, data.weight).float()
    x, options = _tensor(torch, data.logits.copy() if case.gradient else data.logits), case.options
    names = {"label_smoothing": options.label_smoothing, "lse_square_scale": options.z_loss}

    def run() -> Answer:
        leaf = x.detach().requires_grad_(case.gradient)
        value = function(leaf, t, weight=weight, softcap=options.softcap, **names)
        value = value[0] if isinstance(value, tuple) else value
        # not backward(), which would keep a copy of the gradient
        grad = torch.autograd.grad(value, leaf)[0] if case.gradient else None
        return float(value.detach()), grad

    return run


def jax_jit(case: Case, data: Data, machine: Machine) -> Callable[[], Answer]:
    """JAX: jit of value_and_grad over log_softmax."""
    _needs(case, options=OPTIONS)
    if case.dtype == "bf16":
        raise CannotError("is not compared in bfloat16")
    jax = _import("jax")
    if case.dtype == "f64":
        jax.config.update("jax_enable_x64", True)
    x, t, weight = (
        None if array is None else jax.numpy.asarray(array)
        for array in (data.logits, data.targets, data.weight)
    )
    loss = _jax_loss(jax, case)
    function = jax.jit(jax.value_and_grad(loss) if case.gradient else loss)

    def run() -> Answer:
        answer = jax.block_until_ready(function(x, t, weight))
        return (float(answer[0]), answer[1]) if case.gradient else (float(answer), None)

    return run


def _jax_loss(jax: Any, case: Case) -> Callable[[Any, Any, Any], Any]:
    """The loss of logits, targets and class weights. All are arguments: of targets that a function
    closes over, JAX may compute one-hot rows when it compiles, which is not timed."""
    jnp, options, axis = jax.numpy, case.options, case.layout.class_axis
    smooth = options.label_smoothing
    even = smooth / case.layout.classes

    def loss(x: Any, t: Any, weight: Any) -> Any:
        z = x / options.temperature if options.temperature != 1 else x
        z = options.softcap * jnp.tanh(z / options.softcap) if options.softcap else z
        lse = jax.nn.logsumexp(z, axis=axis, keepdims=True)
        logs = jnp.moveaxis(z - lse, axis, -1)
        w = jnp.ones((), x.dtype) if weight is None else weight.astype(x.dtype)
        if case.probs:
            q = jnp.moveaxis(t, axis, -1)
            mean = -(logs * ((1 - smooth) * q + even) * w).sum(-1).mean()
        else:
            wy = w if weight is None else w[t]
            rows = (1 - smooth) * wy * jnp.take_along_axis(logs, t[..., None], -1)[..., 0]
            rows = rows + even * (logs * w).sum(-1) if even else rows
            mean = -rows.mean() if weight is None else -rows.sum() / wy.sum()
        return mean + options.z_loss * (lse**2).mean() if options.z_loss else mean

    return loss


def numpy_plain(case: Case, data: Data, machine: Machine) -> Callable[[], Answer]:
    """The formula in five lines of NumPy, in the dtype of the logits."""
    _needs(case, axis=False)
    if case.probs or case.weighted:
        raise CannotError("supports index targets only")
    x = widen(data.logits, NAMES["f32"]) if case.dtype in ("f16", "bf16") else data.logits
    rows = np.arange(len(x))

    def run() -> Answer:
        e = x - x.max(axis=1, keepdims=True)
        loss = -e[rows, data.targets]
        np.exp(e, out=e)
        s = e.sum(axis=1, keepdims=True)
        loss = float((loss + np.log(s[:, 0])).mean(dtype=np.float64))
        if not case.gradient:
            return loss, None
        e /= s * len(x)
        e[rows, data.targets] -= 1 / len(x)
        return loss, e

    return run


def scipy_softmax(case: Case, data: Data, machine: Machine) -> Callable[[], Answer]:
    """SciPy: log_softmax, then its exponential."""
    _needs(case, axis=False)
    if case.probs or case.weighted:
        raise CannotError("is compared with index targets only")
    special = _import("scipy.special")
    x = widen(data.logits, NAMES["f32"]) if case.dtype in ("f16", "bf16") else data.logits
    rows = np.arange(len(x))

    def run() -> Answer:
        logs = special.log_softmax(x, axis=1)
        loss = -float(logs[rows, data.targets].mean(dtype=np.float64))
        if not case.gradient:
            return loss, None
        np.exp(logs, out=logs)
        logs[rows, data.targets] -= 1
        logs /= len(x)
        return loss, logs

    return run


def sklearn_half(case: Case, data: Data, machine: Machine) -> Callable[[], Answer]:
    """scikit-learn's half multinomial loss, as its linear models call it."""
    _needs(case, axis=False)
    if case.probs or case.weighted or case.dtype not in ("f32", "f64"):
        raise CannotError("is compared with index targets in float32 and float64 only")
    module = _import("sklearn._loss")
    half = module.HalfMultinomialLoss(n_classes=case.layout.classes)
    y, threads = data.targets.astype(data.logits.dtype), machine[1] or default_threads()

    def run() -> Answer:
        if not case.gradient:
            losses = half.loss(y, data.logits, n_threads=threads)
            return float(losses.mean(dtype=np.float64)), None
        losses, grad = half.loss_gradient(y, data.logits, n_threads=threads)
        grad /= len(y)
        return float(losses.mean(dtype=np.float64)), grad

    return run


PEERS: dict[str, Contestant] = {
    "torch": torch_eager,
    "torch-compile": torch_compiled,
    "jax": jax_jit,
    "numpy": numpy_plain,
    "scipy": scipy_softmax,
    "sklearn": sklearn_half,
}
DEVICE_PEERS: dict[str, Contestant] = {
    "torch": torch_eager,
    "torch-compile": torch_compiled,
    "liger": liger,
}
