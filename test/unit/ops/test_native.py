# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The C library itself: how it is built, kept and called."""

from __future__ import annotations

import os
import shutil
import signal
import time

import pytest
import torch
from operators import random

from alocc_ros.ops import native
from alocc_ros.ops.argmax import occupancy_argmax


def test_kernels_build_into_an_empty_cache_and_a_broken_compiler_is_survived(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build = native.library.__wrapped__
    if build() is None:
        pytest.skip("no C compiler here")
    assert [p.suffix for p in (tmp_path / "alocc_ros").iterdir()] == [".so"]
    monkeypatch.setenv("CC", f"{shutil.which('env')} cc")
    assert build() is not None
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")  # nobody can write there
    assert build() is not None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", "false")
    assert build() is None
    assert "plain torch" in caplog.text
    # One for each compiler command, nothing half-built.
    assert [p.suffix for p in (tmp_path / "alocc_ros").iterdir()] == [".so", ".so"]


def test_kernels_can_be_switched_off(monkeypatch):
    monkeypatch.setenv("ALOCC_NATIVE", "0")
    assert native.library.__wrapped__() is None


def test_kernels_work_in_a_forked_child():
    if native.library() is None:
        pytest.skip("no C compiler here")
    logits = random(100_000, 5)
    with torch.no_grad():
        expected = occupancy_argmax(logits, 0)  # the parent's threads exist by now
        child = os.fork()
        if child == 0:  # no exception may leave the child: it would run the rest of the tests
            torch.set_num_threads(2)
            # Compared by numpy: torch's own OpenMP threads do not survive a fork.
            seen = occupancy_argmax(logits, 0).numpy().tobytes()
            os._exit(0 if seen == expected.numpy().tobytes() else 1)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert os.waitstatus_to_exitcode(status) == 0
            return
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError("the child waits for threads that it does not have")


@pytest.mark.parametrize("rows", [0, 1, 7, 1000])
@pytest.mark.parametrize("grain", [1, 3, 2000])
@pytest.mark.parametrize("count", [1, 3])
def test_every_row_is_dealt_out_once(monkeypatch, rows, grain, count):
    monkeypatch.setattr(native, "_threads", lambda: count)
    seen = []
    native.parallel(lambda begin, end: seen.append((begin, end)), rows, grain)
    assert [r for begin, end in sorted(seen) for r in range(begin, end)] == list(range(rows))
    assert len(seen) == 1 or min(end - begin for begin, end in seen) >= grain
