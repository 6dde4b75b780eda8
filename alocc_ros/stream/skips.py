# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Single messages that cannot be used: left out, counted by reason, said once; work goes on.

The one rule of ``alocc run`` and the node. Only where nothing is left is it an error, and then
whoever needs the thing raises it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from alocc_ros.errors import BagError

# Reasons. External monitors match on these words: keep them.
NO_SUCH_MESSAGE = "bytes that are no such message"
BAD_STAMP = "stamp is zero or negative"
BAD_IMAGE = "image cannot be decoded"
NO_KEY_FRAME = "video without a key frame before it"
BAD_PACKET = "video packet cannot be decoded"
VIDEO_TOO_SLOW = "video comes faster than it is decoded"
NO_PICTURE = "video packet without a picture"
BAD_CAMERA_INFO = "CameraInfo cannot be used"
BAD_ODOMETRY = "pose cannot be used"
HELD_POSE = "older pose held"


def bad_transform(parent: str, child: str) -> str:
    """The reason for a transform that cannot be used."""
    return f"transform of {child} in {parent} cannot be used"


class Skips:
    """What was left out.

    Attributes:
        counts: number by ``where: reason``.
        say: gets one text for each kind, when it comes for the first time.
    """

    def __init__(self, say: Callable[[str], None] | None = None, *, strict: bool = False) -> None:
        """Nothing was left out yet.

        Args:
            say: see the attribute.
            strict: make an error of each.
        """
        self.counts: Counter[str] = Counter()
        self.say, self._strict = say, strict
        self._said: set[str] = set()

    def add(self, where: str, reason: str, detail: str = "") -> None:
        """One message less.

        Args:
            where: topic or camera.
            reason: in words that stay the same from message to message.
            detail: what exactly is wrong with this one.

        Raises:
            BagError: if they are strict.
        """
        kind = f"{where}: {reason}"
        text = f"{kind} ({detail})" if detail and detail != reason else kind
        if self._strict:
            raise BagError(f"{text}; without --strict it is left out and counted")
        self.counts[kind] += 1
        if kind not in self._said:
            self._said.add(kind)
            if self.say is not None:
                self.say(f"{text}; such messages are left out and counted")

    def __str__(self) -> str:
        return ", ".join(f"{number} x {kind}" for kind, number in sorted(self.counts.items()))
