"""Which kernels the commands need, to compile them ahead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

from xentcli.arrays.dtypes import NAMES, default_output, name_of
from xentcli.backends.cpu.kernel import Kernel

Job: TypeAlias = Literal["grad", "loss", "softmax", "probs", "report", "teacher", "bench"]


def kernels(job: Job, dtype: str, own: bool = False) -> Iterator[Kernel]:
    """The kernels of a job for logits of a dtype, such as "f32".

    Results have the dtype that they have by default; with `own` also that of the logits.

    >>> [str(kernel) for kernel in kernels("loss", "f32")]
    ['short_fast float32 none none', 'short float32 none none', 'fast float32 none none', \
'tempered float32 none none', 'general float32 none none']
    """
    logits = name_of(NAMES[dtype])
    outs = [name_of(default_output(NAMES[dtype])), *([logits] if own else [])]
    if job == "bench":
        yield from (Kernel(name, "float32") for name in ("copy", "read", "rewrite"))
    elif job == "softmax":
        every = dict.fromkeys([*outs, "float64"])  # `--top` sorts and adds float64
        yield from (Kernel("softmax", logits, None, out) for out in every)
    elif job == "report":
        yield Kernel("statistics", logits)
        yield Kernel("divergence", logits, logits)
    elif job == "teacher":
        dense = ("teacher",) if logits == "float64" else ("teacher_fast", "teacher")
        for out in (*outs, None):
            yield from (Kernel(name, logits, logits, out) for name in dense)
            yield from (Kernel(name, logits, None, out) for name in ("top_fast", "top"))
    elif job == "probs":
        for out in (*outs, None):
            yield from (Kernel(name, logits, logits, out) for name in ("short", "general"))
    else:
        for out in outs if job == "grad" else (None,):
            single = "float64" not in (logits, out)
            names = [name for name in ROWS if single or name not in ("short_fast", "tempered")]
            yield from (Kernel(name, logits, None, out) for name in names)


def describe(kernel: Kernel) -> str:
    """A kernel in words.

    >>> describe(Kernel("fast", "float16", None, "float32"))
    'float16 logits, gradient float32: more than 64 classes, no option but weights and z-loss'
    """
    if kernel.function in MEMORY:
        return f"memory: {MEMORY[kernel.function]}"
    if kernel.function == "statistics":
        return f"{kernel.logits} logits, statistics of each row"
    if kernel.function == "divergence":
        return f"{kernel.logits} logits, KL divergence from {kernel.probs}"
    if kernel.function == "softmax":
        return f"{kernel.logits} logits, probabilities {kernel.out}"
    if kernel.function in TEACHER:
        teacher = f", teacher {kernel.probs}" if kernel.probs else ""
        result = f", gradient {kernel.out}" if kernel.out else ", loss only"
        return f"{kernel.logits} logits{teacher}{result}: {TEACHER[kernel.function]}"
    targets = f", targets {kernel.probs}" if kernel.probs else ""
    result = f", gradient {kernel.out}" if kernel.out else ", loss only"
    return f"{kernel.logits} logits{targets}{result}: {ROWS[kernel.function]}"


ROWS = {
    "short_fast": "up to 64 classes, no option but weights",
    "short": "up to 64 classes, any option",
    "fast": "more than 64 classes, no option but weights and z-loss",
    "tempered": "more than 64 classes, temperature",
    "general": "more than 64 classes, any option",
}
TEACHER = {
    "teacher_fast": "all classes of a teacher's logits, ce and forward-kl",
    "teacher": "all classes of a teacher, any divergence",
    "top_fast": "some classes of a teacher, temperature 1",
    "top": "some classes of a teacher, any temperature",
}
MEMORY = {"copy": "copying", "read": "reading", "rewrite": "rewriting"}
