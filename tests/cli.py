"""Running `xent` as a user does, and checks of what it said. The checks are tested to fail in
test_cli_errors.py and test_cli_streams.py."""

import fcntl
import io
import json
import os
import pty
import re
import resource
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
import tty
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

XENT = [sys.executable, "-m", "xentcli"]
TIMEOUT = 120  # seconds: a guard against hanging, and no measure of speed
ESCAPE = "\x1b"
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# Logits, targets and what comes out of them, simple enough to be known without a program: in
# each row the target has the probability 1/2, 1/4 or 1, and the mean of the losses is ln 2.
LOGITS = np.log(np.array([[2.0, 1.0, 1.0], [1.0, 1.0, 2.0]]))
TARGETS = np.array([0, 1])
PROBABILITIES = np.array([[0.5, 0.25, 0.25], [0.25, 0.25, 0.5]])
LOSSES = np.log([2.0, 4.0])
GRADIENT = np.array([[-0.25, 0.125, 0.125], [0.125, -0.375, 0.25]])


@dataclass(frozen=True)
class Result:
    """How a command ended and what it wrote."""

    code: int
    out: bytes
    err: str

    @property
    def text(self):
        """Standard output as text."""
        return self.out.decode()


def environment(**more):
    """The environment without what would change the output, plus `more`.

    The threads of NumPy's BLAS, which nothing here needs, take time to start, and addresses.
    """
    ours = {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE"}
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ours and (name == "XENT_CACHE_DIR" or not name.startswith("XENT_"))
    }
    return {**kept, "TERM": "xterm-256color", "OPENBLAS_NUM_THREADS": "1", **more}


def run(*arguments, stdin=b"", cwd=None, env=None, memory=None):
    """`xent ARGUMENTS`; standard input is a pipe that holds `stdin`."""
    done = subprocess.run(
        [*XENT, *map(_argument, arguments)],
        input=stdin,
        capture_output=True,
        cwd=cwd,
        env=environment(**(env or {})),
        timeout=TIMEOUT,
        check=False,
        preexec_fn=_limit(memory),
    )
    return Result(done.returncode, done.stdout, done.stderr.decode())


def _argument(value):
    return value if isinstance(value, str | bytes) else str(value)


def _limit(memory):
    """What caps a process's address space before it starts."""
    if memory is None:
        return None
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def bash(script, cwd=None, env=None, stdin=b""):
    """A script in which `xent` is this one."""
    done = subprocess.run(
        [shutil.which("bash"), "-c", 'xent() { "$PYTHON" -m xentcli "$@"; }\n' + script],
        input=stdin,
        capture_output=True,
        cwd=cwd,
        env=environment(PYTHON=sys.executable, **(env or {})),
        timeout=TIMEOUT,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr.decode())


def inside(capfdbinary, *arguments, stdin=b""):
    """`xent ARGUMENTS` in this process, which is quick."""
    capfdbinary.readouterr()
    with _standard_input(stdin):
        code = _exit_code(arguments)
    out, err = capfdbinary.readouterr()
    return Result(code, out, err.decode())


def captured(*arguments, stdin=b""):
    """`xent ARGUMENTS` in this process, without pytest's help."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with (
            _standard_input(stdin),
            _onto(1, out.fileno(), "stdout"),
            _onto(2, err.fileno(), "stderr"),
        ):
            code = _exit_code(arguments)
        texts = [file.seek(0) or file.read() for file in (out, err)]
    return Result(code, texts[0], texts[1].decode())


def _exit_code(arguments):
    """Call `main`; signals are handled as before when it is done."""
    from xentcli.cli import main

    before = {name: signal.getsignal(name) for name in STOPS}
    try:
        main([_argument(value) for value in arguments])
    except SystemExit as error:
        return error.code or 0
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
    return 0


@contextmanager
def _onto(number, target, name):
    """A standard stream of this process goes to another file descriptor."""
    old, old_stream = os.dup(number), getattr(sys, name)
    os.dup2(target, number)
    try:
        with open(number, "w", closefd=False, buffering=1) as stream:
            setattr(sys, name, stream)
            yield
    finally:
        setattr(sys, name, old_stream)
        os.dup2(old, number)
        os.close(old)


@contextmanager
def _standard_input(data):
    """File descriptor 0 and `sys.stdin` are a pipe that holds `data`."""
    reader, writer = os.pipe()
    assert os.write(writer, data) == len(data), "more than fits into a pipe"
    os.close(writer)
    with _stdin_from(reader):
        os.close(reader)
        yield


@contextmanager
def _stdin_from(number):
    """File descriptor 0 and `sys.stdin` are another file descriptor's."""
    old, old_stream = os.dup(0), sys.stdin
    os.dup2(number, 0)
    try:
        with open(0, closefd=False) as sys.stdin:
            yield
    finally:
        sys.stdin = old_stream
        os.dup2(old, 0)
        os.close(old)


