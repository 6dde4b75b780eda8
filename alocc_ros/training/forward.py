# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Training's side of the network's forward: frames and memories of several slots become one batch,
and what the network leaves becomes memories again.

What training needs differently (docs/training.md): the previous image goes through the first stage
again, since it was moved like the current one; histories carry no gradient; a mirrored grid turns
motions; truth may be mixed in; sums over many terms never run in half precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from alocc_ros.network.cameras import CameraGeometry, KeyCameras
from alocc_ros.network.heads import FLOW_SLICES
from alocc_ros.network.model import Alocc, Measured
from alocc_ros.network.plan import PlanTensors, frame_plan
from alocc_ros.network.state import KEYFRAME_PARTS, State
from alocc_ros.ops.flow_head import flow_logits
from alocc_ros.training.denoising import occupancy_map
from alocc_ros.training.norms import frozen_statistics
from alocc_ros.training.samples import TrainingFrame
from alocc_ros.training.schedule import Phase


@dataclass(frozen=True)
class SlotMemory:
    """What a slot remembers of its last frame; no gradients.

    Attributes:
        history: [T, C, Y, X, Z] raw lifted features, newest first, or [Y, X, Z, C] of recurrent
            networks; None: not kept.
        ages: [T] seconds, see ``FramePlan.ages``.
        flow_bev: [V, Y, X] the flow head's map; None without flow.
        truth: [classes + 1, Y, X] the same of the labels.
        augmentation: [3, 3] how the grid was mirrored.
        map_T_grid: [4, 4] where it was.
        geometry, motion, scene: of recurrent networks, see ``State``; None: not kept.
        post_rotation, post_translation: [N, 3, 3], [N, 3] how its images were cut and moved.
        first_row: [] int64 of the rows that are learned, in the grid that is not mirrored; None:
            all of them are.
    """

    history: Tensor | None
    ages: Tensor
    flow_bev: Tensor | None
    truth: Tensor | None
    augmentation: Tensor
    map_T_grid: Tensor
    geometry: Tensor | None = None
    motion: Tensor | None = None
    scene: Tensor | None = None
    post_rotation: Tensor | None = None
    post_translation: Tensor | None = None
    first_row: Tensor | None = None


@dataclass(frozen=True)
class TrainingPrediction:
    """What the losses look at, of B samples with N cameras.

    Attributes:
        depth: [B * N, D, h, w] probabilities as predicted; None if no image was looked at.
        image_logits: [B, classes, N, h, w]; likewise.
        logits: [B, classes, Z, Y, X]; None if only images were looked at.
        voxels: [B, V, Y, X, Z] features, likewise.
        flow_cost: [B, 24, Y, X] matches with the frame before; None without flow. With
            ``voxels`` what ``TrainingForward.flow_logits`` takes.
        rows: of the grid that Y stands for, of each sample; None: all.
    """

    depth: Tensor | None
    image_logits: Tensor | None
    logits: Tensor | None = None
    voxels: Tensor | None = None
    flow_cost: Tensor | None = None
    rows: Sequence[slice] | None = None


