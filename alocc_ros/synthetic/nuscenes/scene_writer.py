# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The files of a scene: images, LiDAR sweeps, labels of all benchmarks, its map and its rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch

from alocc_ros.datasets.lidarseg import write_labels
from alocc_ros.datasets.nuscenes import LIDAR
from alocc_ros.files import whole_file
from alocc_ros.grid import SURROUNDOCC_GRID
from alocc_ros.labels import OCC3D, OPENOCC
from alocc_ros.synthetic import rig
from alocc_ros.synthetic.frames import ray_origins, render
from alocc_ros.synthetic.lidar import scan
from alocc_ros.synthetic.nuscenes.annotations import Annotation, annotate, annotation_rows
from alocc_ros.synthetic.nuscenes.folder import (
    rows_file,
    write_bytes,
    write_jpeg,
    write_npy,
    write_npz,
)
from alocc_ros.synthetic.nuscenes.map_image import MapFrame
from alocc_ros.synthetic.nuscenes.naming import SampleData, SceneNaming
from alocc_ros.synthetic.nuscenes.scene_rows import scene_rows
from alocc_ros.synthetic.nuscenes.spec import DatasetSpec, rig_change, scene_of
from alocc_ros.synthetic.visibility import camera_mask, lidar_mask, ray_mask
from alocc_ros.synthetic.voxels import fill_voxels, openocc_labels
from alocc_ros.types import CAMERAS

_LIDAR_PERIOD = 50_000  # us, 20 Hz

# Writes one file; some of them run while the next images are rendered.
_Write = Callable[[], None]


def write_scene(
    root: Path,
    spec: DatasetSpec,
    number: int,
    *,
    device: torch.device | str = "cpu",
    on_cycle: Callable[[], None] = lambda: None,
) -> None:
    """All files of a scene but the tables; ``on_cycle`` is called after each six images.

    Raises:
        OutputError: a file cannot be written.
    """
    _SceneWriter(root, spec, number, device).write(on_cycle)


