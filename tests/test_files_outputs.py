"""Output files are old or new and never half, and what is no plain file is never replaced."""

import os
import re
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from cli import (
    GRADIENT,
    LOGITS,
    LOSSES,
    TARGETS,
    Result,
    assert_done,
    assert_error,
    assert_silent,
    assert_unchanged,
    bash,
    contents,
    environment,
    from_npy,
    inside,
    npy,
    run,
    started,
    temporaries,
    wait_for,
)

from xentcli.errors import FileError, OptionError
from xentcli.files import permissions, replacement
from xentcli.files.outputs import Outputs
from xentcli.files.sink import Sink

GRAD = ("grad", "l.npy", "t.npy")


def slowly(*values):
    """Parameters of tests that take processes of their own, and show little that others do not."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


def assert_gradient(path):
    """The file holds the gradient, complete."""
    np.testing.assert_allclose(from_npy(Path(path).read_bytes()), GRADIENT, rtol=1e-15)


def mode(path):
    """A file's permissions."""
    return stat.S_IMODE(Path(path).stat().st_mode)


def test_assert_gradient_fails_on_a_half_and_on_another_file(tmp_path):
    (tmp_path / "half.npy").write_bytes(npy(GRADIENT)[:-1])
    (tmp_path / "other.npy").write_bytes(npy(LOGITS))
    for name in ("half.npy", "other.npy"):
        with pytest.raises((AssertionError, ValueError)):
            assert_gradient(tmp_path / name)


def test_a_new_file_is_complete_and_nothing_else_is_left(files, capfdbinary):
    assert_done(inside(capfdbinary, *GRAD, "-o", "g.npy"))
    assert_gradient("g.npy")
    assert sorted(contents(files)) == ["g.npy", "l.npy", "t.npy"]


def test_an_old_file_is_replaced(files, capfdbinary):
    (files / "g.npy").write_bytes(b"old" * 1000)
    assert_done(inside(capfdbinary, *GRAD, "-o", "g.npy"))
    assert_gradient("g.npy")


def test_a_reader_of_the_old_file_is_not_disturbed(files, capfdbinary):
    (files / "g.npy").write_bytes(b"old")
    with (files / "g.npy").open("rb") as stream:
        assert_done(inside(capfdbinary, *GRAD, "-o", "g.npy"))
        assert stream.read() == b"old"


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002, 0o000])
def test_a_new_file_has_the_mode_that_the_umask_leaves(umask, files, capfdbinary):
    old = os.umask(umask)
    try:
        assert_done(inside(capfdbinary, *GRAD, "-o", "g.npy", "--loss-out", "loss.txt"))
        assert os.umask(umask) == umask, "the umask was changed"
    finally:
        os.umask(old)
    assert mode("g.npy") == mode("loss.txt") == 0o666 & ~umask


@pytest.mark.parametrize("old", [0o600, 0o640, 0o666, 0o755])
def test_a_replaced_file_keeps_its_mode(old, files, capfdbinary):
    (files / "g.npy").write_bytes(b"old")
    (files / "g.npy").chmod(old)
    assert_done(inside(capfdbinary, *GRAD, "-o", "g.npy"))
    assert_gradient("g.npy")
    assert mode("g.npy") == old


def owned(path, owner, group, mode):
    """A file of another user's."""
    Path(path).write_bytes(b"old")
    os.chown(path, owner, group)
    Path(path).chmod(mode)


def access(path):
    """Owner, group and mode."""
    state = Path(path).stat()
    return state.st_uid, state.st_gid, stat.S_IMODE(state.st_mode)


NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has other users")


@as_root
@pytest.mark.parametrize("mode", [0o640, 0o600, 0o664])
def test_a_replaced_file_keeps_its_owner_and_group(mode, files, capfdbinary):
    owned("g.npy", NOBODY, 1234, mode)
    assert_done(inside(capfdbinary, *GRAD, "-o", "g.npy"))
    assert_gradient("g.npy")
    assert access("g.npy") == (NOBODY, 1234, mode)


@pytest.fixture
def folder():
    """A folder of NOBODY's, with l.npy and t.npy; every user may pass through what is above it."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        here = Path(name, "here")
        here.mkdir()
        os.chown(here, NOBODY, NOBODY)
        np.save(here / "l.npy", LOGITS)
        np.save(here / "t.npy", TARGETS)
        yield here


AS_NOBODY = f"""
import os, sys
from xentcli.cli import main
try:
    main(["grad", "l.npy", "t.npy", "-o", os.devnull, "-q"])
except SystemExit:  # everything is imported, from folders that other users may not enter
    os.setgroups([int(word) for word in sys.argv.pop(1).split()])
    os.setgid({NOBODY})
    os.setuid({NOBODY})
