# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The errors of this package.

Every one of them is the user's business: a file, a topic, a parameter, a message. The
message says what was wrong, where, and what to do; the command line prints it on one line
and exits with 2. Anything else that is raised is a defect of ours and keeps its traceback.
"""


class AloccError(Exception):
    """Root of the tree."""


class ModelError(AloccError):
    """Unknown variant, bad record, or weights that do not belong to the network."""


class CheckpointError(ModelError):
    """A checkpoint that cannot be read safely, or does not fit the network."""


class BagError(AloccError):
    """A bag that cannot be opened, is truncated, or lacks a topic."""


class PresetError(AloccError):
    """A preset or custom YAML with unknown, missing or contradictory entries."""


class ParameterError(AloccError):
    """A setting outside its bounds, or a name that the configuration does not know."""


class ImageError(AloccError):
    """Bytes or arrays that are not the image they claim to be."""


class CalibrationError(AloccError):
    """Missing or impossible intrinsics, extrinsics or image sizes."""


class MessageError(AloccError):
    """A message of ours that contradicts itself: arrays that do not fit its geometry."""


class PoseError(AloccError):
    """No usable ego pose at a stamp, or a pose that is not a rigid transform."""


class PoseGapError(PoseError):
    """The poses around a stamp are too far apart to interpolate between them: ``gap`` ns."""

    def __init__(self, message: str, gap: int = 0) -> None:
        super().__init__(message)
        self.gap = gap


class StampError(AloccError):
    """A zero, negative or otherwise unusable time stamp."""


class TemporalMemoryError(AloccError):
    """A temporal memory that does not fit the network or the stream."""


class DeviceError(AloccError):
    """A device that is not there, or an option that it does not support."""


class DataError(AloccError):
    """A data set on the disk that is incomplete, damaged, or contradicts itself."""


class MetricError(AloccError):
    """Arrays that cannot be scored: wrong shapes, labels out of range, flow that is not finite."""


class OutputError(AloccError):
    """An output file that cannot be written, or that belongs to another run."""


class TrainingError(AloccError):
    """Training that cannot start or go on: nothing to train on, a loss that is not a number."""
