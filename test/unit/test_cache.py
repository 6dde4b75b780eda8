# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The cache of what was built: whole entries of the right key, or none."""

from __future__ import annotations

import logging
import os
import resource
import signal
import time

import pytest
import torch
from torch import nn

from alocc_ros.runtime.cache import Cache, hardware, software, sources_digest, weights_digest

KEY = {"weights": "12ab", "precision": "fp16", "device": "NVIDIA H100"}
DATA = bytes(range(256)) * 40


@pytest.fixture
def cache(tmp_path) -> Cache:
    return Cache(tmp_path / "built")


def test_an_entry_is_made_once_and_comes_back_as_it_was(cache, caplog):
    made = []

    def make() -> bytes:
        made.append(1)
        return DATA

    assert [cache.get_or_make("engine", KEY, make) for _ in range(3)] == [DATA] * 3
    assert len(made) == 1 and not caplog.records
    assert [e.path.name.partition("-")[0] for e in cache.entries()] == ["engine"]
    assert cache.entries()[0].nbytes > len(DATA)


@pytest.mark.parametrize("changed", KEY)
def test_whatever_the_key_says_it_decides(cache, changed):
    cache.put("engine", KEY, DATA)
    assert cache.get("engine", KEY | {changed: "another"}) is None
    assert cache.get("graph", KEY) is None
    assert cache.get("engine", dict(reversed(KEY.items()))) == DATA


@pytest.mark.parametrize("place", [0, 16, 40, -1])
def test_one_flipped_bit_is_told_in_one_line_and_built_anew(cache, caplog, place):
    cache.put("engine", KEY, DATA)
    path = cache.path("engine", KEY)
    damaged = bytearray(path.read_bytes())
    damaged[place] ^= 1
    path.write_bytes(damaged)
    assert cache.get("engine", KEY) is None
    assert cache.get_or_make("engine", KEY, lambda: b"new") == b"new"
    assert cache.get("engine", KEY) == b"new"
    assert [r.levelno for r in caplog.records] == [logging.WARNING] * 2
    looked, made = (r.getMessage() for r in caplog.records)
    assert all("\n" not in told and "cannot be used" in told for told in (looked, made))
    assert "anew" in made and "anew" not in looked, "who only looks builds nothing"


@pytest.mark.parametrize("content", [b"", b"alocc cache 1\n", b"{}" * 100, os.urandom(3000)])
def test_anything_may_lie_where_an_entry_should(cache, content):
    cache.put("engine", KEY, DATA)
    cache.path("engine", KEY).write_bytes(content)
    assert cache.get("engine", KEY) is None


@pytest.mark.parametrize("header", [b"[]", b"{}", b"1", b'{"kind": {}, "key": 3}', b"[" * 60_000])
def test_headers_of_any_kind_are_damage(cache, header):
    cache.put("engine", KEY, DATA)
    length = len(header).to_bytes(4, "little")
    cache.path("engine", KEY).write_bytes(b"alocc cache 1\n" + length + header + DATA)
    assert cache.get("engine", KEY) is None


def test_every_cut_is_noticed(cache):
    cache.put("engine", KEY, DATA[:64])
    path = cache.path("engine", KEY)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert cache.get("engine", KEY) is None


def test_an_entry_of_another_key_is_foreign(cache, caplog):
    other = KEY | {"device": "NVIDIA H200"}
    cache.put("engine", other, DATA)
    os.replace(cache.path("engine", other), cache.path("engine", KEY))
    assert cache.get("engine", KEY) is None
    assert "belongs to something else" in caplog.text


def test_a_folder_that_cannot_be_is_one_warning_and_no_error(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    cache = Cache(tmp_path / "file" / "built")
    for _ in range(2):
        assert cache.get_or_make("engine", KEY, lambda: DATA) == DATA
    told = [r.getMessage() for r in caplog.records if "nothing is kept" in r.getMessage()]
    assert len(told) == 1 and "Not a directory" in told[0]
    assert cache.entries() == []


def test_a_full_disk_leaves_nothing_half_written(cache, caplog):
    # A limit on the size of files is a full disk that anybody can have.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        assert cache.get_or_make("engine", KEY, lambda: DATA) == DATA
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert list(cache.folder.iterdir()) == []
    assert [r.levelno for r in caplog.records] == [logging.WARNING]


def test_what_a_killed_process_was_writing_goes_after_a_day(cache):
    cache.put("engine", KEY, DATA)
    old, new = cache.folder / ".partial-old", cache.folder / ".partial-new"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 1e6,) * 2)
    cache.put("engine", KEY, DATA)
    assert (old.exists(), new.exists()) == (False, True)
    assert len(cache.entries()) == 1


def test_the_digest_of_weights_changes_with_every_value_and_name():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    first = weights_digest(net)
    assert weights_digest(net) == first
    with torch.no_grad():
        net[0].weight[3, 2, 1, 0] += 1e-6
    second = weights_digest(net)
    net[1].running_var[2] = 2
    third = weights_digest(net)
    assert len({first, second, third, weights_digest(nn.ModuleDict({"a": net}))}) == 4
    assert len({weights_digest(net.to(t)) for t in (torch.float16, torch.bfloat16)}) == 2


def test_keys_name_what_runs_here():
    assert software()["torch"] == torch.__version__
    assert software()["sources"] == sources_digest() and len(sources_digest()) == 64
    assert hardware(torch.device("cpu")) == {"device": "cpu"}
