# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Scenes written as a nuScenes folder that every reader of the real one takes.

Beside the tables, images and sweeps there are the labels of Occ3D, OpenOcc (with ray masks),
SurroundOcc and nuScenes-lidarseg. A scene's files come first, then its rows under
``.synthetic/``; the tables are put together when all scenes are there. So a run that was
stopped goes on where it was, and tables never name files that are not there.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from alocc_ros.datasets.lidarseg import write_labels
from alocc_ros.datasets.nuscenes import DEFAULT_VERSION, LIDAR
from alocc_ros.datasets.splits import SPLITS_FILE
from alocc_ros.errors import OutputError
from alocc_ros.files import whole_file
from alocc_ros.grid import SURROUNDOCC_GRID
from alocc_ros.labels import OCC3D, OPENOCC
from alocc_ros.synthetic import rig
from alocc_ros.synthetic.frames import ray_origins, render
from alocc_ros.synthetic.truth import (
    Points,
    camera_mask,
    fill,
    lidar_mask,
    openocc_labels,
    ray_mask,
    scan,
)
from alocc_ros.synthetic.world import Scene, Thing
from alocc_ros.types import CAMERAS

Row = dict[str, Any]

_START = 1_767_225_600_000_000  # us, the first scene's first camera
_BETWEEN = 120_000_000  # us from one scene to the next, more than any of them lasts
_LIDAR_PERIOD = 50_000  # us, 20 Hz
_JPEG_QUALITY = 92
_SEEN = 80.0  # m; boxes farther away are not annotated
_WORK = ".synthetic"
_MAP_CELL = 0.1  # m, what the development kit expects


# nuScenes' names in the order of their numbers.
CATEGORIES = (
    "noise",
    "animal",
    "human.pedestrian.adult",
    "human.pedestrian.child",
    "human.pedestrian.construction_worker",
    "human.pedestrian.personal_mobility",
    "human.pedestrian.police_officer",
    "human.pedestrian.stroller",
    "human.pedestrian.wheelchair",
    "movable_object.barrier",
    "movable_object.debris",
    "movable_object.pushable_pullable",
    "movable_object.trafficcone",
    "static_object.bicycle_rack",
    "vehicle.bicycle",
    "vehicle.bus.bendy",
    "vehicle.bus.rigid",
    "vehicle.car",
    "vehicle.construction",
    "vehicle.emergency.ambulance",
    "vehicle.emergency.police",
    "vehicle.motorcycle",
    "vehicle.trailer",
    "vehicle.truck",
    "flat.driveable_surface",
    "flat.other",
    "flat.sidewalk",
    "flat.terrain",
    "static.manmade",
    "static.other",
    "static.vegetation",
    "vehicle.ego",
)
_ATTRIBUTES = (
    "vehicle.moving",
    "vehicle.stopped",
    "vehicle.parked",
    "cycle.with_rider",
    "cycle.without_rider",
    "pedestrian.moving",
    "pedestrian.standing",
    "pedestrian.sitting_lying_down",
)
_VISIBILITY = ("0-40", "40-60", "60-80", "80-100")
_CATEGORY_OF = {
    "car": "vehicle.car",
    "truck": "vehicle.truck",
    "bus": "vehicle.bus.rigid",
    "trailer": "vehicle.trailer",
    "construction": "vehicle.construction",
    "motorcycle": "vehicle.motorcycle",
    "bicycle": "vehicle.bicycle",
    "pedestrian": "human.pedestrian.adult",
    "barrier": "movable_object.barrier",
    "cone": "movable_object.trafficcone",
    "bin": "movable_object.pushable_pullable",
}