main(["grad", "l.npy", "t.npy", *sys.argv[1:]])
"""


def run_as_nobody(folder, *arguments, groups=""):
    """`xent grad l.npy t.npy ARGUMENTS` as NOBODY, in a folder."""
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, groups, *arguments],
        cwd=folder,
        capture_output=True,
        env=environment(),
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr.decode())


@as_root
@pytest.mark.parametrize("old", [True, False], ids=["replaced", "new"])
@pytest.mark.parametrize("options", [[], *slowly(["-n"], ["--fsync"])], ids=str)
def test_a_folder_that_may_not_be_listed_can_be_written_to(old, options, folder):
    target = folder / "g.npy"
    if old:
        owned(target, NOBODY, NOBODY, 0o600)
    folder.chmod(0o300)
    result = run_as_nobody(folder, "-o", "g.npy", "--loss-out", "loss.txt", *options)
    if old and "-n" in options:
        assert_error(result, 4, "already exists")
        assert target.read_bytes() == b"old"
    else:
        assert_done(result)
        assert_gradient(target)
    assert not temporaries(folder)


@as_root
@pytest.mark.parametrize(
    ("owner", "mode", "groups", "expected"),
    [
        # The group cannot be kept: what its members might do, or might not, is for nobody.
        (NOBODY, 0o660, "", (NOBODY, NOBODY, 0o600)),
        pytest.param(NOBODY, 0o664, "", (NOBODY, NOBODY, 0o644), marks=pytest.mark.slow),
        pytest.param(NOBODY, 0o604, "", (NOBODY, NOBODY, 0o600), marks=pytest.mark.slow),
        pytest.param(NOBODY, 0o666, "", (NOBODY, NOBODY, 0o666), marks=pytest.mark.slow),
        (NOBODY, 0o2770, "", (NOBODY, NOBODY, 0o700)),
        # A group that one is in can be kept, the owner not.
        pytest.param(1000, 0o660, "1234", (NOBODY, 1234, 0o660), marks=pytest.mark.slow),
        (1000, 0o4664, "1234", (NOBODY, 1234, 0o664)),
        pytest.param(1000, 0o4646, "", (NOBODY, NOBODY, 0o644), marks=pytest.mark.slow),
    ],
)
def test_what_cannot_be_kept_gives_nobody_more_rights(owner, mode, groups, expected, folder):
    owned(folder / "g.npy", owner, 1234, mode)
    assert_done(run_as_nobody(folder, "-o", "g.npy", groups=groups))
    assert_gradient(folder / "g.npy")
    assert access(folder / "g.npy") == expected


ACL = "system.posix_acl_access"


def access_list(*entries):
    """A POSIX access list as Linux stores it; each entry is a tag, its rights and an id."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def test_a_replaced_file_keeps_its_access_list_and_gets_none_from_its_folder(files, capfdbinary):
    """With a list the mode's group bits are its mask, which is more than the group may do."""
    no_id = 0xFFFFFFFF
    mine = access_list(
        (1, 6, no_id), (2, 6, 1000), (4, 0, no_id), (0x10, 6, no_id), (0x20, 0, no_id)
    )
    (files / "d").mkdir()
    for name in ("with", "without"):
        (files / "d" / name).write_bytes(b"old")
    (files / "d" / "without").chmod(0o660)
    try:
        os.setxattr("d/with", ACL, mine)
        os.setxattr("d", ACL.replace("access", "default"), mine)
    except (AttributeError, OSError):
        pytest.skip("no access lists here")
    for name in ("with", "without"):
        assert_done(inside(capfdbinary, *GRAD, "-o", f"d/{name}", "-f", "npy"))
        assert_gradient(f"d/{name}")
        assert mode(f"d/{name}") == 0o660
    assert os.getxattr("d/with", ACL) == mine
    assert ACL not in os.listxattr("d/without")


def test_an_access_list_that_cannot_be_kept_gives_nobody_more_rights(
    files, capfdbinary, monkeypatch
):
    (files / "g.npy").write_bytes(b"old")
    (files / "g.npy").chmod(0o664)
    old = {str(files / "g.npy"): b"a list"}  # the new one, which is known by its number, has none
    monkeypatch.setattr(permissions, "_acl", old.get)
    monkeypatch.setattr(os, "setxattr", lambda *given: None, raising=False)
    assert_done(inside(capfdbinary, *GRAD, "-o", "g.npy"))
    assert mode("g.npy") == 0o600


@pytest.mark.parametrize("options", [[], *slowly(["-n"])], ids=str)
@pytest.mark.parametrize("again", [True, *slowly(False)], ids=["another in its place", "gone"])
def test_a_folder_that_is_renamed_meanwhile_gets_the_file_and_keeps_no_temporary(
    again, options, files
):
    (files / "d").mkdir()
    with started("grad", "-", "t.npy", "-o", "d/g.npy", *options) as process:
        wait_for(lambda: temporaries(files))
        (files / "d").rename("e")
        if again:
            (files / "d").mkdir()
        _, err = process.communicate(npy(LOGITS), timeout=30)
    assert process.returncode == 0
    assert b"note: d/g.npy: its folder was renamed meanwhile" in err
    assert_gradient("e/g.npy")
    assert not temporaries(files)


