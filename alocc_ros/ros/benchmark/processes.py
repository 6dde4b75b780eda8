# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The processes of a measurement: starting, ending and watching them, and listening to the node."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from alocc_ros.outputs import find_output

NODE = "/alocc_node"
OUTPUTS = ("occupancy", "obstacles", "occupancy_grid", "voxels", "status")

_END = 30.0  # s, for a process to end
_WARM = 300.0  # s, or a third of a shorter run: until then memory may grow
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


class Process:
    """A Python program; use it in a ``with`` block, with which it ends."""

    def __init__(
        self, *arguments: str, environment: dict[str, str], with_errors: bool = False
    ) -> None:
        """Starts ``python ARGUMENTS``; ``with_errors``: its stderr is kept as well."""
        # Never full, unlike a pipe that is not read.
        self._file = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.program = subprocess.Popen(
            [sys.executable, *arguments],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=self._file,
            stderr=subprocess.STDOUT if with_errors else None,
            preexec_fn=_begin,
            start_new_session=True,  # our Ctrl-C is ours to pass on
        )

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends it, in order if it can be had, and waits for the end."""
        with contextlib.suppress(BrokenPipeError):  # of a command that it did not live to read
            self.program.stdin.close()
        if self.program.poll() is None:
            self.program.terminate()  # what is killed leaves its shared memory behind
        try:
            self.program.wait(_END)
        except subprocess.TimeoutExpired:
            self.program.kill()
            self.program.wait()
        self._file.close()

    @property
    def ended(self) -> bool:
        """Whether it has exited."""
        return self.program.poll() is not None

    @property
    def output(self) -> str:
        """All that it has printed so far."""
        self._file.seek(0)
        return self._file.read()

    def interrupt(self) -> None:
        """Ctrl-C, and waits for the end."""
        self.program.send_signal(signal.SIGINT)
        self.program.wait(_END)


def _begin() -> None:
    # A job in the background of a shell would ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(_LIBC, "prctl"):  # who is killed has no time to end its children
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


class Usage:
    """Memory and processor time of a process, sampled now and then.

    Attributes:
        memory: (s, bytes) of each sample.
        processor: s that it has used since the first sample.
    """

    def __init__(self, process: Process) -> None:
        self._proc = Path(f"/proc/{process.program.pid}")
        self.memory: list[tuple[float, int]] = []
        self._first = self._last = 0.0

    def sample(self) -> None:
        """Takes a sample."""
        with contextlib.suppress(OSError):  # it has ended
            pages = (self._proc / "statm").read_text().split()[1]
            fields = (self._proc / "stat").read_text().rpartition(")")[2].split()
            self._last = (int(fields[11]) + int(fields[12])) / _TICK
            self._first = self._first or self._last
            self.memory.append((time.monotonic(), int(pages) * _PAGE))

    @property
    def processor(self) -> float:
        """Seconds between the first look and the last."""
        return self._last - self._first

    @property
    def growth(self) -> float:
        """Share by which the memory has grown since the process was warm."""
        return growth(self.memory)


def growth(memory: list[tuple[float, int]]) -> float:
    """Of (s, bytes): the median of the last tenth against that of the first tenth once warm."""
    if not memory:
        return 0.0
    first, last = first_and_last(memory)
    return last / first - 1.0


def first_and_last(samples: list[tuple[float, int]], warm: float = _WARM) -> tuple[int, int]:
    """Of (s, value), not empty: the medians of the first and of the last tenth once warm.

    That is after ``warm`` seconds, or a third of a shorter run.
    """
    begin, end = samples[0][0], samples[-1][0]
    settled = [value for at, value in samples if at >= begin + min(warm, (end - begin) / 3)]
    tenth = max(len(settled) // 10, 1)
    first, last = sorted(settled[:tenth]), sorted(settled[-tenth:])
    return first[len(first) // 2], last[len(last) // 2]


class Statuses:
    """The node's own reports on /diagnostics."""

    def __init__(self, node: Any) -> None:
        """Subscribes with ``node``, which the caller spins."""
        from diagnostic_msgs.msg import DiagnosticArray

        self._statuses: dict[str, dict[str, str]] = {}
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def values(self, part: str) -> dict[str, str]:
        """Of the newest status of a part of the node (``sets``); empty before the first."""
        return self._statuses.get(part, {})

    def number(self, part: str, key: str) -> int:
        """One of them; 0 before the first."""
        return int(self.values(part).get(key, 0))

    def outcomes(self) -> dict[str, int]:
        """What became of the sets that were put together."""
        failed = [int(n) for key, n in self.values("sets").items() if key.startswith("failed: ")]
        names = ("processed", "superseded", "ignored")
        return {name: self.number("sets", name) for name in names} | {"failed": sum(failed)}

    @property
    def is_done(self) -> bool:
        """Whether no camera set waits or is being processed."""
        return self.number("sets", "offered") == sum(self.outcomes().values())

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            part = status.name.removeprefix(f"{NODE}: ")
            self._statuses[part] = {v.key: v.value for v in status.values}


class Listener:
    """Subscribes to the node's outputs and to /diagnostics; decodes nothing but the latter.

    Attributes:
        counts: messages by output.
        statuses: the node's own reports.
        node: for more subscriptions and clients.
    """

    def __init__(self, domain: int) -> None:
        """Listens on a ROS domain."""
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.signals import SignalHandlerOptions

        from alocc_ros.ros.definitions import message_class

        self.counts: Counter[str] = Counter()
        self._context = rclpy.Context()
        rclpy.init(
            args=[],
            context=self._context,
            domain_id=domain,
            signal_handler_options=SignalHandlerOptions.NO,
        )
        self.node = node = rclpy.create_node("benchmark", context=self._context)
        for name in OUTPUTS:
            kind = message_class(find_output(name).type)
            node.create_subscription(kind, f"{NODE}/{name}", self._counter(name), 10, raw=True)
        self.statuses = Statuses(node)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(node)

    def spin(self, seconds: float) -> None:
        """Receives for so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def close(self) -> None:
        """Ends it."""
        self._executor.shutdown()
        self._context.try_shutdown()

    def _counter(self, name: str) -> Callable[[bytes], None]:
        return lambda _: self.counts.update([name])


@contextlib.contextmanager
def listening(domain: int) -> Iterator[Listener]:
    """A listener for the block."""
    listener = Listener(domain)
    try:
        yield listener
    finally:
        listener.close()


def machine_processor() -> float:
    """Seconds of processor time that the machine has spent on anything since it was started."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()
    user, nice, system, _, _, irq, softirq = (int(f) for f in fields[1:8])
    return (user + nice + system + irq + softirq) / _TICK
