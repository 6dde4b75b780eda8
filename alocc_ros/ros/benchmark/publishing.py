# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""How long filling and publishing the large messages of one result takes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from alocc_ros.errors import AloccError
from alocc_ros.ros.benchmark.report import Report, Row, environment
from alocc_ros.types import FrameSet, Occupancy

if TYPE_CHECKING:
    from alocc_ros.ros.outputs import Outputs

_OCCUPIED = 60_000  # voxels, of 640,000
_MOST = 15.0  # ms
_ROUNDS, _WARM = 100, 10
_TIMEOUT = 60.0  # s
_LISTENER = "from alocc_ros.ros.benchmark.publishing import listen; listen()"
_TOPICS = ("occupancy", "occupancy_grid", "voxels")


def measure(progress: Callable[[str], None]) -> Report:
    """Publishes to another process.

    Raises:
        AloccError: the listener does not subscribe in time.
    """
    import rclpy
    from rclpy.lifecycle import LifecycleNode
    from rclpy.signals import SignalHandlerOptions

    from alocc_ros.ros import transport
    from alocc_ros.ros.outputs import Outputs
    from alocc_ros.ros.parameters import NodeParameters

    middleware = transport.prepare()
    os.environ["ROS_DOMAIN_ID"] = str(random.randint(1, 100))
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    listener = subprocess.Popen(
        [sys.executable, "-c", _LISTENER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        node = LifecycleNode("alocc_node")
        outputs = Outputs(node, NodeParameters(), ())
        node.trigger_configure()
        node.trigger_activate()
        progress("waiting for the listener")
        end = time.monotonic() + _TIMEOUT
        while not all(outputs.has_subscribers(topic) for topic in _TOPICS):
            if time.monotonic() > end or listener.poll() is not None:
                raise AloccError("the listener does not start")
            time.sleep(0.05)
        walls, processor = _times(outputs, progress)
        node.destroy_node()
    finally:
        printed, _ = listener.communicate(timeout=_TIMEOUT)
        rclpy.try_shutdown()
    rows = [
        Row("processor time, median / p95, ms", _both(processor), f"at most {_MOST:g}",
            bool(np.median(processor) <= _MOST)),
        Row("on the clock, median / p95, ms", _both(walls)),
        Row("messages published", str(len(_TOPICS) * (_WARM + _ROUNDS))),
        Row("messages received", printed.strip()),
    ]  # fmt: skip
    title = f"PointCloud2 of {_OCCUPIED} points, OccupancyGrid, dense grid of 640 kB"
    return Report(title, rows, environment(middleware))


def _times(outputs: Outputs, progress: Callable[[str], None]) -> tuple[list[float], list[float]]:
    walls, processor = [], []
    for number in range(_WARM + _ROUNDS):
        progress(f"{number} of {_WARM + _ROUNDS}")
        frame, occupancy = _result(number)
        begin, cpu = time.perf_counter(), time.process_time()
        outputs.publish(frame, occupancy)
        walls.append(1e3 * (time.perf_counter() - begin))
        processor.append(1e3 * (time.process_time() - cpu))
        time.sleep(0.05)
    return walls[_WARM:], processor[_WARM:]


def _result(number: int) -> tuple[FrameSet, Occupancy]:
    """A new one each time, as from a network."""
    from alocc_ros.labels import OPENOCC
    from alocc_ros.network.variants import ALOCC_FLOW_2D

    random_ = np.random.default_rng(number)
    grid = ALOCC_FLOW_2D.grid
    labels = np.full(grid.shape, OPENOCC.free, np.uint8)
    cells = random_.choice(labels.size, _OCCUPIED, replace=False)
    labels.reshape(-1)[cells] = random_.integers(0, OPENOCC.free, _OCCUPIED)
    flow = np.zeros((*grid.shape, 2), np.float16)
    flow.reshape(-1, 2)[cells] = random_.normal(0.0, 3.0, (_OCCUPIED, 2))
    stamp = time.time_ns()
    frame = FrameSet(stamp, {}, {}, np.eye(4), {})
    return frame, Occupancy(labels, flow, grid, OPENOCC, stamp, "base_link", np.eye(4))


def _both(times: Sequence[float]) -> str:
    return f"{np.median(times):.1f} / {np.percentile(times, 95):.1f}"


def listen() -> None:
    """The process that subscribes, until its standard input is closed."""
    import threading

    import rclpy
    from rclpy.signals import SignalHandlerOptions

    from alocc_ros.outputs import find_output
    from alocc_ros.ros.definitions import message_class

    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("benchmark")
    received = []
    for topic in _TOPICS:
        kind = message_class(find_output(topic).type)
        node.create_subscription(
            kind, f"/alocc_node/{topic}", lambda _: received.append(1), 1, raw=True
        )
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    while not ended.is_set():
        rclpy.spin_once(node, timeout_sec=0.1)
    print(len(received))
    rclpy.try_shutdown()
