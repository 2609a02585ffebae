"""Zarr arrays at addresses: read and written, and no secret in any message."""

import subprocess
import sys
import threading
import urllib.request
import uuid
import warnings
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec

import numpy as np
import pytest
from cli import GRADIENT, LOGITS, TIMEOUT, assert_done, assert_error, inside, run, wait_for
from helpers import assert_same_bits

from xentcli.errors import FileError, OptionError, visible
from xentcli.files.opening import load, save
from xentcli.files.options import WriteOptions
from xentcli.files.outputs import Outputs
from xentcli.files.store import remote_errors

zarr = pytest.importorskip("zarr", reason="zarr 3 needs Python 3.11")
fsspec = pytest.importorskip("fsspec")

ID, KEY = "AKIASECRETID", "verysecretkey"
WIDE = np.random.default_rng(3).normal(size=(23, 31)).astype(np.float32)


def make(path, array, chunks, **how):
    """An array as zarr writes it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        how = {"shape": array.shape, "dtype": array.dtype, "chunks": chunks, **how}
        made = zarr.create_array(str(path), **how)
        made[...] = array


# An address in memory


@pytest.fixture
def memory():
    """An address in memory."""
    address = f"memory://{uuid.uuid4().hex}"
    yield address
    if held(address):
        fsspec.filesystem("memory").rm(address, recursive=True)


def held(address):
    """The files at an address in memory."""
    return fsspec.filesystem("memory").find(address)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i8"])
def test_what_is_written_to_an_address_is_read_there(dtype, memory):
    array = (WIDE * 10).astype(dtype)
    with Outputs() as outputs:
        save(outputs.open(f"{memory}/a.zarr"), array, WriteOptions("zarr"))
    assert_same_bits(load(f"{memory}/a.zarr"), array)


@pytest.mark.parametrize("chunks", [(5, 31), (23, 8), (4, 7)], ids=["rows", "classes", "both"])
def test_any_chunks_at_an_address_are_read(chunks, memory, tmp_path):
    make(tmp_path / "a.zarr", WIDE, chunks, shards=(chunks[0] * 2, chunks[1] * 3))
    fsspec.filesystem("memory").put(str(tmp_path / "a.zarr"), f"{memory}/a.zarr", recursive=True)
    assert_same_bits(load(f"{memory}/a.zarr"), WIDE)


def test_a_job_reads_and_writes_addresses(files, memory, capfdbinary):
    assert_done(inside(capfdbinary, "grad", "l.npy", "t.npy", "-o", f"{memory}/g.zarr"))
    assert_same_bits(load(f"{memory}/g.zarr"), np.asarray(load(f"{memory}/g.zarr")))
    np.testing.assert_allclose(load(f"{memory}/g.zarr"), GRADIENT, rtol=1e-14)
    assert_done(inside(capfdbinary, "softmax", f"{memory}/g.zarr", "-o", f"{memory}/p"))
    line = inside(capfdbinary, "inspect", f"{memory}/p").text
    assert line == f"{memory}/p: (2, 3) float64, zarr 3, chunks (2, 3)\n"


def test_the_metadata_come_last_and_a_failure_leaves_nothing(files, memory):
    with Outputs() as outputs:
        save(outputs.open(f"{memory}/a.zarr"), LOGITS, WriteOptions("zarr"))
        assert [name.rsplit("/")[-1] for name in held(memory)] == ["0"]
        with pytest.raises(OptionError, match="no zarr array"):
            load(f"{memory}/a.zarr")
    assert len(held(memory)) == 2
    with pytest.raises(ZeroDivisionError), Outputs() as outputs:  # noqa: PT012 (its end cleans up)
        save(outputs.open(f"{memory}/b.zarr"), LOGITS, WriteOptions("zarr"))
        _ = 1 / 0
    assert len(held(memory)) == 2


def test_an_array_at_an_address_is_never_replaced(files, memory, capfdbinary):
    assert_done(inside(capfdbinary, "softmax", "l.npy", "-o", f"{memory}/a.zarr"))
    before = load(f"{memory}/a.zarr")
    result = inside(capfdbinary, "grad", "l.npy", "t.npy", "-o", f"{memory}/a.zarr")
    assert_error(result, 4, "is there already", "remove it first")
    assert_same_bits(load(f"{memory}/a.zarr"), before)


def test_addresses_that_lead_nowhere_are_errors(files, memory, capfdbinary):
    for path, code, words in (
        (f"{memory}/none.zarr", 2, "no zarr array at this address"),
        (f"{memory}/none.npy", 4, "cannot be read as npy; only as zarr"),
        ("unheard-of://x/l.zarr", 2, "no such kind of address"),
    ):
        assert_error(inside(capfdbinary, "softmax", path), code, path, words)
    result = inside(capfdbinary, "softmax", "l.npy", "-o", f"{memory}/p.npy")
    assert_error(result, 2, "only zarr can be written to an address")


def test_an_address_of_this_machine_is_a_path(files, capfdbinary):
    address = f"file://{files}/g.zarr"
    assert_done(inside(capfdbinary, "grad", "l.npy", "t.npy", "-o", address))
    assert_done(inside(capfdbinary, "grad", "l.npy", "t.npy", "-o", address))
    np.testing.assert_allclose(load(address), GRADIENT, rtol=1e-14)
    np.testing.assert_allclose(load("g.zarr"), GRADIENT, rtol=1e-14)


# Secrets


ADDRESSES = [
    ("s3://me:p@ss/word@bucket/x.zarr", "s3://***@bucket/x.zarr"),
    ("https://token@host/x.zarr", "https://***@host/x.zarr"),
    ("https://host/x.zarr?sig=abcd&se=2026", "https://host/x.zarr?***"),
    ("s3://bucket/a@b/x.zarr", "s3://bucket/a@b/x.zarr"),
    ("tcp://scheduler:8786", "tcp://scheduler:8786"),
]


@pytest.mark.parametrize(("address", "shown"), ADDRESSES)
def test_secrets_of_an_address_are_never_shown(address, shown):
    words = f"cannot read '{address}': {address}: no"
    assert visible(words) == f"cannot read '{shown}': {shown}: no"


@pytest.mark.parametrize("kind", [OSError, ValueError, RuntimeError, PermissionError])
def test_secrets_are_left_out_of_what_others_say(kind):
    address = "s3://me:p@ssword@bucket/x.zarr?sig=abcdef"
    words = f"bucket me:p@ssword is wrong; p@ssword, sig=abcdef, abcdef, {address}"
    with pytest.raises((FileError, OptionError)) as error, remote_errors(address, "reading"):
        raise kind(words)
    assert "ssword" not in str(error.value)
    assert "abcdef" not in str(error.value)


# HTTP


@pytest.fixture
def http(files):
    """The address of a web server of the current folder."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = partial(Quiet, directory=str(files))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("aiohttp"), reason="needs aiohttp")
