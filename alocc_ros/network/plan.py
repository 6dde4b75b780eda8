# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The plan of a frame: everything that the host works out before the network runs.

Geometry is done in float64 on the host, packed into one vector that one copy brings to the device,
and unpacked there into views. The first part of the vector belongs to the rig alone: while it does
not change, what was derived from it on the device (``Alocc.calibrate``) can stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from alocc_ros.errors import ModelError
from alocc_ros.network.cameras import CameraGeometry, KeyCameras
from alocc_ros.network.variants import Variant
from alocc_ros.ops.history import index_motion


class PlanTensors(NamedTuple):
    """What the network takes of a plan, on its device; B samples with N cameras.

    Attributes:
        camera_vector: [B * N, 27] float64, what the depth network is told of each camera.
        rays: [B * N, 3, 3] float64; pixel (u, v) at depth d lies at d * M (u, v, 1) + origin.
        origin: [B * N, 3] float64 metres, in the grid's frame.
        camera_mask: [B * N] bool; False: no image came, nothing is lifted from this camera.
        homography, offset: [B * N, 3, 3], [B * N, 3] float64, pixel of the quarter-size feature ->
            reference feature, homogeneous: depth * H p + offset.
        motion: [B, 3, 4] float64, lattice index now -> in the remembered volumes.
        flow_motion: [B, 3, 4] float64, cell of the flow map now -> in the reference frame's.
        key_homography, key_offset: [B * N, 3, 3], [B * N, 3] float64, pixel of the stride-16
            feature -> the same camera's at the last key frame, homogeneous, as ``homography``.
        ages: [B, T + 1] float32 seconds, of the present (0) and of each remembered slot. Of
            recurrent variants [B, 2]: time since the start, of the present and of what is
            remembered (see ``times_told``).
        scene_keep: [B] float64, how much of what the scene layer has learned still counts.
        has_history: [B] bool; False: this sample's slots are copies of the present. None: all have
            one (inference, where a stream without a state is an entry point of its own).
        has_reference: [B] bool; False: this sample's flow map is matched with itself; likewise.
    """

    camera_vector: Tensor
    rays: Tensor
    origin: Tensor
    camera_mask: Tensor
    homography: Tensor
    offset: Tensor
    key_homography: Tensor
    key_offset: Tensor
    motion: Tensor
    flow_motion: Tensor
    ages: Tensor
    scene_keep: Tensor
    has_history: Tensor | None = None
    has_reference: Tensor | None = None


# Fields of the packed vector: the rig's first. The shapes are those of one camera or one sample.
_RIG = (("camera_vector", (27,)), ("rays", (3, 3)), ("origin", (3,)))
_FRAME = (
    ("camera_mask", ()),
    ("homography", (3, 3)),
    ("offset", (3,)),
    ("key_homography", (3, 3)),
    ("key_offset", (3,)),
)
_SAMPLE = (("motion", (3, 4)), ("flow_motion", (3, 4)), ("scene_keep", ()))


@dataclass(frozen=True)
class FramePlan:
    """One frame (or batch) as the host planned it.

    Attributes:
        packed: [K] float64, all numbers; see ``unpack``.
        cameras, samples: N, B.
        ages: [B, T] float32 seconds, of the slots as this frame leaves them if it is a key frame;
            what the next one's plan is made of.
        has_history, has_reference: [B] bool, or None; see ``PlanTensors``.
        first: the frame begins a sequence.
        keyframe: the history moves on with this frame.
        reference, slot: where the stream's state holds the reference frame's features, and where
        this
            frame's go.
    """

    packed: Tensor
    cameras: int
    samples: int
    ages: Tensor
    has_history: Tensor | None = None
    has_reference: Tensor | None = None
    first: bool = False
    keyframe: bool = True
    reference: int = 0
    slot: int = 0

    @property
    def rig(self) -> Tensor:  # [K'] float64
        """The part that belongs to the rig alone."""
        return self.packed[: self.samples * self.cameras * sum(prod(s) for _, s in _RIG)]

    @property
    def remembering(self) -> Tensor:  # [B * (12 + T + 1)] float64
        """The part that the sum over the remembered volumes depends on: motion and ages."""
        views = unpack(self.packed, self.cameras, self.samples, self.ages.shape[1])
        return torch.cat([views.motion.flatten(), views.ages.double().flatten()])

    def tensors(self, device: torch.device | str) -> PlanTensors:
        """All of it on a device, by one copy."""
        packed = self.packed.to(device, non_blocking=True)
        tensors = unpack(packed, self.cameras, self.samples, self.ages.shape[1])
        return tensors._replace(
            has_history=None if self.has_history is None else self.has_history.to(device),
            has_reference=None if self.has_reference is None else self.has_reference.to(device),
        )


