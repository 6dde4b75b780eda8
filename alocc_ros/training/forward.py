# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The walk of ``network/alocc.py`` for training: several samples at once, with gradients, and with
what only losses want (image-plane logits, depth, features of the flow head).

The same modules in the same order. BatchNorm sees the whole batch, hence one walk for all
samples; only what depends on poses and memories is done sample by sample. A test holds this walk
against the one that ships.

Differences from inference that training needs (spec training.md 2, 3, 6): the previous image goes
through the first stage again, since it was moved like the current one; histories are raw
and carry no gradient; a mirrored grid turns motions; truth may be mixed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from alocc_ros.network.alocc import Alocc
from alocc_ros.network.cameras import CameraGeometry, depth_bins
from alocc_ros.network.depth import Lifted
from alocc_ros.network.heads import FLOW_SLICES
from alocc_ros.network.lifting import lift
from alocc_ros.ops.cost_volume import cost_volume
from alocc_ros.ops.flow import few_flow_logits
from alocc_ros.ops.history import index_motion, warp_twin
from alocc_ros.training.denoising import mixed_match, occupancy_map, with_true_depth
from alocc_ros.training.norms import frozen_statistics
from alocc_ros.training.samples import TrainingFrame
from alocc_ros.training.schedule import Phase


@dataclass(frozen=True)
class TrainingMemory:
    """What a slot remembers of its last frame; no gradients.

    Attributes:
        history: [T, C, Y, X, Z] raw lifted features, newest first; None: not kept.
        ages: [T] seconds.
        flow_bev: [V, Y, X] the flow head's map; None without flow.
        truth: [classes + 1, Y, X] the same of the labels.
        augmentation: [3, 3] how the grid was mirrored.
        map_T_grid: [4, 4] where it was.
    """

    history: Tensor | None
    ages: Tensor
    flow_bev: Tensor | None
    truth: Tensor | None
    augmentation: Tensor
    map_T_grid: Tensor


@dataclass(frozen=True)
class Prediction:
    """What the losses look at, of B samples with N cameras.

    Attributes:
        depth: [B * N, D, h, w] probabilities as predicted.
        image_logits: [B, classes, N, h, w].
        logits: [B, classes, Z, Y, X]; None if only images were looked at.
        voxels: [B, V, Z, Y, X] features, likewise.
        flow_cost: [B, 24, Y, X] matches with the frame before; None without flow. With
            ``voxels`` what ``Walk.flow_logits`` takes.
    """

    depth: Tensor
    image_logits: Tensor
    logits: Tensor | None = None
    voxels: Tensor | None = None
    flow_cost: Tensor | None = None