class TrainingForward:
    """Runs a network in training.

    Attributes:
        network: whose forward is run; its stages are wrapped for precision and checkpointing.
    """

    def __init__(
        self,
        network: Alocc,
        mean: Sequence[float],
        std: Sequence[float],
        channel_order: str,
        checkpointing: bool = False,
    ) -> None:
        """Args are of the network's input; ``checkpointing``: compute activations a second time
        instead of keeping them.
        """
        self.network = network
        self._mean, self._std = torch.tensor(mean), torch.tensor(std)
        self._flip_channels = channel_order == "bgr"
        keep_full_precision(network)
        if checkpointing:
            recompute_activations(network)

    def __call__(
        self,
        frames: Sequence[TrainingFrame],
        memories: Sequence[SlotMemory | None],
        phase: Phase,
    ) -> tuple[TrainingPrediction, list[SlotMemory | None]]:
        """One step of every sample; a sample whose memory is None begins a sequence."""
        network, device = self.network, frames[0].images.device
        images = self._normalised([f.images for f in frames])
        motions = [grid_motion(f, m) for f, m in zip(frames, memories, strict=True)]
        plan, ages = self._plan(frames, memories, motions, device)
        state = State(stereo=self._stereo(frames))
        if phase.only_images:
            depth, _ = network.encode_images(images, plan, state)
            return TrainingPrediction(depth.depth, self._image_logits(depth.context, frames)), [
                None for _ in frames
            ]
        cameras = len(images) // len(frames)
        state = self._remembered(state, memories, cameras, device)
        match, truths = self._true_match(frames, memories, plan, phase)
        bins = torch.cat([f.depth_bins for f in frames]) if phase.depth_truth > 0 else None
        measured = Measured(
            bins, phase.depth_truth, denoising=True, match=match, match_share=phase.flow_truth
        )
        prediction, new = network.predict(images, plan, state, measured=measured)
        parts = {name: getattr(new, name) for name in KEYFRAME_PARTS if phase.temporal}
        by_slot = {n: _slots(value, len(frames)) for n, value in parts.items() if value is not None}
        kept = [
            SlotMemory(
                **({"history": None} | {name: values[b] for name, values in by_slot.items()}),
                ages=age,
                flow_bev=None if new.flow_bev is None else new.flow_bev[b],
                truth=truth,
                augmentation=frame.cameras.augmentation,
                map_T_grid=frame.map_T_grid,
                post_rotation=frame.cameras.post_rotation,
                post_translation=frame.cameras.post_translation,
            )
            for b, (frame, age, truth) in enumerate(zip(frames, ages, truths, strict=True))
        ]
        seen = TrainingPrediction(
            prediction.depth.depth,
            self._image_logits(prediction.depth.context, frames),
            prediction.logits.permute(0, 4, 3, 1, 2),
            prediction.voxels,
            prediction.flow_cost,
        )
        return seen, kept

    @torch.no_grad()
    def lift(self, frames: Sequence[TrainingFrame]) -> Tensor:  # [B, C, Y, X, Z]
        """What the image networks lift of frames, each alone, with the depth that they see."""
        nobody = [None] * len(frames)
        motions = [grid_motion(f, None) for f in frames]
        plan, _ = self._plan(frames, nobody, motions, frames[0].images.device)
        images = self._normalised([f.images for f in frames])
        depth, _ = self.network.encode_images(images, plan, State(stereo=self._stereo(frames)))
        return self.network.lift(depth, plan, None, None)

    def flow_logits(
        self, prediction: TrainingPrediction, known: Tensor
    ) -> Tensor:  # [B, Y, X, Z] bool -> [M, FLOW_BINS, 2]
        """The velocity bins of the M voxels that are asked for, in order of (z, y, x). Velocities
        are known of few, and all 640 000 would take longer than the rest of the step.
        """
        head = self.network.alocc_head
        return flow_logits(
            prediction.flow_cost,
            prediction.voxels,
            known,
            head.flow_post_conv[0],
            head.flow_predicter,
        )

    def _normalised(self, images: Sequence[Tensor]) -> Tensor:  # [N, H, W, 3] uint8 each
        """As stream/preprocessing.py does; the channels' quirk is explained there."""
        pixels = torch.cat(list(images))
        if self._flip_channels:
            pixels = pixels.flip(-1)
        mean, std = self._mean.to(pixels.device), self._std.to(pixels.device)
        return ((pixels.float() - mean) * (1 / std)).permute(0, 3, 1, 2).contiguous()

    def _plan(
        self,
        frames: Sequence[TrainingFrame],
        memories: Sequence[SlotMemory | None],
        motions: Sequence[Tensor],
        device: torch.device,
    ) -> tuple[PlanTensors, list[Tensor]]:
        """The plan of the batch, and the ages that each slot keeps."""
        v = self.network.variant
        # In the temporal start there is a motion, but no history: copies are displaced.
        ages = [
            torch.zeros(v.history) if m is None or m.history is None else m.ages for m in memories
        ]
        elapsed = torch.tensor([0.0 if m is None else v.history_interval for m in memories])
        has_history = torch.tensor([m is not None and m.history is not None for m in memories])
        cameras = _join([f.cameras for f in frames])
        count = len(cameras.intrinsics) // len(frames)
        alone = torch.tensor([not f.has_previous for f in frames]).repeat_interleave(count)
        cuts = [
            (f.cameras.post_rotation, f.cameras.post_translation)
            if m is None or m.post_rotation is None
            else (m.post_rotation, m.post_translation)
            for f, m in zip(frames, memories, strict=True)
        ]
        cameras = cameras.without_reference(alone)
        plan = frame_plan(
            v,
            cameras,
            torch.stack(list(motions)),
            ages=torch.stack(ages),
            elapsed=elapsed,
            has_history=None if bool(has_history.all()) else has_history,
            has_reference=torch.tensor([m is not None for m in memories]),
            samples=len(frames),
            key=KeyCameras(cameras.previous_T_camera, *map(torch.cat, zip(*cuts, strict=True))),
        )
        return plan.tensors(device), list(plan.ages)

    def _stereo(self, frames: Sequence[TrainingFrame]) -> Tensor | None:
        """The feature of the images of the key frames before."""
        backbone = self.network.img_backbone
        if not self.network.variant.stereo:
            return None
        previous = self._normalised([f.previous_images for f in frames])
        with torch.no_grad(), frozen_statistics([backbone]):
            return backbone.first_stage(previous).float()

    def _remembered(
        self,
        state: State,
        memories: Sequence[SlotMemory | None],
        cameras: int,
        device: torch.device,
    ) -> State:
        """The state with what the slots remember; zeros where a slot remembers nothing."""
        v, flow_bev, parts = self.network.variant, None, {}
        for name, shape in self.network.keyframe_shapes(1, cameras).items():
            held = [None if m is None else getattr(m, name) for m in memories]
            each = shape[1:] if shape[0] == 1 else shape  # as ``_slots`` leaves them
            parts[name] = _stack(held, each, device).view(-1, *shape[1:])
        if v.flow:
            x, y, _ = v.grid.shape
            maps = [None if m is None else m.flow_bev for m in memories]
            flow_bev = _stack(maps, (v.voxel_channels, y, x), device)
        return state._replace(flow_bev=flow_bev, **parts)

    def _true_match(
        self,
        frames: Sequence[TrainingFrame],
        memories: Sequence[SlotMemory | None],
        plan: PlanTensors,
        phase: Phase,
    ) -> tuple[Tensor | None, Sequence[Tensor | None]]:
        """The flow head's match as the true occupancy has it [B, taps, Y/2, X/2], and the maps that
        it is made of.
        """
        v = self.network.variant
        if not v.flow or phase.flow_truth == 0:
            return None, [None] * len(frames)
        truths = [occupancy_map(f.labels, v.queries - 1, FLOW_SLICES) for f in frames]
        before = [
            t if m is None or m.truth is None else m.truth
            for t, m in zip(truths, memories, strict=True)
        ]
        match = self.network.flow_match(torch.stack(truths), torch.stack(before), plan.flow_motion)
        return match, truths

    def _image_logits(self, context: Tensor, frames: Sequence[TrainingFrame]) -> Tensor:
        """Classes of pixels: the context that is lifted against image-plane embeddings."""
        embeddings = self.network.alocc_head.image_embeddings()
        return torch.einsum("qc,bnchw->bqnhw", embeddings, context.unflatten(0, (len(frames), -1)))