@pytest.mark.parametrize("how", [signal.SIGTERM, "error"])
def test_a_folder_that_is_renamed_meanwhile_keeps_nothing_of_a_run_that_fails(how, files):
    (files / "d").mkdir()
    (files / "d" / "g.npy").write_bytes(b"old")
    before = contents(files)
    with started("grad", "-", "t.npy", "-o", "d/g.npy", "--loss-out", "d/new.txt") as process:
        wait_for(lambda: len(temporaries(files)) == 2)
        (files / "d").rename("e")
        if how == "error":
            process.stdin.write(b"nonsense")
        else:
            process.send_signal(how)
        process.communicate(timeout=30)
    assert process.returncode == (1 if how == "error" else -how)
    (files / "e").rename("d")
    assert_unchanged(files, before)


def test_a_file_being_written_cannot_be_read_by_others(files):
    with started("grad", "-", "t.npy", "-o", "g.npy") as process:
        (temporary,) = wait_for(lambda: temporaries(files))
        assert mode(temporary) == 0o600
        process.communicate(npy(LOGITS), timeout=30)
    assert_gradient("g.npy")


@pytest.mark.parametrize("exists", [True, False], ids=["a file", "nothing"])
def test_a_symlink_stays_and_its_target_changes(exists, files, capfdbinary):
    (files / "there").mkdir()
    target = files / "there" / "real.npy"
    if exists:
        target.write_bytes(b"old")
        target.chmod(0o640)
    (files / "g.npy").symlink_to("there/real.npy")
    assert_done(inside(capfdbinary, *GRAD, "-o", "g.npy"))
    assert (files / "g.npy").is_symlink()
    assert (files / "g.npy").readlink() == Path("there/real.npy")
    assert_gradient(target)
    assert mode(target) == (0o640 if exists else 0o666 & ~_umask())
    assert list((files / "there").iterdir()) == [target]


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_loop_of_symlinks_cannot_be_written(files, capfdbinary):
    (files / "loop.npy").symlink_to("loop.npy")
    assert_error(inside(capfdbinary, *GRAD, "-o", "loop.npy"), 4, "loop.npy")
    assert (files / "loop.npy").is_symlink()


@pytest.mark.parametrize("option", ["-o", "--loss-out"])
@pytest.mark.parametrize(
    "path",
    ["missing/g.npy", "d", "d/", "l.npy/g.npy"],
    ids=["no folder", "folder", "slash", "file"],
)
def test_an_output_that_cannot_be_written_is_an_error(option, path, files, capfdbinary):
    (files / "d").mkdir()
    before = contents(files)
    other = ["-o", "g.npy"] if option == "--loss-out" else []
    result = inside(capfdbinary, *GRAD, *other, option, path)
    assert_error(result, 4, path)
    assert_unchanged(files, before)
    assert not temporaries(files)


@pytest.mark.parametrize("path", ["missing/g.npy", "d", "/dev/null/g.npy", "/proc/g.npy"])
def test_a_hopeless_output_fails_before_the_input_is_read(path, files):
    (files / "d").mkdir()
    with started("grad", "-", "t.npy", "-o", path) as process:  # nothing is ever written to it
        assert process.wait(timeout=30) == 4
        assert process.stderr.read().decode().startswith(f"xent: error: {path}: ")


def test_the_outputs_are_looked_at_before_the_inputs(files, capfdbinary):
    (files / "l.npy").write_bytes(b"nonsense")
    assert_error(inside(capfdbinary, *GRAD, "-o", "missing/g.npy"), 4, "missing")


def test_a_read_only_target_is_kept(files, capfdbinary, monkeypatch):
    (files / "g.npy").write_bytes(b"old")
    (files / "g.npy").chmod(0o444)
    if os.geteuid() == 0:  # whom the system lets write everything
        monkeypatch.setattr(os, "access", lambda path, how, **more: mode(path) & 0o222 != 0)
    assert_error(inside(capfdbinary, *GRAD, "-o", "g.npy"), 4, "g.npy", "read-only")
    assert (files / "g.npy").read_bytes() == b"old"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_an_error(files, capfdbinary):
    (files / "d").mkdir(mode=0o555)
    assert_error(inside(capfdbinary, *GRAD, "-o", "d/g.npy"), 4, "d/g.npy", "ermission")


# One file for two things


@pytest.mark.parametrize("second", ["g.npy", "./g.npy", "link.npy", "d/../g.npy"])
@pytest.mark.parametrize("exists", [True, False], ids=["an old file", "no file"])
def test_one_file_cannot_be_both_outputs(second, exists, files, capfdbinary):
    (files / "d").mkdir()
    (files / "link.npy").symlink_to("g.npy")
    if exists:
        (files / "g.npy").write_bytes(b"old")
    before = contents(files)
    result = inside(capfdbinary, *GRAD, "-o", "g.npy", "--loss-out", second)
    assert_error(result, 2, second, "twice")
    assert_unchanged(files, before)


