# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``~/voxels`` as numpy arrays, whatever library decoded the message, and the flags of a result.

For users: ``from alocc_ros.messages import unpack``. docs/integrations/voxels.md explains it, with
the same in C++.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from alocc_ros.errors import MessageError
from alocc_ros.grid import VoxelGrid
from alocc_ros.types import Occupancy

# Constants of alocc_ros/FrameStatus.
STATUS_DEGRADED, STATUS_RESET, STATUS_RANDOM_WEIGHTS, STATUS_SHORT_MEMORY = 1, 2, 4, 8


@dataclass(frozen=True)
class Voxels:
    """One alocc_ros/SemanticGrid. Arrays share the message's memory where they can.

    Attributes:
        stamp: ns, when the anchor camera's image was taken.
        frame_id: TF frame that ``grid`` lies in.
        grid: where the cells are; ``grid.centres(index)`` gives m.
        labels: [X, Y, Z] uint8 (x forward, y left, z up), index into ``GridInfo.classes``.
        flow_cells: [n] uint32, ascending, cells with flow in C order:
            ``np.unravel_index(flow_cells, grid.shape)``.
        flow: [n, 2] float32 m/s (vx, vy) of those, over ground, along the axes of ``frame_id``;
            None: the model estimates none.
        confidence: [X, Y, Z] float32 in [0, 1], or None.
        flags: the sum of those that hold; 0: as good as it gets.
        missing_cameras: names, as in the preset.
    """

    stamp: int
    frame_id: str
    grid: VoxelGrid
    labels: np.ndarray
    flow_cells: np.ndarray
    flow: np.ndarray | None
    confidence: np.ndarray | None
    flags: int
    missing_cameras: tuple[str, ...]

    @property
    def degraded(self) -> bool:
        """Cameras were missing."""
        return bool(self.flags & STATUS_DEGRADED)

    @property
    def reset(self) -> bool:
        """Nothing was remembered: first frame, or the past did not fit any more."""
        return bool(self.flags & STATUS_RESET)

    @property
    def random_weights(self) -> bool:
        """The network is not trained: the output means nothing."""
        return bool(self.flags & STATUS_RANDOM_WEIGHTS)

    @property
    def short_memory(self) -> bool:
        """Fewer key frames were remembered than the network can use."""
        return bool(self.flags & STATUS_SHORT_MEMORY)

    def dense_flow(self) -> np.ndarray:  # [X, Y, Z, 2] float32 m/s
        """Flow of every cell; NaN where there is no estimate, which is not standing still."""
        out = np.full((self.labels.size, 2), np.nan, np.float32)
        if self.flow is not None:
            out[self.flow_cells] = self.flow
        return out.reshape(*self.labels.shape, 2)


def unpack(message: Any) -> Voxels:
    """The arrays of a message of ``~/voxels``.

    Args:
        message: an alocc_ros/SemanticGrid: of rclpy, as ``alocc_ros.bags`` or rosbags decode it, or
            a ``messages.Message``.

    Raises:
        MessageError: its arrays do not fit its geometry.
    """
    geometry, header, status = (_field(message, n) for n in ("geometry", "header", "status"))
    shape = tuple(int(_field(geometry, f"size_{axis}")) for axis in "xyz")
    lower = tuple(float(_field(_field(geometry, "origin"), axis)) for axis in "xyz")
    count = math.prod(shape)
    labels = _array(message, "labels", np.uint8)
    confidence = _array(message, "confidence", np.uint8)
    cells = _array(message, "flow_cells", np.uint32)
    flow = _array(message, "flow", np.float32)
    if len(labels) != count:
        raise MessageError(f"{len(labels)} labels for {' x '.join(map(str, shape))} cells")
    if len(confidence) not in (0, count):
        raise MessageError(f"{len(confidence)} confidences for {count} cells")
    if len(flow) != 2 * len(cells):
        raise MessageError(f"{len(flow)} numbers of flow for {len(cells)} cells, two for each")
    if len(cells) and int(cells.max()) >= count:
        raise MessageError(f"flow of cell {int(cells.max())}, of {count} cells")
    stamp = _field(header, "stamp")
    return Voxels(
        stamp=int(_field(stamp, "sec")) * 1_000_000_000 + int(_field(stamp, "nanosec")),
        frame_id=str(_field(header, "frame_id")),
        grid=VoxelGrid(lower, shape, float(_field(geometry, "resolution"))),
        labels=labels.reshape(shape),
        flow_cells=cells,
        flow=flow.reshape(-1, 2) if _field(message, "has_flow") else None,
        confidence=confidence.reshape(shape) / np.float32(255) if len(confidence) else None,
        flags=int(_field(status, "flags")),
        missing_cameras=tuple(_field(status, "missing_cameras")),
    )


def status_flags(occupancy: Occupancy) -> int:
    """``FrameStatus.flags`` of a result."""
    return (
        STATUS_DEGRADED * bool(occupancy.degraded)
        | STATUS_RESET * bool(occupancy.reset)
        | STATUS_RANDOM_WEIGHTS * bool(occupancy.random_weights)
        | STATUS_SHORT_MEMORY * bool(occupancy.short_memory)
    )


def _field(message: Any, name: str) -> Any:
    fields = getattr(message, "fields", None)
    return fields[name] if isinstance(fields, Mapping) else getattr(message, name)


def _array(message: Any, name: str, dtype: type) -> np.ndarray:  # [n]
    return np.asarray(_field(message, name), dtype=dtype).reshape(-1)
