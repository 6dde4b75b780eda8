# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Voxel grids read back out of recordings of ``alocc run`` and of the node, and out of NPZ files.

A recording may hold several, each under a name of its own: ``/alocc/occupancy`` with
``/alocc/grid_info`` beside it, which describes labels and lattice. A
node's dense ``voxels`` are taken before its ``occupancy``, which may have been thinned.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alocc_ros import messages
from alocc_ros.arrays import POINT_DTYPE, point_fields
from alocc_ros.bags.reader import STRING_TYPE, TF_TYPE, Bag
from alocc_ros.errors import BagError, PoseError, StampError
from alocc_ros.files import array_in, check_unpacked
from alocc_ros.geometry import check_rigid
from alocc_ros.grid import VoxelGrid
from alocc_ros.labels import CLASS_LISTS, ClassList
from alocc_ros.messages import GridInfo
from alocc_ros.stream import conversions
from alocc_ros.stream.transforms import TransformTree
from alocc_ros.types import Occupancy
from alocc_ros.unpacking import STATUS_RANDOM_WEIGHTS, STATUS_SHORT_MEMORY

WORLDS = ("map", "world", "odom")  # what the frame is called in which the vehicle moves
_MOST_CELLS = 1 << 27  # of a grid; a damaged file may claim anything


@dataclass(frozen=True)
class RecordedGrids:
    """The voxel grids under one name of a recording; can be iterated again.

    Attributes:
        name: such as ``/alocc``.
        topic: where the grids are.
        info: what the labels mean.
        base_frame: TF name of the vehicle.
    """

    name: str
    topic: str
    info: GridInfo
    base_frame: str
    _bag: Bag
    _tree: TransformTree

    def __iter__(self) -> Iterator[tuple[int, Callable[[], Occupancy]]]:
        """Stamp (ns) of each grid, and how to get it.

        Raises:
            BagError: the bag is damaged, or a message is not of its type.
        """
        for record in self._bag.messages([self.topic]):
            message = self._bag.decode(record)
            try:
                stamp = conversions.stamp_ns(message.header.stamp)
            except StampError as error:
                raise BagError(f"bag {self._bag.path}, {self.topic}: {error}") from error
            yield stamp, lambda message=message, stamp=stamp: self._occupancy(message, stamp)

    def base_T_grid(self, frame: str) -> np.ndarray | None:  # [4, 4]
        """Where the grid's ``frame`` is on the vehicle; None: at its base, or not recorded."""
        if frame == self.base_frame:
            return None
        try:
            return self._tree.lookup(self.base_frame, frame, None)
        except PoseError:
            return None

    def _occupancy(self, message: Any, stamp: int) -> Occupancy:
        where = f"bag {self._bag.path}, {self.topic} at {stamp} ns"
        info = self.info
        if hasattr(message, "labels"):
            labels, flow = _dense(message, info, where)
            status = message.status
            remarks = {
                "degraded": status.degraded,
                "reset": status.reset,
                "random_weights": bool(status.flags & STATUS_RANDOM_WEIGHTS),
                "short_memory": bool(status.flags & STATUS_SHORT_MEMORY),
            }
        else:
            labels, flow = _from_points(message, info, where)
            remarks = {"random_weights": info.random_weights}
        frame = conversions.frame_name(message.header.frame_id)
        return Occupancy(
            labels=labels,
            flow=flow,
            grid=info.grid,
            classes=info.classes,
            stamp=stamp,
            frame_id=frame,
            map_T_base=self._pose(stamp),
            **remarks,
        )

    def _pose(self, stamp: int) -> np.ndarray:  # [4, 4]
        for world in WORLDS:
            try:
                return self._tree.lookup(world, self.base_frame, stamp)
            except PoseError:  # no pose was recorded
                continue
        return np.eye(4)


def recorded_grids(bag: Bag, base_frame: str = "base_link") -> list[RecordedGrids]:
    """All that there are, by name; empty if the recording holds no voxel grids.

    Raises:
        BagError: there are some, but what their labels mean was not recorded.
    """
    found = {}
    for topic, kind in sorted(bag.types.items()):
        name, _, last = topic.rpartition("/")
        expected = {"occupancy": messages.POINT_CLOUD, "voxels": messages.SEMANTIC_GRID}.get(last)
        if kind == expected and bag.counts[topic]:
            found[name] = topic  # "voxels" comes after "occupancy"
    if not found:
        return []
    tree = transforms_of(bag)
    return [
        RecordedGrids(name, topic, _grid_info(bag, name, topic), base_frame, bag, tree)
        for name, topic in found.items()
    ]


