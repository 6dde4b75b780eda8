# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Writes MCAP recordings that RViz (``ros2 bag play``), Foxglove and Python tools open.

One frame is one compressed chunk, and a chunk is either completely in the file or not at all.
So a recording that was cut off, by Ctrl-C or by a power failure, holds whole frames, and
``Recorder.resume`` appends behind the last of them; the result equals, byte for byte, what an
undisturbed run writes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from mcap.records import Channel, Chunk, Message, Schema
from mcap.stream_reader import StreamReader, breakup_chunk
from mcap.writer import CompressionType, Writer

import alocc_ros
from alocc_ros import messages
from alocc_ros.bags import cdr
from alocc_ros.errors import OutputError
from alocc_ros.files import refuse_link
from alocc_ros.outputs import is_latched

# The QoS from which ``ros2 bag play`` knows to keep a message for later subscribers: reliable,
# transient local, the last one is kept. Numbers of rmw, which every release reads.
_FOREVER = "{sec: 9223372036, nsec: 854775807}"
_LATCHED = f"""\
- history: 1
  depth: 1
  reliability: 1
  durability: 1
  deadline: {_FOREVER}
  lifespan: {_FOREVER}
  liveliness: 1
  liveliness_lease_duration: {_FOREVER}
  avoid_ros_namespace_conventions: false
"""
_NEVER_SPLIT = 1 << 40  # bytes; chunks end where frames end, not at a size


class Recorder:
    """An MCAP file that is being written.

    Attributes:
        path: the file.
        frames: how many are in it.
    """

    def __init__(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Starts a new file.

        Args:
            path: of the file; one that exists is overwritten.
            metadata: what the recording is, kept as the MCAP metadata ``alocc``.

        Raises:
            OutputError: the file cannot be written.
        """
        self.path = path
        self.frames = 0
        refuse_link(path)
        with self._os_errors_as_ours():
            self._file = path.open("wb")
            self._writer = Writer(
                self._file, chunk_size=_NEVER_SPLIT, compression=CompressionType.ZSTD
            )
            self._writer.start(profile="ros2", library=f"alocc_ros {alocc_ros.__version__}")
            self._writer.add_metadata("alocc", dict(metadata))
        self._schemas: dict[str, int] = {}
        self._channels: dict[str, int] = {}
        self._between_frames = True

    @classmethod
    def resume(cls, path: Path, metadata: Mapping[str, str]) -> Recorder:
        """Opens an unfinished ``path`` to append behind its last whole frame.

        Raises:
            OutputError: the file cannot be read or written.
        """
        # The old file stays untouched until the new one holds all of it.
        recorder = cls(path.with_name(path.name + ".resumed"), metadata)
        try:
            with recorder._os_errors_as_ours():
                for frame in whole_frames(path):
                    for topic, type_name, log_time, data in frame:
                        recorder.write_bytes(topic, type_name, log_time, data)
                    recorder.end_frame()
                os.replace(recorder.path, path)
        except BaseException:
            recorder.discard()
            raise
        recorder.path = path
        return recorder

    def write(self, topic: str, log_time: int, message: messages.Message) -> None:
        """Adds ``message`` to the frame that is being written; ``log_time`` in ns."""
        self.write_bytes(topic, message.type, log_time, cdr.encode(message))

    def write_bytes(
        self,
        topic: str,
        type_name: str,
        log_time: int,  # ns
        data: bytes,
        definition: str = "",
    ) -> None:
        """Adds a message that is already serialised.

        ``definition`` is the text of its type; empty: that of ROS 2 Humble or of this package.
        """
        if topic not in self._channels:
            if type_name not in self._schemas:
                text = definition or cdr.definition(type_name)
                self._schemas[type_name] = self._writer.register_schema(
                    type_name, "ros2msg", text.encode()
                )
            profile = {"offered_qos_profiles": _LATCHED} if is_latched(topic) else {}
            self._channels[topic] = self._writer.register_channel(
                topic, "cdr", self._schemas[type_name], profile
            )
        self._between_frames = False
        with self._os_errors_as_ours():
            self._writer.add_message(self._channels[topic], log_time, data, log_time)

    def end_frame(self) -> None:
        """Ends a frame, which is everything since the last call, and flushes it."""
        with self._os_errors_as_ours():
            self._writer.flush()
        self.frames += 1
        self._between_frames = True

    def finish(self) -> None:
        """Writes the index and closes the file; what is there is a valid recording."""
        with self._os_errors_as_ours():
            self._writer.finish()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    def publish(self, path: Path) -> None:
        """``finish``, then give the file its final name in one step."""
        self.finish()
        with self._os_errors_as_ours():
            os.replace(self.path, path)

    def abandon(self) -> None:
        """Closes the file with the whole frames that are in it, to be resumed."""
        # Called because of another error, perhaps a full disk: this is no place for a second.
        with contextlib.suppress(OSError, OutputError):
            if self._between_frames:
                self.finish()
            else:  # an index would bring in half a frame
                self._file.close()

    def discard(self) -> None:
        """Closes and deletes the file."""
        with contextlib.suppress(OSError):  # what is still buffered finds no room
            self._file.close()
        self.path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _os_errors_as_ours(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}") from error


def whole_frames(path: Path) -> Iterator[list[tuple[str, str, int, bytes]]]:
    """The frames of a recording of ours: lists of (topic, type, log time in ns, bytes).

    Ends silently where the file does, or at the first damage.
    """
    schemas: dict[int, Schema] = {}
    channels: dict[int, Channel] = {}
    with path.open("rb") as stream:
        records = StreamReader(stream, emit_chunks=True).records
        while True:
            try:
                record = next(records, None)
                inner = breakup_chunk(record, validate_crc=True) if _is_chunk(record) else []
            except OSError:
                raise
            except Exception:  # the file ends here, in one of the many ways files end
                return
            if record is None:
                return
            if not inner:
                continue
            frame = []
            for one in inner:
                if isinstance(one, Schema):
                    schemas[one.id] = one
                elif isinstance(one, Channel):
                    channels[one.id] = one
                elif isinstance(one, Message):
                    channel = channels[one.channel_id]
                    type_name = schemas[channel.schema_id].name
                    frame.append((channel.topic, type_name, one.log_time, one.data))
            yield frame


def _is_chunk(record: object) -> bool:
    return isinstance(record, Chunk)