@pytest.mark.parametrize(
    "options",
    [
        "-o - --loss-out /dev/stdout | cat",
        "--loss-out /dev/stdout | cat",
        "-o /dev/fd/1 --loss-out /proc/self/fd/1 | cat",
        "-o fifo --loss-out ./fifo & cat fifo; wait $!",
        "--loss-out out > out",
        "--loss-out ./out >> out",
        "-o out --loss-out /dev/stdout > out",
    ],
)
def test_one_pipe_or_open_file_cannot_be_both_outputs(options, files):
    os.mkfifo("fifo")
    result = bash(f"set -o pipefail; xent grad l.npy t.npy -f npy {options}")
    assert_error(result, 2, "is given as output twice")
    assert {*contents(files)} <= {"l.npy", "t.npy", "out"}
    assert contents(files).get("out", b"") == b""


def test_a_device_may_be_both_outputs_by_two_names(files):
    (files / "null").symlink_to("/dev/null")
    assert_done(run(*GRAD, "-o", "null", "--loss-out", "/dev/null"))
    assert (files / "null").is_symlink()


def test_two_hard_links_are_two_outputs(files, capfdbinary):
    (files / "g.npy").write_bytes(b"old")
    (files / "loss.txt").hardlink_to("g.npy")
    assert_done(inside(capfdbinary, *GRAD, "-o", "g.npy", "--loss-out", "loss.txt"))
    assert_gradient("g.npy")
    assert float((files / "loss.txt").read_text()) == pytest.approx(LOSSES.mean())


def test_one_file_in_a_folder_of_two_names_cannot_be_both_outputs(files, capfdbinary):
    (files / "d").mkdir()
    (files / "e").symlink_to("d")
    result = inside(capfdbinary, *GRAD, "-o", "d/g.npy", "--loss-out", "e/g.npy")
    assert_error(result, 2, "e/g.npy", "twice")
    assert list((files / "d").iterdir()) == []


def test_standard_output_cannot_be_both_outputs(files, capfdbinary):
    assert_error(inside(capfdbinary, *GRAD, "-o", "-", "--loss-out", "-"), 2, "standard output")


def test_standard_output_without_a_name_cannot_be_both_outputs_either(files, capfdbinary):
    assert_error(inside(capfdbinary, *GRAD, "--loss-out", "-"), 2, "standard output")


SAME = {  # paths of an input
    "same": "l.npy",
    "another spelling": "./d/../l.npy",
    "hard link": "hard.npy",
    "symlink": "soft.npy",
    "targets": "t.npy",
    "weight": "w.npy",
}


@pytest.fixture
def same(files):
    """The current folder, with an input under several names."""
    (files / "d").mkdir()
    (files / "hard.npy").hardlink_to("l.npy")
    (files / "soft.npy").symlink_to("l.npy")
    np.save("w.npy", np.ones(3))
    return files


@pytest.mark.parametrize("how", SAME)
def test_an_input_is_replaced_only_in_place(how, same, capfdbinary):
    inputs = contents(same)
    words = [*GRAD, "--weight", "w.npy", "-o", SAME[how]]
    assert_error(inside(capfdbinary, *words), 2, f"{SAME[how]}: is an input too", "--in-place")
    assert_unchanged(same, inputs)
    assert_done(inside(capfdbinary, *words, "--in-place"))
    assert_gradient(SAME[how])
    assert (same / "soft.npy").is_symlink()
    if how == "hard link":
        assert (same / "l.npy").read_bytes() == inputs["l.npy"], "the other name changed too"
    if how == "symlink":
        assert_gradient("l.npy")


@pytest.mark.parametrize(
    "command",
    [
        "xent grad - t.npy -o l.npy < l.npy",
        "xent grad /dev/fd/3 t.npy -o l.npy 3< l.npy",
        "xent grad /proc/self/fd/3 t.npy -o l.npy 3< l.npy",
    ],
)
def test_an_open_input_is_replaced_only_in_place(command, same):
    inputs = contents(same)
    assert_error(bash(command), 2, "l.npy: is an input too, which is the input ", "--in-place")
    assert_unchanged(same, inputs)
    assert_done(bash(command.replace("l.npy", "l.npy --in-place", 1)))
    assert_gradient("l.npy")


def test_every_output_of_every_command_is_no_input(same, capfdbinary):
    (same / "l.csv").write_text("1,2,3\n4,5,6\n")
    (same / "l.json").write_bytes((same / "l.npy").read_bytes())
    (same / "words.txt").write_text("a b c")
    inputs = contents(same)
    for command, words in {
        "grad l.npy t.npy -o g.npy --loss-out t.npy": ["t.npy", "--in-place"],
        "loss l.npy t.npy -o l.npy": ["l.npy", "--in-place"],
        "softmax l.npy -o soft.npy": ["soft.npy", "--in-place"],
        "calibrate l.npy t.npy -o l.npy": ["l.npy: is an input too"],
        "report l.npy t.npy -o l.json --base l.json --base-format npy": ["l.json: is an input too"],
        "report l.npy t.npy --per-row l.npy": ["l.npy: is an input too"],
        "report l.npy t.npy --bytes words.txt -o words.txt": ["words.txt: is an input too"],
        "explain l.json t.npy --input-format npy -o l.json": ["l.json: is an input too"],
        "check l.npy t.npy l.npy --junit t.npy": ["t.npy: is an input too"],
    }.items():
        result = inside(capfdbinary, *command.split())
        assert_error(result, 2, *words)
        assert ("--in-place" in words) == ("--in-place" in result.err), result.err
        assert_unchanged(same, inputs)