def transforms_of(bag: Bag) -> TransformTree:
    """/tf and /tf_static of a recording; what cannot be used is left out."""
    tree = TransformTree(history_ns=None)
    for record in bag.messages([t for t in ("/tf", "/tf_static") if bag.types.get(t) == TF_TYPE]):
        for entry in bag.decode(record).transforms:
            try:
                stamp, parent, child, pose = conversions.transform(entry)
                if record.topic == "/tf_static":
                    tree.add_static(parent, child, pose)
                else:
                    tree.add(stamp, parent, child, pose)
            except (
                PoseError,
                StampError,
            ):  # of frames that may not be used; checked on use
                continue
    return tree


def _grid_info(bag: Bag, name: str, topic: str) -> GridInfo:
    beside = f"{name}/grid_info"
    record = next(bag.messages([beside]), None)
    if record is None or bag.types[beside] not in (STRING_TYPE, messages.GRID_INFO):
        raise BagError(
            f"bag {bag.path}: {beside} was not recorded, so nothing says what the labels of "
            f"{topic} mean; record it as well"
        )
    message = bag.decode(record)
    try:
        if bag.types[beside] == messages.GRID_INFO:
            return info_of_message(message)
        return _info_of_json(json.loads(message.data))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BagError(f"bag {bag.path}: {beside} cannot be used ({_reason(error)})") from error


def _info_of_json(entries: Any) -> GridInfo:
    """Of an early recording of ``alocc run``."""
    grid = _grid(entries["lower_m"], entries["shape_xyz"], entries["resolution_m"])
    classes = entries["classes"]
    return GridInfo(
        grid=grid,
        classes=class_list(tuple(str(c["name"]) for c in classes)),
        model=str(entries["model"]),
        weights=str(entries["weights"]),
        random_weights=bool(entries["random_weights"]),
        has_flow=any(c["has_flow"] for c in classes),
    )


def info_of_message(message: Any) -> GridInfo:
    """What a decoded alocc_ros/GridInfo says.

    Raises:
        ValueError: a grid, or classes, that cannot be.
    """
    return GridInfo(
        grid=_grid_of_message(message.geometry),
        classes=class_list(tuple(c.name for c in message.classes)),
        model=message.model,
        weights=f"{messages.SHA256}{message.weights_sha256}" if message.weights_sha256 else "",
        random_weights=bool(message.random_weights),
        has_flow=bool(message.has_flow),
    )


def _grid_of_message(geometry: Any) -> VoxelGrid:
    origin = geometry.origin
    shape = (geometry.size_x, geometry.size_y, geometry.size_z)
    return _grid((origin.x, origin.y, origin.z), shape, geometry.resolution)


def class_list(names: tuple[str, ...]) -> ClassList:
    """The known class list with these names.

    Raises:
        ValueError: there is none.
    """
    for known in CLASS_LISTS.values():
        if known.names == names:
            return known
    raise ValueError(
        f"its {len(names)} classes are those of no list known here ({', '.join(CLASS_LISTS)})"
    )


def _grid(lower: Any, shape: Any, resolution: Any) -> VoxelGrid:
    numbers = np.array([*lower, resolution], dtype=np.float64)
    if len(numbers) != 4 or not np.isfinite(numbers).all() or numbers[3] <= 0:
        raise ValueError(f"a lattice from {lower} in steps of {resolution} m")
    cells = [int(n) for n in shape]
    if len(cells) != 3 or min(cells) < 1 or np.prod(cells, dtype=np.float64) > _MOST_CELLS:
        raise ValueError(f"a grid of {cells} cells")
    x, y, z, step = (float(n) for n in numbers)
    return VoxelGrid((x, y, z), (cells[0], cells[1], cells[2]), step)