@dataclass(frozen=True)
class Recipe:
    """What is to be written; the same recipe gives the same files.

    Attributes:
        seed: of the whole data set.
        scenes: how many.
        frames: key frames of each, 0.5 s apart.
        size: height and width of the images, px.
        sweeps: also what lies between key frames (12 Hz images, 20 Hz LiDAR).
        split: names of splits and how many scenes each has, in order.
    """

    seed: int
    scenes: int
    frames: int
    size: tuple[int, int] = (rig.FULL_HEIGHT, rig.FULL_WIDTH)
    sweeps: bool = True
    split: tuple[tuple[str, int], ...] = ()

    @property
    def version(self) -> str:
        """Name of the folder of tables."""
        return DEFAULT_VERSION

    @property
    def turns(self) -> int:
        """How often the six cameras look in a scene."""
        return (self.frames - 1) * (rig.KEY_FRAME_CYCLES if self.sweeps else 1) + 1

    def names(self) -> list[str]:
        """Of the scenes."""
        return [scene_name(n) for n in range(self.scenes)]

    def splits(self) -> dict[str, list[str]]:
        """Scene names by split; all are ``val`` if nothing else was said."""
        names, parts, at = self.names(), {}, 0
        for split, count in self.split or (("val", self.scenes),):
            parts[split] = names[at : at + count]
            at += count
        return parts


def scene_name(number: int) -> str:
    """Of the scene with this number, from 0."""
    return f"scene-{number + 1:04d}"


def generate(recipe: Recipe, number: int) -> Scene:
    """The scene with this number."""
    seed = recipe.seed * 100_000 + number
    return Scene.generate(seed, duration=(recipe.frames - 1) * 0.5 + 0.1)


def first_stamp(number: int) -> int:  # us
    """When the scene with this number begins."""
    return _START + number * _BETWEEN


def time_in_scene(number: int, stamp: int) -> float:  # s
    """What the scene with this number calls a stamp (ns) of its images."""
    return (stamp - first_stamp(number) * 1000) / 1e9


def prepare(root: Path, recipe: Recipe) -> None:
    """Makes the folder, or checks that what it holds is of the same recipe.

    Raises:
        OutputError: it holds something else.
    """
    path = root / _WORK / "recipe.json"
    ours = json.loads(json.dumps(asdict(recipe)))
    if path.exists():
        try:
            theirs = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise OutputError(f"cannot read {path}: {error}") from error
        # More scenes of the same kind may be added; scenes do not depend on their number.
        free = ("scenes", "split")
        differ = sorted(k for k in ours if k not in free and ours[k] != theirs.get(k))
        if differ:
            raise OutputError(
                f"{root} was begun with another {', '.join(differ)}: "
                f"{', '.join(f'{k} {theirs.get(k)}' for k in differ)}; take another folder"
            )
    elif root.exists() and any(root.iterdir()):
        raise OutputError(f"{root} is not empty and was not written by this command")
    with whole_file(path) as scratch:
        scratch.write_text(json.dumps(ours), encoding="utf-8")


def is_written(root: Path, number: int) -> bool:
    """Whether all files of a scene are there."""
    return _rows_file(root, number).exists()


def write_scene(
    root: Path,
    recipe: Recipe,
    number: int,
    *,
    device: torch.device | str = "cpu",
    on_turn: Callable[[], None] = lambda: None,
) -> None:
    """All files of a scene but the tables; ``on_turn`` is called after each six images."""
    _SceneWriter(root, recipe, number, device).write(on_turn)


