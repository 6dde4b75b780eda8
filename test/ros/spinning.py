# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What ROS tests share: spinning with an end, and children that never outlive a test."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]


def spin_until(executor, condition: Callable[[], object], seconds: float = 60.0) -> bool:
    """Spins until ``condition`` holds; False if it does not within ``seconds``."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        executor.spin_once(timeout_sec=0.05)
    return True


@contextlib.contextmanager
def child(code: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Runs Python ``code`` beside the test; ended with it."""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        # Killed outright it would leave its shared memory behind.
        for end in (signal.SIGINT, signal.SIGKILL):
            if process.poll() is None:
                os.killpg(process.pid, end)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=5)