def test_a_folder_is_replaced_only_in_place(same, capfdbinary):
    pytest.importorskip("zarr")
    (same / "e").mkdir()
    for path in ("l.zarr", "e/l.zarr"):
        assert_done(inside(capfdbinary, "softmax", "l.npy", "--log", "-o", path))
        for output in (path, f"./d/../{path}"):
            words = ["softmax", path, "--log", "-o", output]
            assert_error(inside(capfdbinary, *words), 2, "is an input too", "--in-place")
            assert_done(inside(capfdbinary, *words, "--in-place"))


def test_in_place_allows_other_outputs_too(same, capfdbinary):
    assert_done(inside(capfdbinary, *GRAD, "-o", "g.npy", "--in-place"))
    assert_gradient("g.npy")


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("l.npy t.npy >> l.npy", "l.npy"),
        ("l.npy t.npy 1<> l.npy", "l.npy"),
        ("l.npy t.npy 1<> hard.npy", "l.npy"),
        ("l.npy t.npy --weight w.npy 1<> w.npy", "w.npy"),
        ("l.npy t.npy -o /dev/fd/3 3<> t.npy", "t.npy"),
        ("- t.npy < l.npy 1<> l.npy", "<stdin>"),
    ],
)
def test_an_input_is_not_written_in_place(words, name, files):
    (files / "hard.npy").hardlink_to("l.npy")
    np.save("w.npy", np.ones(3))
    before = contents(files)
    assert_error(bash(f"xent grad {words}"), 2, f"error: {name}: is written to as ")
    assert_unchanged(files, before)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "-"])
def test_what_is_in_an_open_file_already_stays(name, files):
    script = f"{{ echo first; xent loss l.npy t.npy -q -o {name}; echo last; }} > out"
    assert_silent(bash(script))
    first, loss, last = (files / "out").read_text().splitlines()
    assert (first, last) == ("first", "last")
    assert float(loss) == pytest.approx(LOSSES.mean())
    assert_silent(bash(f"xent loss l.npy t.npy -q -o {name} >> out"))
    assert (files / "out").read_text().splitlines() == [first, loss, last, loss]


LINKS = {  # what the path is that `there` leads to, after it
    "link": "/dev/stdout",
    "link to a link": "a/../link",
    "relative link": "../../../../../../../../dev/fd/1",
    "/dev//stdout": None,
    "/dev/../dev/fd/1": None,
    "/proc/thread-self/fd/1": None,
    "/proc/self/task/../fd/1": None,
    "link to the thread": "/proc/thread-self/fd/1",
    "link to descriptor 3": "/proc/self/fd/3",
    "/dev/fd/3": None,
    "the file itself": "out",
    "hard link": None,
    "another process's": None,
}


def path_to_stdout(name, folder):
    """A path that leads to standard output, which will be `out`."""
    (folder / "a").mkdir()
    (folder / "out").touch()
    (folder / "link").symlink_to("/dev/stdout")
    (folder / "hard").hardlink_to("out")
    if LINKS[name]:
        (folder / "there").symlink_to(LINKS[name])
        return "there"
    return {"hard link": "hard", "another process's": "/proc/$$/fd/1"}.get(name, name)


def links(*quick):
    """All of LINKS, the `quick` ones first."""
    return [*quick, *slowly(*(name for name in LINKS if name not in quick))]


@pytest.mark.slow
@pytest.mark.parametrize("name", links("link", "/proc/thread-self/fd/1", "the file itself"))
def test_a_path_that_leads_to_an_open_file_is_that_file(name, files):
    """What others write there before and after it stays, with >> too."""
    path = path_to_stdout(name, files)
    script = f"{{ echo first; xent loss l.npy t.npy -q -o {path} 3>&1; echo last; }}"
    assert_silent(bash(f"{script} >> out"))
    first, loss, last = (files / "out").read_text().splitlines()
    assert (first, last) == ("first", "last")
    assert float(loss) == pytest.approx(LOSSES.mean())
    assert_silent(bash(f"{script} > out"))
    assert (files / "out").read_text().splitlines() == [first, loss, last]
    result = bash(f"xent grad l.npy t.npy -o g.npy -q --loss-out {path} >> out 3>&1")
    assert_silent(result)
    assert (files / "out").read_text().splitlines() == [first, loss, last, loss]
    assert not temporaries(files)