def write_tables(root: Path, recipe: Recipe) -> None:
    """The tables, out of the rows of all scenes."""
    folder = root / recipe.version
    tables: dict[str, list[Row]] = {
        "category": [
            {"token": _token("category", n), "name": n, "description": "", "index": i}
            for i, n in enumerate(CATEGORIES)
        ],
        "attribute": [
            {"token": _token("attribute", n), "name": n, "description": ""} for n in _ATTRIBUTES
        ],
        "visibility": [
            {"token": str(i + 1), "level": f"v{n}", "description": f"visible part: {n} %"}
            for i, n in enumerate(_VISIBILITY)
        ],
        "sensor": [],
        "calibrated_sensor": [],
    }
    for channel, base_T_sensor, intrinsics in _sensors(recipe):
        tables["sensor"].append(
            {
                "token": _token("sensor", channel),
                "channel": channel,
                "modality": "lidar" if channel == LIDAR else "camera",
            }
        )
        tables["calibrated_sensor"].append(
            {
                "token": _token("calibrated_sensor", channel),
                "sensor_token": _token("sensor", channel),
                **_pose_row(base_T_sensor),
                "camera_intrinsic": intrinsics,
            }
        )
    for number in range(recipe.scenes):
        rows = json.loads(_rows_file(root, number).read_text(encoding="utf-8"))
        for table, entries in rows.items():
            tables.setdefault(table, []).extend(entries)
    for table, entries in tables.items():
        with whole_file(folder / f"{table}.json") as scratch:
            scratch.write_text(json.dumps(entries, separators=(",", ":")), encoding="utf-8")
    with whole_file(folder / SPLITS_FILE) as scratch:
        scratch.write_text(json.dumps(recipe.splits(), indent=1), encoding="utf-8")


def _rows_file(root: Path, number: int) -> Path:
    return root / _WORK / f"{scene_name(number)}.json"


def _token(*parts: object) -> str:
    return hashlib.md5("/".join(map(str, parts)).encode(), usedforsecurity=False).hexdigest()


def _sensors(recipe: Recipe) -> list[tuple[str, np.ndarray, list]]:
    """Channel, mounting and intrinsics of each sensor."""
    cameras = rig.cameras(*recipe.size)
    found = [(c.upper(), k.base_T_camera, k.intrinsics.tolist()) for c, k in cameras.items()]
    return [*found, (LIDAR, rig.lidar().base_T_lidar, [])]


def _pose_row(a_T_b: np.ndarray) -> Row:
    x, y, z, w = Rotation.from_matrix(a_T_b[:3, :3]).as_quat(canonical=True)
    return {"rotation": [float(v) for v in (w, x, y, z)], "translation": a_T_b[:3, 3].tolist()}


@dataclass(frozen=True)
class _Reading:
    """A row of sample_data to be: what was recorded when."""

    channel: str
    stamp: int  # us
    time: float  # s in the scene
    key_frame: int | None
    next_key_frame: int
    file: str


