# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Programs on a ROS domain of their own, and somebody who listens to them."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from nav_msgs.msg import OccupancyGrid
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image, PointCloud2
from visualization_msgs.msg import MarkerArray

from alocc_ros.msg import FrameStatusStamped, GridInfo, SemanticGrid

ENDS = 60.0  # s; a program that was asked to end has hung if it takes longer on a busy machine
HERE = Path(__file__).parent
TINY = ("-p", "model:=flow", "-p", "random_weights:=true")
TYPES = {
    "occupancy": PointCloud2,
    "obstacles": PointCloud2,
    "occupancy_grid": OccupancyGrid,
    "flow_markers": MarkerArray,
    "object_markers": MarkerArray,
    "voxels": SemanticGrid,
    "status": FrameStatusStamped,
    "markers": MarkerArray,
    "overlay/cam_front": Image,
    "grid_info": GridInfo,
}
_domains = itertools.count(os.getpid() * 7)


class Stage:
    """A ROS domain with programs on it.

    Attributes:
        messages: by topic (``voxels`` for ``/alocc_node/voxels``), what came.
        node: to make clients and publishers with.
    """

    def __init__(self, *topics: str) -> None:
        """Listens to ``topics`` of the node, and to /diagnostics."""
        self.domain = 10 + next(_domains) % 90
        self._programs: list[subprocess.Popen] = []
        self.messages: dict[str, list[Any]] = defaultdict(list)
        self._context = rclpy.Context()
        rclpy.init(args=[], context=self._context, domain_id=self.domain)
        self.node = rclpy.create_node("stage", context=self._context)
        for topic in topics:
            qos = QoSProfile(depth=50)
            if topic == "grid_info":
                qos = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
            self.node.create_subscription(
                TYPES[topic], f"/alocc_node/{topic}", self.messages[topic].append, qos
            )
        self.node.create_subscription(
            DiagnosticArray, "/diagnostics", self.messages["diagnostics"].append, 50
        )
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._is_closing = False
        self._thread = threading.Thread(target=self._spin)
        self._thread.start()

    def _spin(self) -> None:
        while not self._is_closing:
            self._executor.spin_once(timeout_sec=0.1)

    def do(self, action: Callable[[], Any]) -> Any:
        """The result of ``action``, done in the thread that spins.

        What is destroyed by another thread may be in use by this one, which ends it.
        """
        task = self._executor.create_task(action)
        self.until(task.done, "nothing spins")
        return task.result()

    def close(self) -> None:
        """Ends everything."""
        for program in self._programs:
            if program.poll() is None:
                program.terminate()  # what is killed leaves its shared memory behind
            try:
                program.communicate(timeout=ENDS)
            except subprocess.TimeoutExpired:
                program.kill()
                program.communicate()
        self._is_closing = True
        self._thread.join()
        self._executor.shutdown()
        rclpy.shutdown(context=self._context)

    def start(self, *command: str) -> subprocess.Popen:
        """``python COMMAND`` on this domain."""
        environment = dict(os.environ, ROS_DOMAIN_ID=str(self.domain), OMP_NUM_THREADS="1")
        program = subprocess.Popen(
            [sys.executable, *command],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            pipesize=2**20,  # nobody reads before the end: what is full would stop the program
            # A job in the background of a shell would ignore it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        self._programs.append(program)
        return program

    def start_node(self, *arguments: str, until: str = "sets") -> subprocess.Popen:
        """The node; comes back when its diagnostics have that part (``sets``: it is active).

        Without a part, when it can be asked for its state.
        """
        program = self.start(str(HERE / "tiny_node.py"), "--ros-args", *TINY, *arguments)
        self.until(
            lambda: (
                (self.status(until) is not None if until else self._has_node())
                or program.poll() is not None
            ),
            "the node does not start",
            timeout=120.0,
        )
        return program

    def _has_node(self) -> bool:
        return "/alocc_node/change_state" in dict(self.node.get_service_names_and_types())

    def play(self, bag: Path, *arguments: str) -> str:
        """Plays a bag to its end; what the player says."""
        program = self.start("-m", "alocc_ros.cli.main", "play", str(bag), *arguments)
        said, _ = program.communicate(timeout=120)
        assert program.returncode == 0, said
        return said

    def until(self, holds: Callable[[], bool], complaint: str, timeout: float = 60.0) -> None:
        """Waits until something holds."""
        end = time.monotonic() + timeout
        while not holds():
            assert self._thread.is_alive(), "the listener has died"
            assert time.monotonic() < end, f"{complaint}; {self.values('sets')}"
            time.sleep(0.02)

    def stamps(self, topic: str) -> list[int]:
        """Of the messages on ``topic``, ns."""
        return [ns(m.header.stamp) for m in self.messages[topic]]

    def status(self, part: str) -> DiagnosticStatus | None:
        """The newest diagnostic status of a part, such as ``camera cam_front``."""
        for message in reversed(self.messages["diagnostics"]):
            for status in message.status:
                if status.name == f"/alocc_node: {part}":
                    return status
        return None

    def values(self, part: str) -> dict[str, str]:
        """Of the newest diagnostic status of a part."""
        status = self.status(part)
        return {} if status is None else {v.key: v.value for v in status.values}

    def call(self, service: str, kind: type, **fields: Any) -> Any:
        """The answer of ``/alocc_node/<service>``."""
        client = self.node.create_client(kind, f"/alocc_node/{service}")
        assert client.wait_for_service(60.0)
        future = client.call_async(kind.Request(**fields))
        self.until(future.done, f"{service} does not answer", timeout=60.0)
        self.do(lambda: self.node.destroy_client(client))
        return future.result()


def ns(stamp: Any) -> int:
    """A ROS time in nanoseconds."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec
