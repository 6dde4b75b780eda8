# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The faults of a soak: which come when (from a seed), and what they do to messages. No ROS."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from alocc_ros.bags.cdr import TYPESTORE
from alocc_ros.bags.reader import CAMERA_INFO_TYPE, IMAGE_TYPES, TF_TYPE, Record

DEATH = "camera death"
STAMPS = "stamp jump"
TELEPORT = "teleport"
QOS = "QoS change"
RESET = "reset"
PLAYER = "player killed"
KINDS = (DEATH, STAMPS, TELEPORT, QOS, RESET, PLAYER)
PLAYED = (DEATH, STAMPS, TELEPORT, QOS)  # what the player does on command

_SHORTEST, _LONGEST = 1.0, 6.0  # s
_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 4.0  # s
_JUMPS = (-1000.0, -100.0, -1.0, 1.0, 100.0, 1000.0)  # s
_DISTANCE = 500.0  # m
_NANO = 1_000_000_000


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        kind: one of ``KINDS``.
        camera: that it strikes, if it is one camera's.
        amount: s of a stamp jump, m of a teleport.
        seconds: how long its cause lasts; 0: it is a moment.
        pause: s after recovery until the next one.
    """

    kind: str
    camera: str
    amount: float
    seconds: float
    pause: float

    def command(self, begins: bool) -> str:
        """For the player: one line of JSON."""
        return json.dumps({"fault": asdict(self), "begins": begins})


def stream(seed: int, cameras: Sequence[str]) -> Iterator[Fault]:
    """Faults for ever; each kind as often as any other, in an order of its own."""
    source = random.Random(seed)
    while True:
        kinds = list(KINDS)
        source.shuffle(kinds)
        for kind in kinds:
            yield Fault(
                kind,
                source.choice(cameras) if kind in (DEATH, STAMPS) else "",
                {STAMPS: source.choice(_JUMPS), TELEPORT: _DISTANCE}.get(kind, 0.0),
                0.0 if kind == RESET else source.uniform(_SHORTEST, _LONGEST),
                source.uniform(_SHORTEST_PAUSE, _LONGEST_PAUSE),
            )


def parse_command(line: str) -> tuple[Fault, bool]:
    """What ``Fault.command`` has written: the fault, and whether it begins."""
    values = json.loads(line)
    return Fault(**values["fault"]), values["begins"]


class Changes:
    """What the faults that are going on do to messages."""

    def __init__(self, topics: dict[str, tuple[str, ...]], base_frame: str) -> None:
        """For a rig.

        Args:
            topics: of each camera's images and infos.
            base_frame: of the vehicle, whose pose a teleport changes.
        """
        self._topics, self._base_frame = topics, base_frame
        self._faults: dict[str, Fault] = {}

    def take(self, fault: Fault, begins: bool) -> None:
        """Begins or ends a fault."""
        if begins:
            self._faults[fault.kind] = fault
        else:
            self._faults.pop(fault.kind, None)

    @property
    def best_effort(self) -> bool:
        """Whether a QoS change is going on."""
        return QOS in self._faults

    def __call__(self, record: Record) -> bytes | None:
        """What goes out in place of a message; None: nothing."""
        dead, jumping = self._faults.get(DEATH), self._faults.get(STAMPS)
        if dead and record.topic in self._topics[dead.camera]:
            return None
        if jumping and record.topic in self._topics[jumping.camera]:
            if record.type in (*IMAGE_TYPES, CAMERA_INFO_TYPE):
                return with_later_stamp(record.data, jumping.amount)
        elif TELEPORT in self._faults and record.type == TF_TYPE:
            return self._teleported(record)
        return record.data

    def _teleported(self, record: Record) -> bytes:
        message = TYPESTORE.deserialize_cdr(record.data, record.type)
        for transform in message.transforms:
            if transform.child_frame_id.lstrip("/") == self._base_frame:
                transform.transform.translation.x += self._faults[TELEPORT].amount
        return bytes(TYPESTORE.serialize_cdr(message, record.type))


def with_later_stamp(data: bytes, seconds: float) -> bytes:
    """CDR that begins with a header, its stamp moved; as far as a stamp can be moved."""
    order = "<" if data[1] & 1 else ">"
    time = struct.Struct(f"{order}iI")
    second, nanosecond = time.unpack_from(data, 4)
    total = second * _NANO + nanosecond + round(seconds * _NANO)
    total = min(max(total, 0), (1 << 31) * _NANO - 1)
    return data[:4] + time.pack(*divmod(total, _NANO)) + data[4 + time.size :]