class Walk:
    """A network's forward in training.

    Attributes:
        network: whose modules are used.
        mean, std, channel_order: of the network's input.
        checkpointing: compute activations a second time instead of keeping them.
    """

    def __init__(
        self,
        network: Alocc,
        mean: Sequence[float],
        std: Sequence[float],
        channel_order: str,
        checkpointing: bool = False,
    ) -> None:
        self.network, self.checkpointing = network, checkpointing
        self._mean, self._std = torch.tensor(mean), torch.tensor(std)
        self._flip_channels = channel_order == "bgr"

    def __call__(
        self,
        frames: Sequence[TrainingFrame],
        memories: Sequence[TrainingMemory | None],
        phase: Phase,
    ) -> tuple[Prediction, list[TrainingMemory | None]]:
        """One step of every sample; a sample whose memory is None begins a sequence."""
        net, v = self.network, self.network.variant
        cameras = _together([f.cameras for f in frames])
        lifted = self._look(frames, cameras)
        image_logits, feature = self._seen(lifted.context, len(frames)), lifted.context
        if phase.only_images:
            return Prediction(lifted.depth, image_logits), [None] * len(frames)
        bins = torch.cat([f.depth_bins for f in frames])
        with _full_precision(feature):
            depth = with_true_depth(lifted.depth, bins, phase.depth_truth)
            volume = self._lift(lifted._replace(depth=depth), cameras, len(frames))
        if v.pre_process:
            volume = self._stage(net.pre_process, self._flat(volume)).reshape(volume.shape)
        motions = [_motion(f, m) for f, m in zip(frames, memories, strict=True)]
        histories = [(None, torch.zeros(0))] * len(frames)
        if v.history:
            with _full_precision(feature):
                groups, histories = self._remembered(volume.float(), memories, motions, phase)
            volume = self._stage(self._fuse, *groups, modules=self._fusion())
        levels = self._stage(net.img_bev_encoder_backbone, self._flat(volume))
        voxels = self._stage(
            self._voxels, *levels, modules=[net.img_bev_encoder_neck, *self._raising()]
        )
        embeddings = net.alocc_head.class_embeddings()[1:]
        logits = torch.bmm(embeddings.expand(len(voxels), -1, -1), voxels.flatten(2))
        logits = logits.unflatten(2, voxels.shape[2:])
        flow_cost, maps = None, [(None, None)] * len(frames)
        if v.flow:
            with _full_precision(feature):
                match, maps = self._match(voxels.detach().float(), frames, memories, motions, phase)
            flow_cost = self._stage(self._flow_cost, match, modules=[net.alocc_head])
        kept = [
            TrainingMemory(history, ages, bev, truth, f.cameras.augmentation, f.map_T_grid)
            for f, (history, ages), (bev, truth) in zip(frames, histories, maps, strict=True)
        ]
        return Prediction(lifted.depth, image_logits, logits, voxels, flow_cost), kept

    def flow_logits(
        self, prediction: Prediction, known: Tensor
    ) -> Tensor:  # [B, Z, Y, X] bool -> [M, FLOW_BINS, 2]
        """The velocity bins of the M voxels that are asked for. Velocities are known of few, and
        all 640 000 would take longer than the rest of the step.
        """
        head = self.network.alocc_head
        return few_flow_logits(
            prediction.flow_cost,
            prediction.voxels,
            known,
            head.flow_post_conv[0],
            head.flow_predicter,
        )

    # --- parts, in the order of the walk ------------------------------------------------------

    def _look(self, frames: Sequence[TrainingFrame], cameras: CameraGeometry) -> Lifted:
        """What the image networks make of all cameras of all samples."""
        net = self.network
        c2, c4, c5 = self._backbone(self._normalised([f.images for f in frames]))
        feature = self._stage(net.img_neck, c4, c5)
        cost = self._stereo(c2, frames, cameras) if net.variant.stereo else None
        # In single precision whatever the feature's: it holds focal lengths in pixels.
        vector = cameras.camera_vector().to(feature.device)
        return self._stage(net.depth_net, feature, vector, cost)

    def _normalised(self, images: Sequence[Tensor]) -> Tensor:  # [N, H, W, 3] each
        """As stream/images.py does; the channels' quirk is explained there."""
        pixels = torch.cat(list(images))
        if self._flip_channels:
            pixels = pixels.flip(-1)
        mean, std = self._mean.to(pixels.device), self._std.to(pixels.device)
        return ((pixels.float() - mean) * (1 / std)).permute(0, 3, 1, 2).contiguous()

    def _backbone(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Stage by stage, so that checkpointing never holds more than one."""
        net = self.network.img_backbone
        c2 = self._stage(net.first_stage, images, modules=[net.bn1, net.layer1])
        c4 = self._stage(net.layer3, self._stage(net.layer2, c2))
        return c2, c4, self._stage(net.layer4, c4)

    def _stereo(
        self, c2: Tensor, frames: Sequence[TrainingFrame], cameras: CameraGeometry
    ) -> Tensor:  # [B N, D, H/4, W/4]
        """Matching cost against the key frame before; without one all depths tie."""
        net, v = self.network.img_backbone, self.network.variant
        with torch.no_grad(), frozen_statistics([net]):
            before = net.first_stage(self._normalised([f.previous_images for f in frames])).float()
        with torch.no_grad(), _full_precision(c2):
            homography, offset = cameras.stereo_homography(v)
            cost = cost_volume(c2.detach().float(), before, homography, offset, depth_bins(v))
            known = torch.tensor([f.has_previous for f in frames], device=cost.device)
            known = known.repeat_interleave(len(cost) // len(frames))[:, None, None, None]
            return torch.where(known, cost, 1 / v.depth_bins)

    def _lift(self, lifted: Lifted, cameras: CameraGeometry, samples: int) -> Tensor:
        """[B, C, Y, X, Z] (Z = 1 for bird's-eye variants)."""
        net, parts = self.network, [None if t is None else t.float() for t in lifted]
        return lift(Lifted(*parts), cameras, net.variant, net.inter_index_max, samples=samples)

    def _remembered(
        self,
        volume: Tensor,  # [B, C, Y, X, Z]
        memories: Sequence[TrainingMemory | None],
        motions: Sequence[Tensor],
        phase: Phase,
    ) -> tuple[tuple[Tensor, Tensor], list[tuple[Tensor | None, Tensor]]]:
        """Present and warped slots [B, T + 1, C, Y, X, Z], their ages [B, T + 1], and what each
        sample keeps of them.
        """
        v = self.network.variant
        groups, ages, kept = [], [], []
        for current, memory, motion in zip(volume, memories, motions, strict=True):
            age = torch.zeros(v.history)
            past = current.detach().expand(v.history, *current.shape)
            if memory is not None:
                # In the temporal start there is a motion, but no history: copies are displaced.
                if memory.history is not None:
                    past, age = memory.history, memory.ages
                age = age + v.history_interval
                moved = index_motion(motion, v.grid.lower, v.lift_step, not v.volumetric)
                with torch.no_grad():
                    past = warp_twin(past.flatten(0, 1), moved).view(past.shape)
            groups += [current[None], past]
            ages.append(torch.cat([torch.zeros(1), age]))
        together = torch.cat(groups).unflatten(0, (len(volume), -1))
        for group, age in zip(together.detach(), ages, strict=True):
            kept.append((group[:-1].clone() if phase.temporal else None, age[:-1]))
        return (together, torch.stack(ages).to(volume)), kept

    def _fusion(self) -> list[nn.Module]:
        return [self.network.history_keyframe_time_conv, self.network.history_keyframe_cat_conv]

    def _fuse(self, groups: Tensor, ages: Tensor) -> Tensor:  # -> [B, C, Y, X, Z]
        """``ops.history.fuse_twin`` from the warped slots on."""
        time_conv, cat_conv = self._fusion()
        stamp = ages[:, :, None, None, None, None].expand(-1, -1, 1, *groups.shape[3:])
        x = self._flat(torch.cat([groups, stamp], 2))  # [B, T + 1, C + 1, ...]
        embedded = F.relu(time_conv(x.flatten(0, 1))).unflatten(0, groups.shape[:2])
        fused = F.relu(cat_conv(embedded.flatten(1, 2)))
        return fused if self.network.variant.volumetric else fused[..., None]

    def _raising(self) -> list[nn.Module]:
        return [] if self.network.variant.volumetric else [self.network.final_conv]

    def _voxels(self, *levels: Tensor) -> Tensor:  # -> [B, V, Z, Y, X]
        """Heights first, as the bird's-eye variants have them: putting them last, as inference
        does, would cost a copy here and another one of the gradient.
        """
        net = self.network
        merged = net.img_bev_encoder_neck(list(levels))
        if net.variant.volumetric:
            return merged.permute(0, 1, 4, 2, 3).contiguous()
        return net.final_conv(merged).unflatten(1, (-1, net.variant.grid.shape[2]))

    def _match(
        self,
        voxels: Tensor,  # [B, V, Z, Y, X]
        frames: Sequence[TrainingFrame],
        memories: Sequence[TrainingMemory | None],
        motions: Sequence[Tensor],
        phase: Phase,
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor | None]]]:
        """The flow head's match with the frame before [B, taps, Y/2, X/2], and its maps."""
        v, head = self.network.variant, self.network.alocc_head
        matches, maps = [], []
        for voxel, frame, memory, motion in zip(voxels, frames, memories, motions, strict=True):
            bev, truth = voxel[:, FLOW_SLICES].mean(1), None
            before = bev if memory is None else memory.flow_bev
            match = head.correlate(bev[None], before[None], motion, v)[0]
            if phase.flow_truth > 0:
                truth = occupancy_map(frame.labels, v.queries - 1, FLOW_SLICES)
                was = truth if memory is None or memory.truth is None else memory.truth
                true = head.correlate(truth[None], was[None], motion, v)[0]
                match = mixed_match(match, true, phase.flow_truth)
            matches.append(match)
            maps.append((bev, truth))
        return torch.stack(matches), maps

    def _flow_cost(self, match: Tensor) -> Tensor:  # [B, taps, Y/2, X/2] -> [B, 24, Y, X]
        cost = self.network.alocc_head.cost_volum_net(match)
        size = self.network.variant.grid.shape[1::-1]
        return F.interpolate(cost, size=size, mode="bilinear", align_corners=True)

    def _seen(self, context: Tensor, samples: int) -> Tensor:  # [B N, C, h, w] -> [B, Q, N, h, w]
        """Classes of pixels: the context that is lifted against image-plane embeddings."""
        head = self.network.alocc_head
        embeddings = head.mask_embed2(head.post_norm(head.query_feat.weight))[1:]
        return torch.einsum("qc,bnchw->bqnhw", embeddings, context.unflatten(0, (samples, -1)))

    def _flat(self, volume: Tensor) -> Tensor:
        return volume if self.network.variant.volumetric else volume[..., 0]

    def _stage(
        self, function: Callable, *inputs: Tensor | None, modules: Sequence[nn.Module] | None = None
    ) -> Tensor:
        """``function`` of the inputs, kept or computed again for the gradient."""
        if not (self.checkpointing and torch.is_grad_enabled()):
            return function(*inputs)
        norms = [function] if modules is None else modules
        again = partial(lambda n: (nullcontext(), frozen_statistics(n)), norms)
        return checkpoint(function, *inputs, use_reentrant=False, context_fn=again)


def _together(cameras: Sequence[CameraGeometry]) -> CameraGeometry:
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


def _motion(frame: TrainingFrame, memory: TrainingMemory | None) -> Tensor:  # [4, 4] float64
    """Mirrored grid now -> mirrored grid of the frame before."""
    if memory is None:
        return torch.eye(4, dtype=torch.float64)
    moved = torch.linalg.solve(memory.map_T_grid, frame.map_T_grid)
    return (
        _whole(memory.augmentation) @ moved @ torch.linalg.inv(_whole(frame.cameras.augmentation))
    )


def _whole(linear: Tensor) -> Tensor:  # [3, 3] -> [4, 4]
    whole = torch.eye(4, dtype=linear.dtype)
    whole[:3, :3] = linear
    return whole


def _full_precision(like: Tensor) -> torch.autocast:
    """Geometry, sums over many terms and what is remembered never run in half precision."""
    return torch.autocast(like.device.type, enabled=False)
