# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""From a data set's key frame to what the training step takes: images, geometry, targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from alocc_ros.errors import TrainingError
from alocc_ros.geometry import inverse
from alocc_ros.labels import ClassList
from alocc_ros.network.cameras import CameraGeometry
from alocc_ros.network.variants import Variant
from alocc_ros.stream.crop_placement import as_in_training, place_crop
from alocc_ros.stream.decoding import decode
from alocc_ros.stream.keyframes import map_T_camera
from alocc_ros.training.augmentation import GridFlip, ImageAugmentation, ImageTransform
from alocc_ros.training.looks import Look
from alocc_ros.training.losses import IGNORED
from alocc_ros.training.randomness import numpy_random
from alocc_ros.training.streams import Visit
from alocc_ros.training.targets import (
    NO_DEPTH,
    block_targets,
    pixels_of,
    point_classes,
    voxel_flow,
    voxel_labels,
)
from alocc_ros.types import CAMERAS, Calibration, FrameSet

_AUGMENTATION, _LOOK = 2, 7  # purposes of the random numbers, see randomness.py


@dataclass(frozen=True)
class KeyFrameSample:
    """A key frame as it lies in a data set.

    Attributes:
        name: for people, e.g. ``scene-0061, 3e8750f331d7499e9b5123e9eb70f2e2``.
        frame: images, calibration, poses.
        previous: the key frame before it in the scene, if any; only its images and poses are used.
        labels: [X, Y, Z] uint8 of the benchmark.
        supervised: [X, Y, Z] bool, voxels that may be learned; None: all.
        flow: [X, Y, Z, 2] m/s (vx, vy), or None.
        points: [P, 3] metres of the key frame's LiDAR sweep, or None.
        map_T_points: [4, 4] their frame when they were measured.
        point_labels: [P] uint8, 0 noise, 1 barrier, ... 16 vegetation; or None.
        base_T_grid: [4, 4] the grid's frame on the vehicle.
    """

    name: str
    frame: FrameSet
    previous: FrameSet | None
    labels: np.ndarray
    supervised: np.ndarray | None = None
    flow: np.ndarray | None = None
    points: np.ndarray | None = None
    map_T_points: np.ndarray | None = None
    point_labels: np.ndarray | None = None
    base_T_grid: np.ndarray = field(default_factory=lambda: np.eye(4))

    @property
    def map_T_grid(self) -> np.ndarray:  # [4, 4]
        """Where the voxels lie."""
        return self.frame.map_T_base @ self.base_T_grid


class SampleSource(Protocol):
    """Something to train on.

    Attributes:
        scenes: key frames of each scene in order of time, as arguments of ``read``.
    """

    scenes: Sequence[Sequence[int]]

    def read(self, index: int) -> KeyFrameSample:
        """One key frame."""
        ...

    def key(self, index: int) -> str:
        """A name for files about it, which stays the same when scenes are added."""
        ...