def test_a_web_server_is_read(http, files):
    make("l.zarr", LOGITS, (1, 3))
    assert_done(run("grad", f"{http}/l.zarr", "t.npy", "-o", "g.zarr"))
    np.testing.assert_allclose(load("g.zarr"), GRADIENT, rtol=1e-14)
    secret = f"{http.replace('//', '//me:pa55word@')}/none.zarr?sig=abcdef"
    result = run("grad", secret, "t.npy", "-o", "g.zarr")
    assert_error(result, 2, "***@127.0.0.1", "?***", "no zarr array")
    assert "pa55word" not in result.err
    assert "abcdef" not in result.err


# S3


def free_port():
    """A port that nothing listens on."""
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        return server.server_port


@pytest.fixture(scope="module")
def s3():
    """The environment of a local S3 server, with one bucket."""
    for name in ("s3fs", "moto", "flask", "flask_cors"):
        pytest.importorskip(name)
    url = f"http://127.0.0.1:{free_port()}"
    code = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{url.split(':')[-1]}'])"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    env = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": ID,
        "AWS_SECRET_ACCESS_KEY": KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with subprocess.Popen([sys.executable, "-c", code], **quiet) as server:
        try:
            wait_for(lambda: answers(url))
            put = urllib.request.Request(f"{url}/bucket", method="PUT")
            urllib.request.urlopen(put, timeout=TIMEOUT).close()
            yield env
        finally:
            server.kill()