@pytest.mark.parametrize("name", links("link to descriptor 3"))
def test_a_path_that_leads_to_standard_output_cannot_be_a_second_output(name, files):
    path = path_to_stdout(name, files)
    for options in (f"-o {path} --loss-out -", f"--loss-out {path}", f"-o {path} --loss-out out"):
        result = bash(f"xent grad l.npy t.npy -f npy {options} > out 3>&1")
        assert_error(result, 2, "twice")
        assert (files / "out").read_bytes() == b""


@pytest.mark.parametrize("name", ["there", "/dev//stdout", "/proc/thread-self/fd/1"])
def test_standard_output_may_be_a_socket_under_any_name(name, files):
    (files / "there").symlink_to("/dev/stdout")
    ours, theirs = socket.socketpair()
    with theirs, started("grad", "l.npy", "t.npy", "-q", "-o", name, stdout=theirs) as process:
        theirs.close()
        data = b"".join(iter(lambda: ours.recv(1 << 16), b""))
        assert process.wait(timeout=30) == 0, process.stderr.read()
    ours.close()
    np.testing.assert_allclose(from_npy(data), GRADIENT, rtol=1e-15)


@pytest.mark.parametrize(
    "options", ["- /dev/stdin", "/dev/fd/0 -", "there /dev/stdin", "- t.npy --weight there"]
)
def test_a_socket_is_read_only_once_whatever_it_is_called(options, files):
    (files / "there").symlink_to("/proc/self/fd/0")
    ours, theirs = socket.socketpair()
    with ours, theirs, started("grad", *options.split(), stdin=theirs) as process:
        assert process.wait(timeout=30) == 2
        assert b"can be read only once" in process.stderr.read()


@pytest.mark.parametrize("options", ["-o g.npy --loss-out /dev/stdout", "-o g.npy --loss-out -"])
def test_no_file_gets_the_number_of_a_closed_standard_output(options, files):
    """The temporary file of `-o` would be descriptor 1, and get the loss too."""
    before = contents(files)
    assert_error(bash(f"xent grad l.npy t.npy {options} >&-"), 4)
    assert_unchanged(files, before)


def test_a_standard_output_that_is_open_for_reading_is_an_error_at_once(files):
    with (
        (files / "l.npy").open() as stdout,
        started("grad", "-", "t.npy", "-o", "/dev/stdout", stdout=stdout) as process,
    ):
        assert process.wait(timeout=30) == 4
        assert b"Bad file descriptor" in process.stderr.read()


def test_a_number_that_is_no_open_file_is_an_error(files, capfdbinary):
    assert_error(inside(capfdbinary, *GRAD, "-o", "/dev/fd/987"), 4, "/dev/fd/987", "descriptor")


# All outputs or none