@dataclass(frozen=True)
class TrainingFrame:
    """One key frame for one slot; N cameras, network layout.

    Attributes:
        name: of the key frame.
        visit: step, slot, and whether a sequence starts here.
        images: [N, H, W, 3] uint8 RGB.
        previous_images: the same of the key frame before, with the same transforms; None
            without stereo.
        has_previous: whether there was one (else the images are their own predecessors).
        cameras: geometry of the transformed images, in the mirrored grid.
        map_T_grid: [4, 4] float64 of the frame that the history moves with (the grid's), not
            mirrored.
        labels: [Y, X, Z] uint8.
        flow: [Y, X, Z, 2] float32 (along Y, along X), nan: not to be learned; None without flow.
        depth_bins: [N, h, w] int64, -1: nothing measured.
        image_labels: [N, h, w] uint8.
        volume: [C, Y, X, Z] float16, lifted, mirrored as the grid; with it there are no images,
            depth bins and image labels (their first size is 0). None: there are.
    """

    name: str
    visit: Visit
    images: Tensor
    previous_images: Tensor | None
    has_previous: bool
    cameras: CameraGeometry
    map_T_grid: Tensor
    labels: Tensor
    flow: Tensor | None
    depth_bins: Tensor
    image_labels: Tensor
    volume: Tensor | None = None

    def to(self, device: torch.device) -> TrainingFrame:
        """The same with its tensors there (matrices stay on the host)."""
        names = {f.name for f in fields(self)} - {"map_T_grid"}
        values = {n: getattr(self, n) for n in names}
        moved = {
            n: v.to(device, non_blocking=True) for n, v in values.items() if isinstance(v, Tensor)
        }
        return replace(self, **moved)

    def pin_memory(self) -> TrainingFrame:
        """The same in memory from which a GPU can copy by itself; what torch's loader calls."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(
            self, **{n: v.pin_memory() for n, v in values.items() if isinstance(v, Tensor)}
        )


@dataclass(frozen=True)
class Preparation:
    """How samples are prepared; a map-style data set of torch's loader over ``Visit``s.

    Attributes:
        source: where samples come from.
        variant: sizes, depth bins, stereo, flow.
        classes: what the labels mean.
        seed: of the random transforms.
        images: ranges of the random transforms; None: the images are cut as outside training.
        flip: probability of mirroring each horizontal axis of the grid.
        volumes: the lifted volume of a key frame by its ``SampleSource.key``, [C, Y, X, Z] float16,
            which is taken instead of images; None: images.
        light, bonnet: probabilities of another light and camera, and of the own vehicle in view
            (``Look.sample``).
    """

    source: SampleSource
    variant: Variant
    classes: ClassList
    seed: int
    images: ImageAugmentation | None = ImageAugmentation()
    flip: float = 0.5
    volumes: Callable[[str], np.ndarray] | None = None
    light: float = 0.0
    bonnet: float = 0.0

    def __getitem__(self, visit: Visit) -> TrainingFrame:
        """The frame of that visit."""
        random = numpy_random(self.seed, _AUGMENTATION, visit.step, visit.slot)
        sample = self.source.read(visit.index)
        self._check(sample)
        transforms = {c: self._transform(sample.frame, c, random) for c in CAMERAS}
        flip = GridFlip.sample(self.flip, random)
        cameras = _geometry(sample, transforms, flip, self.variant)
        volume, seen = None, transforms
        if self.volumes is not None:
            stored = flip.volume(self.volumes(self.source.key(visit.index)))
            volume, seen = torch.from_numpy(np.array(stored)), {}
        bins, classes = self._blocks(sample, cameras, len(seen))
        random = numpy_random(self.seed, _LOOK, visit.step, visit.slot)
        look = Look.sample(self.light, self.bonnet, random)
        for n, camera in enumerate(seen):
            hidden = look.covered_blocks(camera, self.variant.input_size)
            bins[n][hidden], classes[n][hidden] = NO_DEPTH, IGNORED
        stereo, previous = self.variant.stereo, sample.previous or sample.frame
        supervised = None if sample.supervised is None else flip.voxels(sample.supervised)
        labels = voxel_labels(flip.voxels(sample.labels), supervised)
        flow = None
        if self.variant.flow:
            flow = torch.from_numpy(voxel_flow(flip.flow(sample.flow), labels, self.classes))
        return TrainingFrame(
            name=sample.name,
            visit=visit,
            images=_images(sample.frame, seen, self.variant, look, random),
            previous_images=(
                _images(previous, seen, self.variant, look, random) if stereo else None
            ),
            has_previous=sample.previous is not None,
            cameras=cameras,
            map_T_grid=torch.from_numpy(self._moving_frame(sample)),
            labels=torch.from_numpy(labels),
            flow=flow,
            depth_bins=torch.from_numpy(bins),
            image_labels=torch.from_numpy(classes),
            volume=volume,
        )

    def _moving_frame(self, sample: KeyFrameSample) -> np.ndarray:  # [4, 4]
        """Whose motion moves the history: the grid's, or the base's (``Variant.base_motion``)."""
        return sample.frame.map_T_base if self.variant.base_motion else sample.map_T_grid

    def _check(self, sample: KeyFrameSample) -> None:
        missing = [c for c in CAMERAS if c not in sample.frame.images]
        if missing:
            raise TrainingError(f"{sample.name}: no image of {', '.join(missing)}")
        if sample.labels.shape != self.variant.grid.shape:
            raise TrainingError(
                f"{sample.name}: labels of {sample.labels.shape} voxels, "
                f"{self.variant.name} has {self.variant.grid.shape}"
            )
        found = sample.labels[sample.labels != IGNORED]
        if found.size and found.max() > self.classes.free:
            raise TrainingError(
                f"{sample.name}: label {found.max()} is none of {self.classes.name}, "
                f"which ends with {self.classes.free}"
            )
        if self.variant.flow and sample.flow is None:
            raise TrainingError(f"{sample.name}: {self.variant.name} learns flow, there is none")

    def _transform(
        self, frame: FrameSet, camera: str, random: np.random.Generator
    ) -> ImageTransform:
        crop = place_crop(frame.calibration[camera], self.variant.input_size)
        if self.images is None:
            return ImageTransform.none(crop)
        return ImageTransform.sample(crop, self.images, random)

    def _blocks(
        self, sample: KeyFrameSample, cameras: CameraGeometry, count: int
    ) -> tuple[np.ndarray, np.ndarray]:  # [N, h, w] x 2
        v = self.variant
        if sample.points is None or not count:
            shape = (count, *v.feature_size)
            return np.full(shape, NO_DEPTH, np.int64), np.full(shape, IGNORED, np.uint8)
        classes = sample.point_labels
        if classes is not None:
            classes = point_classes(classes, self.classes)
        camera_T_points = inverse(map_T_camera(sample.frame, CAMERAS)) @ sample.map_T_points
        k, r, t = (
            x.numpy() for x in (cameras.intrinsics, cameras.post_rotation, cameras.post_translation)
        )
        found = []
        for n in range(count):
            pixels, depth = pixels_of(sample.points, camera_T_points[n], k[n], r[n], t[n])
            found.append(
                block_targets(pixels, depth, classes, v.input_size, v.depth_range, v.depth_step)
            )
        bins, labels = zip(*found, strict=True)
        return np.stack(bins), np.stack(labels)


def _geometry(
    sample: KeyFrameSample,
    transforms: dict[str, ImageTransform],
    flip: GridFlip,
    variant: Variant,
) -> CameraGeometry:
    frame = sample.frame
    now = map_T_camera(frame, CAMERAS)
    before = now if sample.previous is None else map_T_camera(sample.previous, CAMERAS)
    intrinsics, rotations, shifts = zip(
        *(_image(frame.calibration[c], transforms[c], variant) for c in CAMERAS), strict=True
    )
    return CameraGeometry(
        grid_T_camera=inverse(sample.map_T_grid) @ now,
        intrinsics=np.stack(intrinsics),
        post_rotation=np.stack(rotations),
        post_translation=np.stack(shifts),
        previous_T_camera=inverse(before) @ now,
        augmentation=flip.matrix(),
    )


def _image(
    calibration: Calibration, transform: ImageTransform, variant: Variant
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # [3, 3], [3, 3], [3]
    """Camera matrix, and what was done to the image, said as at inference (``planning.py``)."""
    rotation, shift = transform.homography()
    crop = place_crop(calibration, variant.input_size)
    virtual = as_in_training(crop, variant.image_size)
    if virtual is None:
        return calibration.intrinsics, rotation, shift
    rotation = rotation.copy()
    rotation[:2, 2] = shift[:2]
    moved = rotation @ np.linalg.inv(virtual)
    shift = np.array([*moved[:2, 2], 0.0])
    moved[:2, 2] = 0.0
    return virtual @ calibration.intrinsics, moved, shift


def _images(
    frame: FrameSet,
    transforms: dict[str, ImageTransform],
    variant: Variant,
    look: Look,
    random: np.random.Generator,
) -> Tensor:  # [N, H, W, 3] uint8
    if not transforms:
        return torch.empty(0, *variant.input_size, 3, dtype=torch.uint8)
    if any(c not in frame.images for c in CAMERAS):
        raise TrainingError(f"the key frame at {frame.stamp} ns lacks images")
    images = [
        look.apply(transforms[c].apply(Image.fromarray(decode(frame.images[c]))), c, random)
        for c in CAMERAS
    ]
    return torch.from_numpy(np.stack(images))