def keep_full_precision(network: Alocc) -> None:
    """Geometry, sums over many terms and what is remembered never run in half precision."""
    fusion = "fusion" if network.variant.recurrent else "fusion.warp"
    for name in ("stereo", "geometry", "lift", fusion, "scene", "flow_map", "flow_match"):
        module: Any = network
        for part in name.split("."):
            module = getattr(module, part, None)
        if module is not None:
            module.forward = partial(_full_precision, type(module).forward, module)


def recompute_activations(network: Alocc) -> None:
    """Computes activations a second time for the gradient instead of keeping them, stage by
    stage.
    """
    backbone, norms = network.img_backbone, nn.ModuleList
    stages: list[tuple[Any, str, Iterable[nn.Module]]] = [
        (backbone, "first_stage", norms([backbone.bn1, backbone.layer1])),
        *((getattr(backbone, f"layer{i}"), "forward", [getattr(backbone, f"layer{i}")])
          for i in (2, 3, 4)),
    ]  # fmt: skip
    for name in ("img_neck", "depth_net", "pre_process", "img_bev_encoder_backbone",
                 "img_bev_encoder_neck"):  # fmt: skip
        module = getattr(network, name)
        stages.append((module, "forward", [module]))
    if network.variant.history:
        fusion = [network.history_keyframe_time_conv, network.history_keyframe_cat_conv]
        stages.append((network.fusion, "merge", fusion))
    if network.variant.flow:
        stages.append((network.flow_cost, "forward", [network.alocc_head.cost_volum_net]))
    for owner, method, modules in stages:
        setattr(owner, method, partial(_recomputed, getattr(owner, method), list(modules)))


