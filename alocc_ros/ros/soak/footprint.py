# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What a process holds of the machine, sampled now and then: memory, threads, handles, segments."""

from __future__ import annotations

import contextlib
import re
import time
from collections import defaultdict
from pathlib import Path

from alocc_ros.ros.benchmark.processes import first_and_last
from alocc_ros.ros.transport import SEGMENT, SHARED_MEMORY

MEMORY = "memory"  # bytes; without shared memory, which other processes' segments are most of
THREADS = "threads"
HANDLES = "file handles"
SEGMENTS = "shared-memory segments"
SHARED = "shared memory"  # bytes of those segments that are in use

_SEGMENT = re.compile(rf"{SHARED_MEMORY}/({SEGMENT.pattern})\b")


class Footprint:
    """Samples of one process.

    Attributes:
        samples: (s, value) by quantity.
        seen: names of all segments that it ever had mapped, its own and its peers'.
    """

    def __init__(self, pid: int) -> None:
        """Of the process ``pid``."""
        self._proc = Path(f"/proc/{pid}")
        self.samples: dict[str, list[tuple[float, int]]] = defaultdict(list)
        self.seen: set[str] = set()

    def sample(self) -> None:
        """Takes a sample."""
        with contextlib.suppress(OSError):  # it has ended
            told = dict(
                line.split(":", 1) for line in (self._proc / "status").read_text().splitlines()
            )
            mapped = set(_SEGMENT.findall((self._proc / "maps").read_text()))
            handles = len(list((self._proc / "fd").iterdir()))
            now = time.monotonic()
            self.seen |= {name for name, _ in mapped}
            for quantity, value in {
                MEMORY: _bytes(told["VmRSS"]) - _bytes(told["RssShmem"]),
                THREADS: int(told["Threads"]),
                HANDLES: handles,
                SEGMENTS: len(mapped),
                SHARED: _bytes(told["RssShmem"]),
            }.items():
                self.samples[quantity].append((now, value))

    def change(self, quantity: str, warm: float) -> tuple[int, int]:
        """Medians of the first and of the last tenth of the time after ``warm`` seconds."""
        return first_and_last(self.samples[quantity], warm)

    def left(self) -> list[str]:
        """Segments that are still there."""
        return sorted(name for name in self.seen if (SHARED_MEMORY / name).exists())


def _bytes(text: str) -> int:
    return int(text.split()[0]) * 1024
