# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Video on camera topics into images, by PyAV (FFmpeg), which is optional.

A packet means nothing without those before it, so each one is decoded as it is read, whether a set
will need its picture or not. What comes out is as if the camera had sent raw images.

Nothing comes out that is only nearly right: after a packet that is broken or lost, pictures are
left out until the next key frame.
"""

from __future__ import annotations

import importlib.util
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from alocc_ros.errors import ImageError
from alocc_ros.stream.access_units import AccessUnits, sniffed
from alocc_ros.stream.decoding import MAX_PIXELS
from alocc_ros.stream.encodings import video_of
from alocc_ros.stream.skips import BAD_PACKET, NO_KEY_FRAME, NO_PICTURE
from alocc_ros.types import CameraImage

# Message types that hold packets; sensor_msgs/CompressedImage is another.
FFMPEG_PACKET = "ffmpeg_image_transport_msgs/msg/FFMPEGPacket"
COMPRESSED_VIDEO = "foxglove_msgs/msg/CompressedVideo"
VIDEO_TYPES = (FFMPEG_PACKET, COMPRESSED_VIDEO)

# FFmpeg's decoders by what messages call the codec. Of others nothing here could tell that a packet
# was lost.
_DECODERS = {"h264": "h264", "h265": "hevc", "hevc": "hevc"}
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG")  # JPEG, PNG: whatever ``format`` says
_REORDERED = 16  # pictures that H.264 and H.265 hold back at most
_MOST_SETS = 1 << 16  # bytes of parameters that come in a packet of their own
# ns between packets. In order of decoding they may go back a little. Frames are counted modulo 16
# at least: a pause of less than that is noticed by the count.
_BACK, _PAUSE = 1_000_000_000, 250_000_000
_PAUSE_FACTOR = 4  # of the usual step: a slow camera does not pause all the time

Skip = Callable[[str, str, str], None]  # camera, reason, detail


def is_available() -> bool:
    """Whether PyAV is installed."""
    return importlib.util.find_spec("av") is not None


def how_to_decode(kinds: Iterable[str]) -> str:
    """What to do about topics of these types, if they hold video that is not decoded here."""
    kinds = list(kinds)
    if not any("FFMPEG" in kind or "Video" in kind or "H264" in kind for kind in kinds):
        return ""
    here = "" if is_available() else "pip install 'alocc_ros[video]' decodes it here; or "
    return (
        f" ({', '.join(kinds)}); {here}decode it while the bag is played and record what comes "
        "out: ros2 run image_transport republish --ros-args -p in_transport:=ffmpeg -p "
        "out_transport:=compressed -r in/ffmpeg:=TOPIC -r out/compressed:=TOPIC/compressed"
    )


def codec_of(image: CameraImage) -> str:
    """What the message calls its codec, ``h264`` or ``hevc`` by its first bytes, or "": a picture.

    An image with ``height`` is raw, whatever its bytes are.
    """
    if image.height or not len(image.data):
        return ""
    begin = bytes(memoryview(image.data)[:8])
    if begin.startswith(_PICTURES):
        return ""
    return video_of(image.encoding) or sniffed(begin)


class VideoStreams:
    """Images of any camera in, images that hold no video out; one decoder a camera.

    Without PyAV video passes as it is, and whoever decodes it says what to do. Not thread-safe.
    """

    def __init__(self, skip: Skip) -> None:
        """``skip`` takes note of each packet that no picture comes of."""
        self._skip = skip
        self._decoders: dict[str, _Decoder] = {}

    def add(self, image: CameraImage) -> list[CameraImage]:
        """The pictures that are known by now, of this packet or of earlier ones."""
        codec = codec_of(image)
        if not codec or not is_available():
            return [image]
        decoder = self._decoders.get(image.camera)
        try:
            if decoder is None or decoder.codec != codec:
                before = decoder.end() if decoder else []
                self._decoders[image.camera] = decoder = _Decoder(codec, self._skip)
                return [*before, *decoder.add(image)]
            return decoder.add(image)
        except ImageError as error:
            self._skip(image.camera, BAD_PACKET, str(error).removeprefix(f"{image.camera}: "))
            return []

    def lose(self, camera: str) -> list[CameraImage]:
        """A packet is known to be lost: the camera begins anew with its next key frame."""
        decoder = self._decoders.get(camera)
        return decoder.end() if decoder else []

    def flush(self) -> list[CameraImage]:
        """The pictures that were held back, at the end of the streams."""
        return [image for decoder in self._decoders.values() for image in decoder.end()]


class _Decoder:
    """One stream of one camera."""

    def __init__(self, codec: str, skip: Skip) -> None:
        """Raises ImageError: there is no decoder for it."""
        self.codec, self._skip = codec, skip
        self._context, self._av = _context(codec)
        self._context_sets = b""  # those that it was begun with
        self._units = AccessUnits(_DECODERS[codec])
        self._is_running = False
        self._sets = b""  # the newest parameters
        self._are_sets_new = False  # not handed to the decoder yet
        self._serial = 0
        self._waiting: dict[int, CameraImage] = {}  # packets without a picture, by serial number
        self._last: int | None = None  # stamp
        self._steps: deque[int] = deque(maxlen=3)  # ns between the newest stamps

    def add(self, image: CameraImage) -> list[CameraImage]:
        out = self.end() if self._is_elsewhere(image.stamp) else []
        data = bytes(image.data)
        try:
            unit = self._units.look(data)
        except ValueError as error:
            return out + self._fail(image, str(error))
        if unit.sets:
            self._sets = (unit.sets if unit.has_sets else self._sets + unit.sets)[-_MOST_SETS:]
            self._are_sets_new = True
        if not unit.has_picture:
            return out
        if unit.is_after_gap and self._is_running:
            out += self.end()
        if not self._is_running and not (unit.is_key and self._sets):
            self._skip(image.camera, NO_KEY_FRAME, "decoding begins with the next one")
            return out
        if unit.is_key and not (self._is_running and self._sets == self._context_sets):
            out += self._begin()
        # At the beginning, and where parameters came in a message of their own.
        if not unit.has_sets and (self._are_sets_new or not self._is_running):
            data = self._sets + data
        self._are_sets_new = False
        try:
            out += self._decode(image, data)
        except (self._av.FFmpegError, ValueError) as error:
            out += (
                self._again(image, data, error) if unit.is_key else self._fail(image, _text(error))
            )
        for serial in [s for s in self._waiting if s < self._serial - _REORDERED]:
            self._skip(self._waiting.pop(serial).camera, NO_PICTURE, "")
        self._serial += 1
        return out

    def _begin(self) -> list[CameraImage]:
        """A new decoder: what damage made of the last one must not outlive its group.

        Flushing is not enough: the matrix of colours and the encoder's version, by which FFmpeg
        works around bugs of old encoders, would stay.
        """
        out = self.end()
        self._context, self._av = _context(self.codec)
        self._context_sets = self._sets
        return out

    def _decode(self, image: CameraImage, data: bytes) -> list[CameraImage]:
        """Raises FFmpegError or ValueError."""
        packet = self._av.Packet(data)
        packet.pts = self._serial
        self._is_running = True
        self._waiting[self._serial] = image
        try:
            return self._images(self._context.decode(packet))
        except (self._av.FFmpegError, ValueError):
            self._waiting.pop(self._serial, None)
            raise

    def _again(self, image: CameraImage, data: bytes, error: Exception) -> list[CameraImage]:
        """A key frame that fails, perhaps for what was before it."""
        out = self._begin()
        try:
            return out + self._decode(image, data)
        except (self._av.FFmpegError, ValueError):
            return out + self._fail(image, _text(error))

    def end(self) -> list[CameraImage]:
        """What is held back; the next packet has to be a key frame."""
        out: list[CameraImage] = []
        if self._is_running:
            try:
                out = self._images(self._context.decode(None))
            except (self._av.FFmpegError, ValueError) as error:
                self._lose_waiting(_text(error))
            self._context.flush_buffers()
        self._lose_waiting("")
        self._is_running = False
        return out

    def _images(self, frames: Iterable[Any]) -> list[CameraImage]:
        out = []
        for frame in frames:
            packet = self._waiting.pop(frame.pts, None)
            if packet is None:  # the second picture of a packet
                continue
            if frame.is_corrupt:
                self._skip(packet.camera, BAD_PACKET, "parts of the picture are made up")
                continue
            if frame.width * frame.height > MAX_PIXELS:  # should the decoder let it pass
                self._skip(packet.camera, BAD_PACKET, f"{frame.width}x{frame.height} pixels")
                continue
            pixels = frame.to_ndarray(format="rgb24")
            size = {"height": frame.height, "width": frame.width, "step": 3 * frame.width}
            out.append(replace(packet, data=pixels, encoding="rgb8", **size))
        return out

    def _fail(self, image: CameraImage, detail: str) -> list[CameraImage]:
        """A broken packet: those before it are good, those after it are not until a key frame."""
        out = self.end()
        self._skip(image.camera, BAD_PACKET, detail)
        return out

    def _lose_waiting(self, detail: str) -> None:
        for packet in self._waiting.values():
            self._skip(packet.camera, NO_PICTURE, detail)
        self._waiting.clear()

    def _is_elsewhere(self, stamp: int) -> bool:
        """Whether this packet does not go on from the last one: a seek, a loop, a long pause."""
        if stamp <= 0:  # a broken header says nothing about the stream
            return False
        last, self._last = self._last, stamp
        if last is None:
            return False
        step = stamp - last
        usual = max(self._steps, default=0)
        if step < -_BACK or (usual and step > max(_PAUSE, _PAUSE_FACTOR * usual)):
            self._steps.clear()
            return True
        self._steps.append(abs(step))
        return False


def _context(codec: str) -> tuple[Any, Any]:
    """A decoder, and the module that it is of.

    Raises:
        ImageError: there is none for this codec.
    """
    if codec not in _DECODERS:
        raise ImageError(f"{codec} is not decoded here; of video {', '.join(_DECODERS)} are")
    try:
        import av

        context = av.CodecContext.create(_DECODERS[codec], "r")
    # A broken installation, or one whose FFmpeg was built without this codec.
    except (ImportError, ValueError, OSError) as error:
        raise ImageError(f"PyAV does not decode {codec} here ({_text(error)})") from error
    context.thread_count = 1  # more would hold pictures back
    context.options = {"err_detect": "explode", "ec": "0", "max_pixels": str(MAX_PIXELS)}
    return context, av


def _text(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())