@pytest.mark.parametrize(
    "options",
    [
        ["-o", "g.npy", "--loss-out", "/dev/full"],
        ["-o", "/dev/full", "--loss-out", "loss.txt"],
        ["-o", "g.npy", "--loss-out", "missing/loss.txt"],
        ["-o", "g.npy", "--loss-out", "d"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("exists", [True, False], ids=["old files", "no files"])
def test_both_outputs_are_new_or_both_are_old(options, exists, files, capfdbinary):
    (files / "d").mkdir()
    if exists:
        (files / "g.npy").write_bytes(b"old")
        (files / "loss.txt").write_bytes(b"old loss")
    before = contents(files)
    assert_error(
        inside(capfdbinary, *GRAD, *options), 4, options[3] if options[1] == "g.npy" else options[1]
    )
    assert_unchanged(files, before)


def test_a_full_standard_output_leaves_the_other_output_old(files):
    (files / "loss.txt").write_bytes(b"old loss")
    before = contents(files)
    assert_error(bash("xent grad l.npy t.npy --loss-out loss.txt > /dev/full"), 4, "No space left")
    assert_unchanged(files, before)


def test_a_closed_pipe_leaves_the_other_output_old(files):
    np.save("l.npy", np.zeros((20_000, 10)))
    np.save("t.npy", np.zeros(20_000, int))
    before = contents(files)
    result = bash("xent grad l.npy t.npy --loss-out loss.txt | head -c 10 | wc -c")
    assert (result.out.strip(), result.err) == (b"10", "")
    assert_unchanged(files, before)


@pytest.mark.parametrize("limit", [0, 8])
def test_a_file_size_limit_is_an_error_that_leaves_nothing(limit, files):
    np.save("l.npy", np.zeros((20_000, 10)))
    np.save("t.npy", np.zeros(20_000, int))
    (files / "g.npy").write_bytes(b"old")
    before = contents(files)
    result = bash(f"ulimit -f {limit}; xent grad l.npy t.npy -o g.npy")
    assert_error(result, 4, "g.npy", "File too large")
    assert_unchanged(files, before)


@pytest.mark.parametrize("failing", ["fsync", "replace", "chmod"])
def test_a_failing_step_at_the_end_is_an_error_and_leaves_the_old_file(
    failing, files, capfdbinary, monkeypatch
):
    (files / "g.npy").write_bytes(b"old")
    before = contents(files)

    def fails(*arguments, **more):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, failing, fails)
    result = inside(capfdbinary, *GRAD, "-o", "g.npy")
    monkeypatch.undo()
    assert_error(result, 4, "g.npy", "Input/output error")
    assert_unchanged(files, before)


def failing(monkeypatch, place, name, error, after=0):
    """Make a function fail once, after some successes."""
    real, calls = getattr(place, name), []

    def function(*arguments, **more):
        calls.append(arguments)
        if len(calls) == after + 1:
            raise error
        return real(*arguments, **more)

    monkeypatch.setattr(place, name, function)


@pytest.mark.parametrize(
    ("old", "flag"),
    [
        ([], []),
        (["g.npy"], []),
        (["loss.txt"], []),
        (["g.npy", "loss.txt"], []),
        ([], ["-n"]),
    ],
    ids=str,
)
def test_a_failing_second_rename_takes_the_first_one_back(
    old, flag, files, capfdbinary, monkeypatch
):
    for name in old:
        (files / name).write_bytes(b"old")
    before = contents(files)
    name = "link" if flag else "replace"
    failing(monkeypatch, os, name, FileExistsError(17, "File exists"), after=1)
    result = inside(capfdbinary, *GRAD, "-o", "g.npy", "--loss-out", "loss.txt", *flag)
    assert_error(result, 4, "loss.txt")
    assert_unchanged(files, before)


def test_two_old_files_are_replaced_where_there_are_no_hard_links(files, capfdbinary, monkeypatch):
    for name in ("g.npy", "loss.txt"):
        (files / name).write_bytes(b"old")
    failing(monkeypatch, os, "link", PermissionError(1, "Operation not permitted"))
    assert_done(inside(capfdbinary, *GRAD, "-o", "g.npy", "--loss-out", "loss.txt"))
    assert_gradient("g.npy")
    assert sorted(contents(files)) == ["g.npy", "l.npy", "loss.txt", "t.npy"]


def test_a_file_system_without_modes_takes_new_files(files, capfdbinary, monkeypatch):
    failing(monkeypatch, os, "chmod", PermissionError(1, "Operation not permitted"))
    assert_done(inside(capfdbinary, *GRAD, "-o", "g.npy"))
    assert_gradient("g.npy")


def test_a_temporary_that_cannot_be_used_is_removed(files, capfdbinary, monkeypatch):
    before = contents(files)
    failing(monkeypatch, replacement, "Descriptor", OSError(12, "Cannot allocate memory"))
    assert_error(inside(capfdbinary, *GRAD, "-o", "g.npy"), 4, "g.npy", "Cannot allocate memory")
    assert_unchanged(files, before)


@pytest.fixture
def steps(monkeypatch):
    """The names of what is done to files, in order."""
    done = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *a, real=real, name=name, **k: (done.append(name), real(*a, **k))[1]
        )
    return done


def test_a_replaced_file_is_on_the_disk_before_its_name_changes(files, capfdbinary, steps):
    (files / "g.npy").write_bytes(b"old")
    assert_done(inside(capfdbinary, *GRAD, "-o", "g.npy"))
    assert steps == ["fsync", "replace", "fsync"]


def test_a_new_file_waits_for_the_disk_only_with_fsync(files, capfdbinary, steps):
    assert_done(inside(capfdbinary, *GRAD, "-o", "g.npy"))
    assert steps == ["replace"]
    steps.clear()
    assert_done(inside(capfdbinary, *GRAD, "-o", "new.npy", "--fsync"))
    assert steps == ["fsync", "replace", "fsync"]


# --no-clobber


@pytest.mark.parametrize("flag", ["-n", "--no-clobber"])
@pytest.mark.parametrize("option", ["-o", "--loss-out"])
def test_no_clobber_keeps_an_old_file(flag, option, files, capfdbinary):
    (files / "old.npy").write_bytes(b"old")
    before = contents(files)
    other = ["-o", "new.npy"] if option == "--loss-out" else []
    result = inside(capfdbinary, *GRAD, flag, *other, option, "old.npy")
    assert_error(result, 4, "old.npy", "exists")
    assert_unchanged(files, before)


def test_no_clobber_writes_a_new_file(files, capfdbinary):
    assert_done(inside(capfdbinary, *GRAD, "-n", "-o", "g.npy"))
    assert_gradient("g.npy")


def test_no_clobber_keeps_a_file_that_came_during_the_work(files):
    with started("grad", "-", "t.npy", "-n", "-o", "g.npy") as process:
        wait_for(lambda: temporaries(files))
        (files / "g.npy").write_bytes(b"somebody else's")
        _, err = process.communicate(npy(LOGITS), timeout=30)
    assert (files / "g.npy").read_bytes() == b"somebody else's"
    assert process.returncode == 4
    assert b"g.npy: already exists" in err
    assert not temporaries(files)


def test_no_clobber_does_not_stop_standard_output_and_devices(files, capfdbinary):
    assert inside(capfdbinary, *GRAD, "-n").code == 0
    assert_done(inside(capfdbinary, *GRAD, "-n", "-o", "/dev/null"))


# What is no plain file


def test_a_device_is_written_and_stays(files, capfdbinary):
    before = Path("/dev/null").stat()
    assert_done(inside(capfdbinary, *GRAD, "-o", "/dev/null", "--loss-out", "loss.txt"))
    after = Path("/dev/null").stat()
    assert stat.S_ISCHR(after.st_mode)
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert float((files / "loss.txt").read_text()) == pytest.approx(LOSSES.mean())


def test_a_link_to_a_device_is_written_through(files, capfdbinary):
    (files / "link").symlink_to("/dev/null")
    assert_done(inside(capfdbinary, *GRAD, "-o", "link"))
    assert (files / "link").readlink() == Path("/dev/null")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_a_socket_cannot_be_written_and_stays(files, capfdbinary):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        assert_error(inside(capfdbinary, *GRAD, "-o", "socket"), 4, "socket")
    assert stat.S_ISSOCK((files / "socket").stat().st_mode)


def test_a_full_device_is_an_error(files, capfdbinary):
    result = inside(capfdbinary, *GRAD, "-o", "/dev/full")
    assert_error(result, 4, "/dev/full", "No space left on device")


def test_a_full_device_is_an_error_when_more_than_a_buffer_is_written(files):
    np.save("l.npy", np.zeros((20_000, 10)))
    np.save("t.npy", np.zeros(20_000, int))
    for output in ("-o /dev/full", "-o - > /dev/full"):
        assert_error(bash(f"xent grad l.npy t.npy {output}"), 4, "No space left on device")


def test_a_fifo_is_written_and_stays(files, capfdbinary):
    os.mkfifo("fifo")
    read = []
    reader = threading.Thread(target=lambda: read.append((files / "fifo").read_bytes()))
    reader.start()
    assert_done(inside(capfdbinary, *GRAD, "-o", "fifo"))
    reader.join()
    assert stat.S_ISFIFO((files / "fifo").stat().st_mode)
    np.testing.assert_allclose(from_npy(read[0]), GRADIENT, rtol=1e-15)


@pytest.mark.parametrize("output", ["/dev/stdout", ">(cat)", "/dev/fd/1", "/proc/self/fd/1"])
def test_the_names_of_open_pipes_can_be_written(output, files):
    result = bash(f"xent grad l.npy t.npy -q -f npy -o {output} | cat")
    assert (result.code, result.err) == (0, "")
    np.testing.assert_allclose(from_npy(result.out), GRADIENT, rtol=1e-15)


def test_a_preview_needs_no_output_file_and_json_goes_beside_it(files, capfdbinary):
    result = inside(capfdbinary, *GRAD, "-o", "/dev/null", "--json", "-q")
    assert result.code == 0
    assert re.search(r'"path": "/dev/null"', result.text)


# The class itself


def write(names, error=None):
    """Write to several outputs, and perhaps fail."""
    with Outputs() as outputs:
        for name in names:
            outputs.open(name).write(b"new")
        if error:
            raise error


def test_outputs_that_are_left_by_an_error_leave_nothing(files):
    (files / "a").write_bytes(b"old")
    before = contents(files)
    with pytest.raises(KeyError):
        write(["a", "b"], KeyError())
    assert_unchanged(files, before)


def test_outputs_appear_at_the_end_and_together(files):
    before = contents(files)
    with Outputs() as outputs:
        for name in ("a", "b"):
            outputs.open(name).write(b"new")
        visible = {name for name in contents(files) if ".xent-" not in name}
        assert visible == before.keys()
    assert {name: data for name, data in contents(files).items() if name in "ab"} == {
        "a": b"new",
        "b": b"new",
    }


def test_the_same_output_twice_is_an_error(files):
    with pytest.raises(OptionError, match="twice"):
        write(["a", "./a"])
    assert sorted(contents(files)) == ["l.npy", "t.npy"]


def test_an_output_in_a_missing_folder_is_an_error(files):
    with pytest.raises(FileError, match="no folder"):
        write(["a", "missing/b"])
    assert sorted(contents(files)) == ["l.npy", "t.npy"]


def test_a_long_name_does_not_make_the_temporary_name_too_long(files):
    name = "x" * 255
    result = run(*GRAD, "-o", name)
    assert_done(result)
    assert_gradient(name)


def test_what_is_written_after_an_output_was_discarded_goes_nowhere(tmp_path):
    """An unfinished archive writes its end when it is freed; Python 3.13 shows errors of that."""
    sink = Sink(str(tmp_path / "g.npz"))
    sink.write(b"begun")
    sink.discard()
    assert sink.write(b"end") == 3
    assert list(tmp_path.iterdir()) == []
