# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""A bag given to a running node burst by burst, each when the node is done with the one before.

A player plays in time, and on a busy machine the node then leaves sets out, as it should. Here
nothing depends on time, so what comes out is the same however slow the machine is.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from live import Stage, ns
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock

from alocc_ros.bags.cdr import TYPESTORE
from alocc_ros.bags.reader import IMAGE_TYPES, Bag, Record
from alocc_ros.bags.writer import Recorder
from alocc_ros.msg import SemanticGrid
from alocc_ros.ros.encoder import time as time_message

_PAUSE = 30_000_000  # ns without a message: a burst is over
_AFTER = 300_000_000  # ns of silence after the last burst
_REPORTS = 3  # so many diagnostics later, every timer of the node has run


class Entry(NamedTuple):
    """One message of a bag, decoded."""

    log_time: int  # ns
    topic: str
    type: str
    message: Any


def entries(bag: Path) -> list[Entry]:
    """Everything in a bag."""
    with Bag(bag) as opened:
        return [
            Entry(r.log_time, r.topic, r.type, TYPESTORE.deserialize_cdr(r.data, r.type))
            for r in opened.messages(opened.types)
        ]


def written(target: Path, messages: Iterable[Entry]) -> Path:
    """A bag of these messages, in the order of their time."""
    recorder = Recorder(target.with_suffix(".partial"), {})
    for entry in sorted(messages, key=lambda e: e.log_time):
        data = bytes(TYPESTORE.serialize_cdr(entry.message, entry.type))
        recorder.write_bytes(entry.topic, entry.type, entry.log_time, data)
    recorder.end_frame()
    recorder.publish(target)
    return target


class Feeder:
    """Publishers on a stage that listens to ``voxels``, for the bags that one node gets."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._publishers: dict[tuple[str, str], Any] = {}
        self._clock = stage.node.create_publisher(Clock, "/clock", 10)

    def feed(self, bag: Path, *, best_effort: bool = False) -> list[SemanticGrid]:
        """Gives the whole bag; what the node made of it.

        Args:
            bag: what is recorded after the last image of a burst comes when those have arrived.
            best_effort: images are published as cameras do.
        """
        with Bag(bag) as opened:
            records = list(opened.messages(opened.types))
        self._connect(sorted({(r.topic, r.type) for r in records}, key=_images_last), best_effort)
        bursts = _bursts(records)
        outputs = self._stage.messages["voxels"]
        begin = len(outputs)
        for burst, following in zip(bursts, [*bursts[1:], None], strict=True):
            images = [r for r in burst if r.type in IMAGE_TYPES]
            last = images[-1].log_time if images else burst[-1].log_time
            others = [r for r in burst if r.type not in IMAGE_TYPES]
            expected = self._received() + len(images)
            self._tick(burst[0].log_time)
            self._publish(r for r in others if r.log_time <= last)
            self._publish(images)
            self._until(lambda n=expected: self._received() >= n, "images are lost")
            self._publish(r for r in others if r.log_time > last)
            end = burst[-1].log_time + _AFTER if following is None else following[0].log_time - 1
            self._settle(end)
        return outputs[begin:]

    def close(self) -> None:
        """Ends the publishers; the node must be inactive."""
        self._until(
            lambda: not any(p.get_subscription_count() for p in self._publishers.values()),
            "a subscription is left",
        )
        self._destroy(list(self._publishers))

    def _destroy(self, keys: Iterable[tuple[str, str]]) -> None:
        for key in keys:
            publisher = self._publishers.pop(key)
            self._stage.do(lambda p=publisher: self._stage.node.destroy_publisher(p))

    def _publish(self, records: Iterable[Record]) -> None:
        for record in records:
            self._publishers[record.topic, record.type].publish(record.data)

    def _connect(self, wanted: list[tuple[str, str]], best_effort: bool) -> None:
        """Publishers for these topics and types, and no others."""
        node = self._stage.node
        others = [key for key in self._publishers if key not in wanted]
        self._destroy(others)
        # Which happens when the executor lets them go; a topic cannot have two types.
        self._until(
            lambda: not any(node.count_publishers(topic) for topic, _ in others),
            "a publisher is left",
        )
        for topic, kind in wanted:
            if (topic, kind) not in self._publishers:
                package, _, name = kind.split("/")
                message = getattr(importlib.import_module(f"{package}.msg"), name)
                qos = QoSProfile(depth=100)
                if topic == "/tf_static":
                    qos.durability = DurabilityPolicy.TRANSIENT_LOCAL
                elif best_effort and kind in IMAGE_TYPES:
                    qos.reliability = ReliabilityPolicy.BEST_EFFORT
                self._publishers[topic, kind] = node.create_publisher(message, topic, qos)
        # The node subscribes to images when it has found their publishers, and those were made
        # last: then it has found all of them.
        self._until(
            lambda: all(p.get_subscription_count() for p in self._publishers.values()),
            "a topic has no subscriber",
        )

    def _tick(self, now: int) -> None:
        self._clock.publish(Clock(clock=time_message(now)))

    def _received(self) -> int:
        """Images that the node has counted."""
        latest = self._stage.messages["diagnostics"][-1]
        values = [v for status in latest.status for v in status.values]
        return sum(int(v.value) for v in values if v.key == "received")

    def _settle(self, now: int) -> None:
        """Lets time go on to ``now``, and waits until the node has done all that there is."""
        reports = self._stage.messages["diagnostics"]
        begin = len(reports)
        self._tick(now)
        self._until(
            lambda: (
                sum(ns(r.header.stamp) == now for r in reports[begin:]) >= _REPORTS
                and self._is_idle()
            ),
            "the node does not come to rest",
        )

    def _is_idle(self) -> bool:
        values = self._stage.values("sets")
        kinds = ("processed", "superseded", "ignored")
        done = sum(int(v) for k, v in values.items() if k in kinds or k.startswith("failed: "))
        processed = len(self._stage.messages["voxels"])
        return int(values["offered"]) == done and int(values["processed"]) == processed

    def _until(self, holds: Callable[[], bool], complaint: str) -> None:
        self._stage.until(holds, complaint, timeout=120.0)


def _images_last(key: tuple[str, str]) -> tuple[bool, str]:
    return (key[1] in IMAGE_TYPES, key[0])


def _bursts(records: list[Record]) -> list[list[Record]]:
    """Messages that follow each other closely."""
    bursts: list[list[Record]] = []
    last = None
    for record in records:
        if last is None or record.log_time - last > _PAUSE:
            bursts.append([])
        bursts[-1].append(record)
        last = record.log_time
    return bursts