def answers(url):
    """Whether a server is up."""
    try:
        urllib.request.urlopen(url, timeout=TIMEOUT).close()
    except OSError:
        return False
    return True


def at_s3(env, *arguments):
    """`xent ARGUMENTS` with that server; no message holds the credentials."""
    result = run(*arguments, env=env)
    for secret in (ID, KEY):
        assert secret not in result.err
    return result


@pytest.mark.slow
def test_s3_is_read_and_written(s3, files):
    assert_done(at_s3(s3, "softmax", "l.npy", "--log", "-o", "s3://bucket/l.zarr"))
    result = at_s3(s3, "inspect", "s3://bucket/l.zarr", "--stats")
    assert result.text.startswith("s3://bucket/l.zarr: (2, 3) float64, zarr 3, chunks (2, 3), min")
    for command in ("grad", "report", "calibrate"):
        result = at_s3(s3, command, "s3://bucket/l.zarr", "t.npy", "-q", "--threads", "1")
        assert (result.code, result.err) == (0, "")
    arguments = ("grad", "s3://bucket/l.zarr", "t.npy", "-o", "s3://bucket/g.zarr")
    assert_done(at_s3(s3, *arguments))
    assert_error(at_s3(s3, *arguments), 4, "s3://bucket/g.zarr: is there already")
    assert_done(at_s3(s3, "softmax", "s3://bucket/g.zarr", "-o", "p.npy"))


@pytest.mark.slow
def test_workers_read_and_write_s3(s3, files):
    pytest.importorskip("distributed")
    np.save("wide.npy", WIDE)
    np.save("y.npy", np.arange(23))
    assert_done(at_s3(s3, "softmax", "wide.npy", "--log", "-o", "s3://bucket/wide.zarr"))
    arguments = ("grad", "s3://bucket/wide.zarr", "y.npy", "-o")
    assert_done(at_s3(s3, *arguments, "s3://bucket/wide-g.zarr", "--workers", "1"))
    assert_done(at_s3(s3, *arguments, "g1.npy"))
    assert_done(at_s3(s3, "softmax", "s3://bucket/wide-g.zarr", "-o", "p2.npy"))
    assert_done(at_s3(s3, "softmax", "g1.npy", "-o", "p1.npy"))
    assert_same_bits(np.load("p2.npy"), np.load("p1.npy"))


@pytest.mark.slow
def test_a_missing_bucket_is_an_error(s3, files):
    for arguments in (
        ("softmax", "s3://none/l.zarr"),
        ("softmax", "l.npy", "-o", "s3://none/p.zarr"),
    ):
        assert_error(at_s3(s3, *arguments), 2, "s3://none/", "no such bucket")
    result = at_s3(s3, "softmax", "s3://me:pa55word@none/l.zarr")
    assert_error(result, 4, "s3://***@none/l.zarr")
    assert "pa55word" not in result.err


@pytest.mark.slow
def test_denied_access_and_a_missing_server_are_errors(s3, files):
    url = s3["AWS_ENDPOINT_URL"]
    assert_done(at_s3(s3, "softmax", "l.npy", "-o", "s3://bucket/denied.zarr"))
    plain = {"Content-Type": "text/plain"}
    enforce = urllib.request.Request(f"{url}/moto-api/reset-auth", b"0", plain)
    urllib.request.urlopen(enforce, timeout=TIMEOUT).close()
    for arguments in (
        ("softmax", "s3://bucket/denied.zarr"),
        ("softmax", "l.npy", "-o", "s3://bucket/p.zarr"),
    ):
        assert_error(at_s3(s3, *arguments), 4, "s3://bucket/", "access denied")
    nobody = {**s3, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}", "AWS_MAX_ATTEMPTS": "1"}
    assert_error(at_s3(nobody, "softmax", "s3://bucket/x.zarr"), 4, "reading failed", "connect")
