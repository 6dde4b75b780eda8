# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Video of live cameras, decoded beside the executor: it takes milliseconds a picture."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore

from alocc_ros.ros.definitions import is_installed, message_class
from alocc_ros.stream.skips import BAD_PACKET, VIDEO_TOO_SLOW
from alocc_ros.stream.video import VIDEO_TYPES, Skip, VideoStreams, is_available
from alocc_ros.types import CameraImage

_MOST_WAITING = 10  # packets of a camera, about as many as wait for the executor


def video_classes() -> dict[str, type]:
    """Message classes of packets by type name, as far as they are installed and can be decoded."""
    if not is_available():
        return {}
    return {kind: message_class(kind) for kind in VIDEO_TYPES if is_installed(kind)}


def advice(kind: str) -> str:
    """What to do about a publisher of this type, if that is video which is not subscribed to."""
    if kind not in VIDEO_TYPES:
        return ""
    wanted = [] if is_available() else ["pip install 'alocc_ros[video]'"]
    if not is_installed(kind):
        wanted.append(f"install the package {kind.partition('/')[0]}")
    here = " and ".join(wanted) or "image_transport: auto"
    return f" (video; {here}, or decode it before: ros2 run image_transport republish ffmpeg raw)"


class LiveVideo:
    """The packets of one camera in, its pictures out in a thread of its own."""

    def __init__(self, camera: str, deliver: Callable[[CameraImage], None], skip: Skip) -> None:
        """Nothing runs before the first packet.

        Args:
            camera: name out of the rig.
            deliver: gets each picture.
            skip: takes note of each packet that no picture comes of.
        """
        self._camera, self._deliver, self._skip = camera, deliver, skip
        self._streams = VideoStreams(skip)
        self._room = BoundedSemaphore(_MOST_WAITING)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"video {camera}")
        self._is_after_gap = False

    def add(self, packet: CameraImage) -> None:
        """Returns at once; in the executor's thread."""
        if not self._room.acquire(blocking=False):
            self._is_after_gap = True
            self._skip(self._camera, VIDEO_TOO_SLOW, f"{_MOST_WAITING} packets wait")
            return
        after_gap, self._is_after_gap = self._is_after_gap, False
        self._thread.submit(self._decode, packet, after_gap)

    def close(self) -> None:
        """Ends the thread after the packet that it is at."""
        self._thread.shutdown(cancel_futures=True)

    def _decode(self, packet: CameraImage, after_gap: bool) -> None:
        try:
            pictures = self._streams.lose(self._camera) if after_gap else []
            for picture in [*pictures, *self._streams.add(packet)]:
                self._deliver(picture)
        # As with a callback of the executor: the node goes on, and says what happened.
        except Exception as error:
            self._skip(self._camera, BAD_PACKET, f"{type(error).__name__}: {error}")
        finally:
            self._room.release()