def frame_plan(
    variant: Variant,
    cameras: CameraGeometry,
    previous_T_current: Tensor | None = None,  # [B, 4, 4] metres, grid frame now -> key frame
    reference_T_current: Tensor | None = None,  # [B, 4, 4], -> reference frame; None: as above
    ages: Tensor | None = None,  # [B, T] seconds, of the slots at the last key frame
    elapsed: Tensor | float = 0.0,  # [B] seconds since then
    camera_mask: Tensor | None = None,  # [B * N] bool; None: all cameras are there
    has_history: Tensor | None = None,  # [B] bool
    has_reference: Tensor | None = None,  # [B] bool
    samples: int = 1,
    key: KeyCameras | None = None,
) -> FramePlan:
    """Work out a frame.

    Args:
        variant: of the network that is to run.
        cameras: of all samples, one sample after the other; their ``previous_T_camera`` leads to
            the reference frame.
        previous_T_current: None for a frame that begins a sequence.
        reference_T_current: of what the state's ``stereo`` and ``flow_bev`` are.
        ages: how old each slot was (recurrent variants: how long the sequence had been going on);
            ``FramePlan.ages`` of the last key frame, zeros at a start.
        elapsed: what has passed since, as the weights count it.
        camera_mask: which cameras have an image.
        has_history: which samples have a history; None: all.
        has_reference: which samples have a reference frame; None: all.
        samples: B.
        key: of the last key frame; None: it is the reference frame, seen through the same crop.

    Raises:
        ModelError: the numbers of cameras, samples or slots do not fit together.
    """
    count = len(cameras.intrinsics)
    if count % samples:
        raise ModelError(f"{count} cameras are not {samples} samples of equally many")
    if camera_mask is None:
        camera_mask = torch.ones(count, dtype=torch.bool)
    if camera_mask.shape != (count,):
        raise ModelError(f"camera_mask is {list(camera_mask.shape)} for {count} cameras")
    if previous_T_current is None:
        previous_T_current = torch.eye(4, dtype=torch.float64)
    previous = previous_T_current.reshape(-1, 4, 4).expand(samples, 4, 4)
    reference = previous
    if reference_T_current is not None:
        reference = reference_T_current.reshape(-1, 4, 4).expand(samples, 4, 4)
    if ages is None:
        ages = torch.zeros(samples, variant.history)
    if ages.shape != (samples, variant.history):
        raise ModelError(
            f"ages are {list(ages.shape)}, {variant.name} remembers {variant.history} slots "
            f"of {samples} samples"
        )
    r, grid = variant.grid.resolution, variant.grid
    times, scene_keep = times_told(variant, ages, elapsed)
    # Of a recurrent variant the true time goes on, whatever is told.
    passed = torch.as_tensor(elapsed, dtype=ages.dtype).reshape(-1, 1)
    following = ages + passed if variant.recurrent else times[:, :-1]
    rays, origin = cameras.rays()
    homography, offset = cameras.stereo_homography(variant)
    parts = [
        cameras.camera_vector(),
        rays,
        origin,
        camera_mask,
        homography,
        offset,
        *cameras.key_homography(variant, key or KeyCameras(cameras.previous_T_camera)),
        index_motion(previous, variant.lift_lower, variant.lift_step, not variant.volumetric),
        index_motion(reference, grid.lower, (r, r, r), planar=True),
        scene_keep,
        times,
    ]
    packed = torch.cat([p.to(torch.float64).reshape(-1) for p in parts])
    return FramePlan(packed, count // samples, samples, following, has_history, has_reference)


def times_told(
    variant: Variant,
    ages: Tensor,  # [B, T] seconds at the last key frame
    elapsed: Tensor | float,  # [B] seconds
) -> tuple[Tensor, Tensor]:  # [B, T + 1] seconds, [B]
    """What the weights are told of time: 0 and the age of each slot, or, of recurrent variants, how
    long the sequence has been going on, now and at the last key frame. Besides, how much of what
    the scene layer has learned counts from here on.

    Where a sequence becomes longer than those that the weights have seen
    (``Variant.memory_length``), it is told to be half as long, and stays so: half of the sums goes
    at once, and then what each key frame adds to that half. A vehicle drives for hours, and
    neither the embedding of an hour nor the sums of one were ever trained (docs/network.md
    section 8b, "Hours").
    """
    passed = torch.as_tensor(elapsed, dtype=ages.dtype).reshape(-1, 1).expand(len(ages), 1)
    if not variant.recurrent:
        times = torch.cat([torch.zeros(len(ages), 1), ages + passed], 1)
        return times, torch.ones(len(ages))
    half = variant.memory_length // 2
    # A tenth of an interval late: key frames are whole intervals apart, and times are float32.
    longest = (variant.memory_length - 0.9) * variant.history_interval
    was, over = (ages > longest)[:, 0], ages + passed > longest
    then = torch.where(over, (half - 1) * variant.history_interval, ages)
    keep = torch.ones(len(ages))
    keep[over[:, 0]] = half / variant.memory_length
    keep[was] = 1 - 1 / (half + 1)  # so that the sums stay those of half + 1 key frames
    return torch.cat([then + passed, then], 1), keep


def unpack(packed: Tensor, cameras: int, samples: int, slots: int) -> PlanTensors:
    """Views of the packed vector; what the network wants in another type is cast here."""
    shapes = _shapes(cameras, samples, slots)
    ends = list(accumulate(prod(s) for s in shapes.values()))
    if packed.shape != (ends[-1],):
        raise ModelError(f"a packed plan of {list(packed.shape)} numbers, expected {ends[-1]}")
    views = {
        name: packed[end - prod(shape) : end].view(shape)
        for (name, shape), end in zip(shapes.items(), ends, strict=True)
    }
    views["ages"] = views["ages"].float()
    views["camera_mask"] = views["camera_mask"] != 0
    return PlanTensors(**views)


def empty_plan(cameras: int, samples: int, slots: int, device: str) -> PlanTensors:
    """A plan of the right shapes without numbers: for shapes, counting and export."""
    packed = torch.empty(packed_size(cameras, samples, slots), dtype=torch.float64, device=device)
    return unpack(packed, cameras, samples, slots)


def packed_size(cameras: int, samples: int, slots: int) -> int:
    """Numbers of a packed plan."""
    return sum(prod(shape) for shape in _shapes(cameras, samples, slots).values())


def _shapes(cameras: int, samples: int, slots: int) -> dict[str, tuple[int, ...]]:
    shapes = {name: (samples * cameras, *shape) for name, shape in _RIG + _FRAME}
    shapes |= {name: (samples, *shape) for name, shape in _SAMPLE}
    return shapes | {"ages": (samples, slots + 1)}