def _full_precision(function: Callable, module: nn.Module, *args: Any) -> Any:
    def single(value: Any) -> Any:
        if isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16):
            return value.float()
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*map(single, value))
        return value

    device = next(a.device for a in _tensors(args))
    with torch.autocast(device.type, enabled=False):
        return function(module, *map(single, args))


def _tensors(values: Iterable[Any]) -> Iterable[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple):
            yield from _tensors(value)


def _recomputed(function: Callable, norms: Sequence[nn.Module], *args: Any) -> Any:
    if not torch.is_grad_enabled():
        return function(*args)
    # The second time BatchNorm must not count.
    contexts = partial(lambda n: (nullcontext(), frozen_statistics(n)), norms)
    return checkpoint(function, *args, use_reentrant=False, context_fn=contexts)


def _stack(
    values: Sequence[Tensor | None], shape: tuple[int, ...], device: torch.device
) -> Tensor:  # [B, *shape]
    zeros = None
    if any(v is None for v in values):
        zeros = torch.zeros(shape, device=device)
    return torch.stack([zeros if v is None else v for v in values])


def _slots(value: Tensor, samples: int) -> list[Tensor]:
    """A part of the state by sample; what a sample has one of loses that axis."""
    return [v.squeeze(0) for v in value.unflatten(0, (samples, -1))]


def _join(cameras: Sequence[CameraGeometry]) -> CameraGeometry:
    """The cameras of all samples in one row."""
    names = (
        "grid_T_camera",
        "intrinsics",
        "post_rotation",
        "post_translation",
        "previous_T_camera",
    )
    joined = {n: torch.cat([getattr(c, n) for c in cameras]) for n in names}
    each = [c.augmentation.expand(len(c.intrinsics), 3, 3) for c in cameras]
    return CameraGeometry(**joined, augmentation=torch.cat(each))


def grid_motion(frame: TrainingFrame, memory: SlotMemory | None) -> Tensor:  # [4, 4] float64
    """Mirrored grid now -> mirrored grid of the frame before."""
    if memory is None:
        return torch.eye(4, dtype=torch.float64)
    moved = torch.linalg.solve(memory.map_T_grid, frame.map_T_grid)
    return (
        _homogeneous(memory.augmentation)
        @ moved
        @ torch.linalg.inv(_homogeneous(frame.cameras.augmentation))
    )


def _homogeneous(linear: Tensor) -> Tensor:  # [3, 3] -> [4, 4]
    matrix = torch.eye(4, dtype=linear.dtype)
    matrix[:3, :3] = linear
    return matrix
