"""The suite runs in a process per core only where that is wanted."""

from types import SimpleNamespace

import pytest
from conftest import to_be_shared_out

WHOLE = {"args": ["."], "numprocesses": None, "usepdb": False, "capture": "fd"}


def config(args, **option):
    return SimpleNamespace(args=args, option=SimpleNamespace(**option))


def test_whole_folders_are_shared_out():
    assert to_be_shared_out(config(**WHOLE))


@pytest.mark.parametrize(
    "change",
    [{"args": [__file__]}, {"numprocesses": 3}, {"usepdb": True}, {"capture": "no"}],
    ids=lambda change: next(iter(change)),
)
def test_named_files_and_whoever_looks_on_get_one_process(change):
    assert not to_be_shared_out(config(**{**WHOLE, **change}))


def test_without_the_plugin_there_is_one_process():
    option = {name: value for name, value in WHOLE.items() if name != "numprocesses"}
    assert not to_be_shared_out(config(**option))


def test_a_process_that_was_given_its_share_starts_no_others():
    whole = config(**WHOLE)
    whole.workerinput = {}
    assert not to_be_shared_out(whole)