@contextmanager
def _terminal(columns):
    """The two ends of a terminal that hands the bytes on as they are."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    tty.setraw(slave)
    try:
        yield master, slave
    finally:
        os.close(master)


def at_terminal(*arguments, columns=80, piped_stdin=None, env=None):
    """`xent ARGUMENTS` in this process, with standard output on a terminal, and standard input
    unless piped. Standard error is captured apart."""
    before = dict(os.environ)
    with (
        _terminal(columns) as (master, slave),
        tempfile.TemporaryFile() as err,
        ThreadPoolExecutor(1) as pool,
    ):
        out = pool.submit(_until_closed, master)
        stdin = _stdin_from(slave) if piped_stdin is None else _standard_input(piped_stdin)
        try:
            os.environ.clear()
            os.environ.update(environment(**(env or {})))
            with stdin, _onto(1, slave, "stdout"), _onto(2, err.fileno(), "stderr"):
                code = _exit_code(arguments)
        finally:
            os.environ.clear()
            os.environ.update(before)
            os.close(slave)
        err.seek(0)
        return Result(code, out.result(), err.read().decode())


def process_at_terminal(*arguments, columns=80, env=None):
    """The same in a process of its own."""
    with (
        _terminal(columns) as (master, slave),
        subprocess.Popen(
            [*XENT, *map(_argument, arguments)],
            stdin=slave,
            stdout=slave,
            stderr=subprocess.PIPE,
            env=environment(**(env or {})),
        ) as process,
    ):
        os.close(slave)
        try:
            out = _until_closed(master)
            err = process.stderr.read().decode()
            code = process.wait(TIMEOUT)
        finally:
            process.kill()
    return Result(code, out, err)


def _until_closed(master):
    parts = []
    while select.select([master], [], [], TIMEOUT)[0]:
        try:
            data = os.read(master, 1 << 16)
        except OSError:  # what Linux says when the last writer is gone
            break
        if not data:
            break
        parts.append(data)
    else:
        raise TimeoutError("the command did not end; is it waiting for the terminal?")
    return b"".join(parts)


@contextmanager
def started(*arguments, cwd=None, **streams):
    """`xent ARGUMENTS`, running; killed at the end if it still is."""
    how = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(
        [*XENT, *map(_argument, arguments)],
        cwd=cwd,
        env=environment(),
        preexec_fn=heed_signals,
        **{**how, **streams},
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def heed_signals():
    """Undo what a shell does to the jobs that it puts in the background, and `nohup` to all."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def wait_for(condition):
    """Poll until something is true."""
    for _ in range(TIMEOUT * 100):
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise TimeoutError("it never happened")


def temporaries(folder):
    """Files that look like what an unfinished output leaves."""
    return [path for path in folder.rglob("*") if ".xent-" in path.name or path.suffix == ".tmp"]


def assert_error(result, code, *words):
    """One error line that holds the words, at most one hint, nothing else."""
    assert result.code == code, f"exit code {result.code}, not {code}: {result.err}"
    assert result.out == b"", f"standard output: {result.out[:100]!r}"
    lines = result.err.split("\n")
    assert lines.pop() == "", f"the last line does not end: {result.err!r}"
    assert lines, "nothing on standard error"
    assert lines[0].startswith("xent: error: "), result.err
    assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("hint: ")), result.err
    assert_clean(result.err)
    for word in words:
        assert str(word) in result.err, f"{word!r} is not in {result.err!r}"


def assert_clean(text):
    """No traceback, and nothing that a terminal would act on."""
    assert "Traceback" not in text, text
    for line in text.split("\n"):
        assert line.isprintable(), f"control characters: {line!r}"


def assert_silent(result):
    """Nothing on standard error."""
    assert result.err == "", f"standard error: {result.err!r}"


def assert_done(result):
    """Success with one line, the summary, on standard error."""
    assert result.code == 0, f"exit code {result.code}: {result.err}"
    assert re.fullmatch(r"xent: (?!error: |note: )[^\n]+\n", result.err), repr(result.err)


def assert_unchanged(folder, before):
    """The folder holds the same files with the same bytes as the `contents` from before."""
    after = contents(folder)
    assert after.keys() == before.keys(), f"{sorted(after)}, before: {sorted(before)}"
    changed = [name for name in after if after[name] != before[name]]
    assert not changed, f"changed: {changed}"


def contents(folder):
    """Every plain file's bytes by name."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def npy(array):
    """An array as the bytes of an .npy file, by NumPy."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def from_npy(data):
    """The only array in some bytes, by NumPy."""
    stream = io.BytesIO(data)
    array = np.load(stream, allow_pickle=False)
    assert stream.read() == b"", "bytes follow the array"
    return array


def strict_json(data):
    """JSON without NaN and Infinity, which Python would let pass: one line, one object."""

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    text = data.decode() if isinstance(data, bytes) else data
    assert text.endswith("\n"), f"not one line: {text!r}"
    assert text.count("\n") == 1, f"not one line: {text!r}"
    value = json.loads(text, parse_constant=refuse)
    assert isinstance(value, dict), f"not an object: {text!r}"
    return value


def header(text, data=b"", version=(1, 0), length=None):
    """The bytes of an .npy file whose header is `text`, padded as NumPy does."""
    raw = text if isinstance(text, bytes) else text.encode("latin-1")
    width = 2 if version[0] == 1 else 4
    raw += b" " * (-(len(raw) + 9 + width) % 64) + b"\n"
    count = len(raw) if length is None else length
    return b"\x93NUMPY" + bytes(version) + count.to_bytes(width, "little") + raw + data


def described(descr="'<f8'", fortran="False", shape="(2, 3)", **rest):
    """An .npy file made from the source text of its three entries."""
    text = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}"
    return header(text, **rest)