def _dense(message: Any, info: GridInfo, where: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Labels and flow of an alocc_ros/SemanticGrid."""
    shape = info.grid.shape
    labels = np.asarray(message.labels, np.uint8)
    try:
        lattice = _grid_of_message(message.geometry)
    except ValueError as error:
        raise BagError(f"{where}: {error}") from error
    if lattice != info.grid or labels.size != np.prod(shape):
        raise BagError(f"{where}: {labels.size} labels do not fill the grid of its grid_info")
    _check_labels(labels, info.classes, where)
    if not message.has_flow:
        return labels.reshape(shape), None
    cells = np.asarray(message.flow_cells)
    if len(message.flow) != 2 * len(cells) or (len(cells) and cells.max() >= labels.size):
        raise BagError(f"{where}: its flow does not fit its cells")
    flow = np.zeros((labels.size, 2), np.float16)
    flow[cells] = np.reshape(message.flow, (-1, 2))
    return labels.reshape(shape), flow.reshape(*shape, 2)


def _from_points(message: Any, info: GridInfo, where: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Labels and flow of a cloud of ``arrays.POINT_DTYPE``."""
    recorded = [(f.name, f.offset, f.datatype, f.count) for f in message.fields]
    data = np.ascontiguousarray(message.data, np.uint8)
    number = int(message.width) * int(message.height)
    if (
        recorded != point_fields(POINT_DTYPE)
        or message.point_step != POINT_DTYPE.itemsize
        or data.size != number * POINT_DTYPE.itemsize
    ):
        raise BagError(f"{where}: these are no points as `alocc run` and the node write them")
    points = data.view(POINT_DTYPE)
    cells, inside = info.grid.indices(np.stack([points[a] for a in "xyz"], axis=1))
    if not inside.all():
        raise BagError(f"{where}: {np.sum(~inside)} points lie outside the grid of its grid_info")
    _check_labels(points["label"], info.classes, where)
    labels = np.full(info.grid.shape, info.classes.free, np.uint8)
    labels[tuple(cells.T)] = points["label"]
    if not info.has_flow:
        return labels, None
    flow = np.zeros((*info.grid.shape, 2), np.float16)
    flow[tuple(cells.T)] = np.nan_to_num(np.stack([points["vx"], points["vy"]], axis=1))
    return labels, flow


def _check_labels(labels: np.ndarray, classes: ClassList, where: str) -> None:
    if labels.size and labels.max() > classes.free:
        raise BagError(
            f"{where}: label {labels.max()} is none of the {len(classes.names)} of {classes.name}"
        )


# --- NPZ -------------------------------------------------------------------------------------


def npz_stamp(path: Path) -> int:
    """The stamp (ns) of a file of ``alocc run --npz``, without reading the rest.

    Raises:
        BagError: the file is no such NPZ.
    """
    with _Arrays(path) as arrays:
        return arrays.stamp()


def read_npz(path: Path) -> Occupancy:
    """The inverse of ``outputs.save_npz``.

    Raises:
        BagError: the file is no such NPZ, or its arrays do not fit each other.
    """
    with _Arrays(path) as arrays:
        labels = arrays.take("labels", (None, None, None))
        try:
            grid = _grid(arrays.take("lower", (3,)), labels.shape, arrays.take("resolution", ()))
            classes = class_list(tuple(arrays.take("class_names", (None,)).tolist()))
            pose = check_rigid(arrays.take("map_T_base", (4, 4)), "map_T_base")
        except (ValueError, PoseError) as error:
            raise BagError(f"{path}: {error}") from error
        if labels.dtype != np.uint8:
            raise BagError(f"{path}: labels are {labels.dtype}, not uint8")
        _check_labels(labels, classes, f"{path}")
        has_flow, has_confidence = "flow" in arrays, "confidence" in arrays
        return Occupancy(
            labels=labels,
            flow=arrays.take("flow", (*labels.shape, 2)) if has_flow else None,
            grid=grid,
            classes=classes,
            stamp=arrays.stamp(),
            frame_id=str(arrays.take("frame_id", ())),
            map_T_base=pose,
            confidence=arrays.take("confidence", labels.shape) if has_confidence else None,
            degraded=str(arrays.take("degraded", ())),
            reset=str(arrays.take("reset", ())),
            random_weights=bool(arrays.take("random_weights", ())),
        )


class _Arrays:
    """An open NPZ whose arrays are checked when they are taken; never unpickles anything."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            if not zipfile.is_zipfile(path):
                raise BagError(f"{path}: this is no NPZ file")
            check_unpacked(path)
            self._file = np.load(path, allow_pickle=False)
        except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
            raise BagError(f"{path} cannot be read: {_reason(error)}") from error

    def __enter__(self) -> _Arrays:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __contains__(self, name: str) -> bool:
        return name in self._file

    def stamp(self) -> int:
        """Of the frame, ns."""
        stamp = self.take("stamp", ())
        if stamp.dtype.kind not in "iu" or stamp < 0:
            raise BagError(f"{self._path}: {stamp} is no stamp in ns")
        return int(stamp)

    def take(self, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
        """An array of this shape; None: any length."""
        if name not in self._file:
            raise BagError(f"{self._path} has no {name!r}; `alocc run --npz` writes one")
        try:
            array = array_in(self._file, name)
        except Exception as error:  # numpy and zlib trip over damage in many ways
            raise BagError(f"{self._path}: {name!r} is damaged ({_reason(error)})") from error
        fits = array.ndim == len(shape) and all(
            want is None or want == have for want, have in zip(shape, array.shape, strict=True)
        )
        if not fits:
            raise BagError(f"{self._path}: {name!r} has the shape {array.shape}, not {shape}")
        return array


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if isinstance(error, KeyError) or not text else text