class _SceneWriter:
    """One scene on its way to the disk."""

    def __init__(
        self, root: Path, spec: DatasetSpec, number: int, device: torch.device | str
    ) -> None:
        self.root, self.spec, self.number, self.device = root, spec, number, device
        self.naming = SceneNaming(spec, number)
        self.scene = scene_of(spec, number)
        self.change = rig_change(spec, number)
        self.map = MapFrame.around(self.scene)
        self.annotations: dict[int, list[Annotation]] = {}

    def write(self, on_cycle: Callable[[], None]) -> None:
        recorded: list[SampleData] = []
        with ThreadPoolExecutor(4, thread_name_prefix="synth-write") as pool:
            pending: list[Future[None]] = []
            step = 1 if self.spec.sweeps else rig.KEY_FRAME_CYCLES
            for index in range(self.spec.cycles):
                cycle = index * step
                key, rest = divmod(cycle, rig.KEY_FRAME_CYCLES)
                key_frame = key if rest == 0 else None
                writes, new = self._images(cycle, key_frame, key + (rest > 0))
                recorded += new
                if key_frame is not None:
                    writes += self._key_frame(key)
                for future in pending:
                    future.result()
                pending = [pool.submit(write) for write in writes]
                on_cycle()
            recorded += self._lidar(pool, pending)
            for future in pending:
                future.result()
        write_bytes(self.root / self.naming.map_file, self.map.png(self.scene))
        self._write_rows(recorded)

    def _write_rows(self, recorded: list[SampleData]) -> None:
        """Last of all files: they say that the scene is complete."""
        annotations, instances = annotation_rows(self.scene, self.naming, self.annotations)
        rows = scene_rows(
            self.scene, self.naming, recorded, self.map.world_T_map, annotations, instances
        )
        with whole_file(rows_file(self.root, self.number)) as scratch:
            scratch.write_text(json.dumps(rows), encoding="utf-8")

    def _images(
        self, cycle: int, key: int | None, next_key: int
    ) -> tuple[list[_Write], list[SampleData]]:
        """The six images of one cycle: how to write them, and what they are."""
        naming = self.naming
        start = naming.cycle_start(cycle)
        cameras = rig.cameras(*self.spec.size, self.change)
        frame = render(self.scene, naming.time(start), cameras=cameras, device=self.device)
        writes, recorded = [], []
        for camera in CAMERAS:
            stamp, channel = start + rig.PHASES[camera] // 1000, camera.upper()
            file = naming.file(channel, stamp, key is not None, "jpg")
            recorded.append(SampleData(channel, stamp, naming.time(stamp), key, next_key, file))
            pixels = frame.views[camera].image.cpu().numpy()
            writes.append(partial(write_jpeg, self.root / file, pixels))
        return writes, recorded

    def _key_frame(self, key: int) -> list[_Write]:
        """The LiDAR sweep and all labels of a key frame."""
        scene, device, naming = self.scene, self.device, self.naming
        stamp = naming.lidar_stamp(key)
        time = naming.time(stamp)
        cycle = naming.time(naming.cycle_start(key * rig.KEY_FRAME_CYCLES))
        pose, solids = scene.ego_pose(time), scene.solids(time, device)
        voxels = fill_voxels(scene, time, pose, solids=solids)
        open_labels = openocc_labels(voxels.labels)
        origins = ray_origins(scene, time)
        seen = camera_mask(scene, voxels.labels, cycle, time, self.change, device=device)
        arrays = {
            "gts": {
                "semantics": voxels.labels,
                "mask_lidar": lidar_mask(voxels.labels, device=device).astype(np.uint8),
                "mask_camera": seen.astype(np.uint8),
            },
            "openocc_v2": {"semantics": open_labels, "flow": voxels.flow},
            "openocc_v2_ray_mask": {
                "ray_mask2": ray_mask(open_labels, origins, free=OPENOCC.free, device=device)
            },
        }
        sample = naming.sample_token(key)
        writes: list[_Write] = [
            partial(write_npz, self.root / folder / naming.name / sample / "labels.npz", content)
            for folder, content in arrays.items()
        ]
        map_T_lidar = pose @ rig.lidar().base_T_lidar
        around = fill_voxels(scene, time, map_T_lidar, SURROUNDOCC_GRID, solids=solids).labels
        index = np.argwhere((around != OCC3D.free) & (around != 0))
        rows = np.column_stack([index, around[tuple(index.T)]]).astype(np.int64)
        file = naming.file(LIDAR, stamp, True, "pcd.bin")
        name = Path(file).name
        path = self.root / "gts_surroundocc" / "samples" / f"{name}.npy"
        writes.append(partial(write_npy, path, rows))

        sweep = scan(scene, time, solids=solids)
        writes.append(partial(write_bytes, self.root / file, sweep.points.tobytes()))
        segmentation = naming.lidarseg_file(SampleData(LIDAR, stamp, time, key, key, file))
        writes.append(partial(write_bytes, self.root / segmentation, sweep.lidarseg.tobytes()))
        path = self.root / "lidar_seg" / f"{name.partition('.')[0]}.npz"
        writes.append(partial(write_labels, path, sweep.lidarseg))
        self.annotations[key] = annotate(scene, naming, key, time, sweep, self.map.world_T_map)
        return writes

    def _lidar(self, pool: ThreadPoolExecutor, pending: list[Future[None]]) -> list[SampleData]:
        """All LiDAR sweeps; those between key frames are made and written here."""
        naming = self.naming
        stamps = [naming.lidar_stamp(k) for k in range(self.spec.frames)]
        recorded = []
        for key, stamp in enumerate(stamps):
            file = naming.file(LIDAR, stamp, True, "pcd.bin")
            recorded.append(SampleData(LIDAR, stamp, naming.time(stamp), key, key, file))
            if not self.spec.sweeps or key + 1 == len(stamps):
                continue
            for between in range(stamp + _LIDAR_PERIOD, stamps[key + 1] - 10_000, _LIDAR_PERIOD):
                file = naming.file(LIDAR, between, False, "pcd.bin")
                time = naming.time(between)
                recorded.append(SampleData(LIDAR, between, time, None, key + 1, file))
                points = scan(self.scene, time, device=self.device).points
                write = partial(write_bytes, self.root / file, points.tobytes())
                pending.append(pool.submit(write))
        return recorded