class _SceneWriter:
    """One scene on its way to the disk."""

    def __init__(self, root: Path, recipe: Recipe, number: int, device: torch.device | str) -> None:
        self.root, self.recipe, self.number, self.device = root, recipe, number, device
        self.name = scene_name(number)
        self.scene = generate(recipe, number)
        self.start = first_stamp(number)  # us
        self.log = f"alocc-synthetic-{recipe.seed}-{self.name}"
        self.world_T_map, self.map_size = self._world()
        self.annotations: dict[int, list[tuple[int, Row]]] = {}

    def write(self, on_turn: Callable[[], None]) -> None:
        readings: list[_Reading] = []
        with ThreadPoolExecutor(4, thread_name_prefix="synth-write") as pool:
            pending: list[Future[None]] = []
            step = 1 if self.recipe.sweeps else rig.KEY_FRAME_CYCLES
            for turn in range(self.recipe.turns):
                cycle = turn * step
                key, rest = divmod(cycle, rig.KEY_FRAME_CYCLES)
                frame_of = key if rest == 0 else None
                jobs, new = self._cycle(cycle, frame_of, key + (rest > 0))
                readings += new
                if frame_of is not None:
                    jobs += self._key_frame(key)
                for future in pending:
                    future.result()
                pending = [pool.submit(job) for job in jobs]
                on_turn()
            readings += self._lidar(pool, pending)
            for future in pending:
                future.result()
        self._write_map()
        rows = self._rows(readings)
        with whole_file(_rows_file(self.root, self.number)) as scratch:
            scratch.write_text(json.dumps(rows), encoding="utf-8")

    # -- stamps and names ------------------------------------------------------------------

    def _time(self, stamp: int) -> float:  # us -> s in the scene
        return (stamp - self.start) / 1e6

    def _cycle_start(self, cycle: int) -> int:  # us
        return self.start + round(cycle * rig.CAMERA_PERIOD / 1000)

    def _lidar_stamp(self, key: int) -> int:  # us
        return self._cycle_start(key * rig.KEY_FRAME_CYCLES) + rig.LIDAR_PHASE // 1000

    def _file(self, channel: str, stamp: int, key: bool, ending: str) -> str:
        folder = "samples" if key else "sweeps"
        return f"{folder}/{channel}/{self.log}__{channel}__{stamp}.{ending}"

    def _sample_token(self, key: int) -> str:
        return _token(self.recipe.seed, self.name, "sample", key)

    def _data_token(self, reading: _Reading) -> str:
        return _token(self.recipe.seed, self.name, reading.channel, reading.stamp)

    # -- images ----------------------------------------------------------------------------

    def _cycle(
        self, cycle: int, key: int | None, next_key: int
    ) -> tuple[list[Callable[[], None]], list[_Reading]]:
        """The six images of one turn: jobs that write them, and what they are."""
        start = self._cycle_start(cycle)
        frame = render(self.scene, self._time(start), self.recipe.size, device=self.device)
        jobs, readings = [], []
        for camera in CAMERAS:
            stamp = start + rig.PHASES[camera] // 1000
            file = self._file(camera.upper(), stamp, key is not None, "jpg")
            readings.append(_Reading(camera.upper(), stamp, self._time(stamp), key, next_key, file))
            pixels = frame.views[camera].image.cpu().numpy()
            jobs.append(partial(_write_jpeg, self.root / file, pixels))
        return jobs, readings

    # -- truth -----------------------------------------------------------------------------

    def _key_frame(self, key: int) -> list[Callable[[], None]]:
        """Labels of a key frame, ready to be written."""
        scene, device = self.scene, self.device
        stamp = self._lidar_stamp(key)
        time = self._time(stamp)
        cycle = self._time(self._cycle_start(key * rig.KEY_FRAME_CYCLES))
        pose, solids = scene.ego_pose(time), scene.solids(time, device)
        voxels = fill(scene, time, pose, solids=solids)
        open_labels = openocc_labels(voxels.labels)
        origins = ray_origins(scene, time)
        arrays = {
            "gts": {
                "semantics": voxels.labels,
                "mask_lidar": lidar_mask(voxels.labels, device=device).astype(np.uint8),
                "mask_camera": camera_mask(scene, voxels.labels, cycle, time, device=device).astype(
                    np.uint8
                ),
            },
            "openocc_v2": {"semantics": open_labels, "flow": voxels.flow},
            "openocc_v2_ray_mask": {
                "ray_mask2": ray_mask(open_labels, origins, free=OPENOCC.free, device=device)
            },
        }
        token = self._sample_token(key)
        jobs: list[Callable[[], None]] = [
            partial(_write_npz, self.root / folder / self.name / token / "labels.npz", content)
            for folder, content in arrays.items()
        ]
        map_T_lidar = pose @ rig.lidar().base_T_lidar
        around = fill(scene, time, map_T_lidar, SURROUNDOCC_GRID, solids=solids).labels
        index = np.argwhere((around != OCC3D.free) & (around != 0))
        rows = np.column_stack([index, around[tuple(index.T)]]).astype(np.int64)
        file = self._file(LIDAR, stamp, True, "pcd.bin")
        name = Path(file).name
        path = self.root / "gts_surroundocc" / "samples" / f"{name}.npy"
        jobs.append(partial(_write_npy, path, rows))

        turn = scan(scene, time, solids=solids)
        jobs.append(partial(_write_bytes, self.root / file, turn.points.tobytes()))
        reading = _Reading(LIDAR, stamp, time, key, key, file)
        segmentation = self.root / self._lidarseg_file(reading)
        jobs.append(partial(_write_bytes, segmentation, turn.lidarseg.tobytes()))
        path = self.root / "lidar_seg" / f"{name.partition('.')[0]}.npz"
        jobs.append(partial(write_labels, path, turn.lidarseg))
        self._annotate(key, time, turn)
        return jobs

    def _lidarseg_file(self, reading: _Reading) -> str:
        return f"lidarseg/{self.recipe.version}/{self._data_token(reading)}_lidarseg.bin"

    def _lidar(self, pool: ThreadPoolExecutor, pending: list[Future[None]]) -> list[_Reading]:
        """The turns of the LiDAR: key frames are written, those between are made here."""
        stamps = [self._lidar_stamp(k) for k in range(self.recipe.frames)]
        readings = []
        for key, stamp in enumerate(stamps):
            file = self._file(LIDAR, stamp, True, "pcd.bin")
            readings.append(_Reading(LIDAR, stamp, self._time(stamp), key, key, file))
            if not self.recipe.sweeps or key + 1 == len(stamps):
                continue
            for between in range(stamp + _LIDAR_PERIOD, stamps[key + 1] - 10_000, _LIDAR_PERIOD):
                file = self._file(LIDAR, between, False, "pcd.bin")
                time = self._time(between)
                readings.append(_Reading(LIDAR, between, time, None, key + 1, file))
                points = scan(self.scene, time, device=self.device).points
                job = partial(_write_bytes, self.root / file, points.tobytes())
                pending.append(pool.submit(job))
        return readings

    def _annotate(self, key: int, time: float, turn: Points) -> None:
        """Boxes of things that the LiDAR hits."""
        scene = self.scene
        counts = np.bincount(turn.things[turn.things >= 0], minlength=len(scene.things))
        poses, velocities = scene.thing_poses(time), scene.thing_velocities(time)
        ego = scene.ego_pose(time)[:2, 3]
        rows = []
        for index, thing in enumerate(scene.things):
            x, y, heading = poses[index]
            distance = float(np.hypot(x - ego[0], y - ego[1]))
            if not counts[index] or distance > _SEEN:
                continue
            length, width, height = thing.size
            map_T_box = np.eye(4)
            map_T_box[:3, :3] = Rotation.from_euler("z", heading).as_matrix()
            map_T_box[:3, 3] = x, y, height / 2
            speed = float(np.linalg.norm(velocities[index]))
            row = {
                "token": self._annotation_token(index, key),
                "sample_token": self._sample_token(key),
                "instance_token": self._instance_token(index),
                "visibility_token": _visibility(thing, distance, int(counts[index])),
                "attribute_tokens": [_token("attribute", a) for a in _attributes(thing, speed)],
                **_pose_row(self.world_T_map @ map_T_box),
                "size": [width, length, height],
                "num_lidar_pts": int(counts[index]),
                "num_radar_pts": 0,
            }
            rows.append((index, row))
        self.annotations[key] = rows

    def _annotation_token(self, thing: int, key: int) -> str:
        return _token(self.recipe.seed, self.name, "annotation", thing, key)

    def _instance_token(self, thing: int) -> str:
        return _token(self.recipe.seed, self.name, "instance", thing)

    # -- tables ----------------------------------------------------------------------------

    def _rows(self, readings: Sequence[_Reading]) -> dict[str, list[Row]]:
        recipe, frames = self.recipe, self.recipe.frames
        scene_token = _token(recipe.seed, self.name, "scene")
        log_token = _token(recipe.seed, self.name, "log")
        tokens = [self._sample_token(k) for k in range(frames)]
        chained = _chain(tokens)
        samples = [
            {
                "token": token,
                "timestamp": self._lidar_stamp(key),
                "scene_token": scene_token,
                "prev": chained[key][0],
                "next": chained[key][1],
            }
            for key, token in enumerate(tokens)
        ]
        data, poses = self._data_rows(readings)
        annotations, instances = self._annotation_rows()
        clouds = [r for r in readings if r.channel == LIDAR and r.key_frame is not None]
        return {
            "scene": [
                {
                    "token": scene_token,
                    "log_token": log_token,
                    "nbr_samples": frames,
                    "first_sample_token": tokens[0],
                    "last_sample_token": tokens[-1],
                    "name": self.name,
                    "description": describe(self.scene),
                }
            ],
            "log": [
                {
                    "token": log_token,
                    "logfile": self.log,
                    "vehicle": "synthetic",
                    "date_captured": "2026-01-01",
                    "location": self.name,
                }
            ],
            "map": [
                {
                    "token": _token(recipe.seed, self.name, "map"),
                    "log_tokens": [log_token],
                    "category": "semantic_prior",
                    "filename": self._map_file(),
                }
            ],
            "sample": samples,
            "sample_data": data,
            "ego_pose": poses,
            "sample_annotation": annotations,
            "instance": instances,
            "lidarseg": [
                {
                    "token": self._data_token(r),
                    "sample_data_token": self._data_token(r),
                    "filename": self._lidarseg_file(r),
                }
                for r in clouds
            ],
        }

    def _data_rows(self, readings: Sequence[_Reading]) -> tuple[list[Row], list[Row]]:
        height, width = self.recipe.size
        data, poses = [], []
        for channel in [c.upper() for c in CAMERAS] + [LIDAR]:
            mine = sorted((r for r in readings if r.channel == channel), key=lambda r: r.stamp)
            chained = _chain([self._data_token(r) for r in mine])
            camera = channel != LIDAR
            for reading, (before, after) in zip(mine, chained, strict=True):
                token = self._data_token(reading)
                pose = self.world_T_map @ self.scene.ego_pose(reading.time)
                poses.append({"token": token, "timestamp": reading.stamp, **_pose_row(pose)})
                data.append(
                    {
                        "token": token,
                        "sample_token": self._sample_token(reading.next_key_frame),
                        "ego_pose_token": token,
                        "calibrated_sensor_token": _token("calibrated_sensor", channel),
                        "timestamp": reading.stamp,
                        "fileformat": "jpg" if camera else "pcd",
                        "is_key_frame": reading.key_frame is not None,
                        "height": height if camera else 0,
                        "width": width if camera else 0,
                        "filename": reading.file,
                        "prev": before,
                        "next": after,
                    }
                )
        return data, poses

    def _annotation_rows(self) -> tuple[list[Row], list[Row]]:
        by_thing: dict[int, list[Row]] = {}
        for key in sorted(self.annotations):
            for index, row in self.annotations[key]:
                by_thing.setdefault(index, []).append(row)
        instances = []
        for index, rows in by_thing.items():
            for row, (before, after) in zip(rows, _chain([r["token"] for r in rows]), strict=True):
                row["prev"], row["next"] = before, after
            instances.append(
                {
                    "token": self._instance_token(index),
                    "category_token": _token("category", category_of(self.scene.things[index])),
                    "nbr_annotations": len(rows),
                    "first_annotation_token": rows[0]["token"],
                    "last_annotation_token": rows[-1]["token"],
                }
            )
        return [row for rows in by_thing.values() for row in rows], instances

    # -- the map ---------------------------------------------------------------------------

    def _world(self) -> tuple[np.ndarray, tuple[int, int]]:
        """Where the scene lies in its own map image, and the image's size (height, width) px."""
        turn = Rotation.from_euler(
            "z", float(np.random.default_rng(self.scene.seed).uniform(-3, 3))
        )
        path = np.pad(self.scene.ego[:, :2], ((0, 0), (0, 1))) @ turn.as_matrix().T
        low, high = path[:, :2].min(0) - 100.0, path[:, :2].max(0) + 100.0
        world_T_map = np.eye(4)
        world_T_map[:3, :3] = turn.as_matrix()
        world_T_map[:2, 3] = -low
        width, height = np.ceil((high - low) / _MAP_CELL).astype(int)
        return world_T_map, (int(height), int(width))

    def _map_file(self) -> str:
        return f"maps/{self.log}.png"

    def _write_map(self) -> None:
        """Driveable surface and sidewalks, white; what the development kit draws tracks on."""
        step = 4  # the plan needs no centimetres
        height, width = (-(-n // step) for n in self.map_size)
        v, u = np.mgrid[:height, :width].astype(np.float32)
        world = np.stack(
            [
                (u + 0.5) * step * _MAP_CELL,
                self.map_size[0] * _MAP_CELL - (v + 0.5) * step * _MAP_CELL,
            ],
            -1,
        )
        place = (world.reshape(-1, 2) - self.world_T_map[:2, 3]) @ self.world_T_map[:2, :2]
        x, y = torch.tensor(place.T, dtype=torch.float32)
        labels = self.scene.streets.labels(x, y).numpy().reshape(height, width)
        flat = np.isin(labels, [OCC3D.names.index(n) for n in ("driveable_surface", "sidewalk")])
        large = np.repeat(np.repeat(flat, step, 0), step, 1)[: self.map_size[0], : self.map_size[1]]
        buffer = io.BytesIO()
        Image.fromarray((large * 255).astype(np.uint8)).save(buffer, "PNG")
        _write_bytes(self.root / self._map_file(), buffer.getvalue())


def category_of(thing: Thing) -> str:
    """nuScenes' name of what a thing is."""
    if thing.detail == "worker":
        return "human.pedestrian.construction_worker"
    return _CATEGORY_OF[thing.kind]


def _attributes(thing: Thing, speed: float) -> list[str]:
    category = category_of(thing)
    if category in ("vehicle.bicycle", "vehicle.motorcycle"):
        return ["cycle.with_rider" if thing.detail == "rider" else "cycle.without_rider"]
    if category.startswith("human."):
        return ["pedestrian.moving" if speed > 0.2 else "pedestrian.standing"]
    if category.startswith("vehicle."):
        if speed > 0.2:
            return ["vehicle.moving"]
        return ["vehicle.parked" if len(thing.poses) == 1 else "vehicle.stopped"]
    return []


def _visibility(thing: Thing, distance: float, points: int) -> str:
    """How much of a box is seen, told by the share of points that a free view would give."""
    length, width, height = thing.size
    area = 0.5 * (length + width) * height * 0.6
    beam = np.radians(1.333) * np.radians(360 / 1084)
    share = points * beam * max(distance, 3.0) ** 2 / area
    return str(1 + int(np.searchsorted([0.4, 0.6, 0.8], share)))


def describe(scene: Scene) -> str:
    """A few words about a scene."""
    streets, weather = scene.streets, scene.weather
    kind = "straight" if streets.side is None else "crossing"
    if streets.side is not None and (streets.side_from == 0 or streets.side_to == 0):
        kind = "tee"
    if streets.side is None and abs(streets.curvature) > 1e-3:
        kind = "curve"
    light = "rain" if weather.wet > 0.5 else "sun" if weather.shadow > 0.6 else "clouds"
    moving = sum(t.moves for t in scene.things)
    return f"Synthetic {kind}, {light}, {len(scene.things)} things, {moving} of them moving"


def _chain(tokens: Sequence[str]) -> list[tuple[str, str]]:
    """The previous and the next one of each, empty at the ends."""
    return list(zip(["", *tokens[:-1]], [*tokens[1:], ""], strict=True))


def _write_jpeg(path: Path, pixels: np.ndarray) -> None:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    _write_bytes(path, buffer.getvalue())


def _write_bytes(path: Path, content: bytes) -> None:
    with whole_file(path) as scratch:
        scratch.write_bytes(content)


def _write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with whole_file(path) as scratch, scratch.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def _write_npy(path: Path, array: np.ndarray) -> None:
    with whole_file(path) as scratch, scratch.open("wb") as stream:
        np.save(stream, array)
