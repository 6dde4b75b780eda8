# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Frames and memories in, losses out: the module that is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from alocc_ros.network.model import Alocc
from alocc_ros.records import ModelRecord
from alocc_ros.training.config import TrainingConfig
from alocc_ros.training.forward import SlotMemory, TrainingForward, TrainingPrediction
from alocc_ros.training.losses import (
    ClassBalance,
    PointSampling,
    class_entropy,
    dead_classes,
    depth_loss,
    flow_losses,
    jaccard_loss,
    mask_losses,
)
from alocc_ros.training.randomness import torch_random
from alocc_ros.training.samples import TrainingFrame
from alocc_ros.training.schedule import Phase
from alocc_ros.training.stripes import StripeForward

_VOXELS, _PIXELS = 3, 4  # purposes of the random numbers, see randomness.py


class TrainingStep(nn.Module):
    """A network and its losses as one module, so that DistributedDataParallel sees all of it.

    Attributes:
        network: what is trained.
        watching: look for dead classes at the next call.
        dead: the classes of which that call found nothing anywhere, though the labels have them.
    """

    def __init__(
        self, network: Alocc, record: ModelRecord, balance: ClassBalance, config: TrainingConfig
    ) -> None:
        super().__init__()
        self.network = network
        self.watching, self.dead = False, set[int]()
        self._config, self._balance = config, balance
        pixels = (record.mean, record.std, record.channel_order)
        # One of them: each wraps the network's stages.
        if config.volumes or config.crop_rows:
            stripe = {"rows": config.crop_rows, "seed": config.seed}
            self._forward = StripeForward(network, *pixels, config.checkpointing, **stripe)
        else:
            self._forward = TrainingForward(network, *pixels, config.checkpointing)

    def forward(
        self,
        frames: Sequence[TrainingFrame],
        memories: Sequence[SlotMemory | None],
        phase: Phase,
    ) -> tuple[dict[str, Tensor], list[SlotMemory | None]]:
        """Weighted losses by name; their sum is what is minimised."""
        device = frames[0].images.device
        precision = torch.autocast(
            device.type, torch.bfloat16, enabled=self._config.precision == "bf16"
        )
        with precision:
            prediction, memories = self._forward(frames, memories, phase)
            frames = _looked_at(frames, prediction.rows)
            velocities = self._velocities(prediction, frames)
        with torch.autocast(device.type, enabled=False):
            losses = self._losses(prediction, frames)
            if velocities is not None:
                bins, error, angle = flow_losses(*velocities)
                losses["flow_bin"] = self._config.flow_bin_weight * bins
                losses["flow"] = self._config.flow_weight * error
                losses["flow_angle"] = self._config.flow_angle_weight * angle
        return losses, memories

    def _losses(
        self, prediction: TrainingPrediction, frames: Sequence[TrainingFrame]
    ) -> dict[str, Tensor]:
        c, random = self._config, self._random
        losses: dict[str, Tensor] = {}
        if prediction.logits is not None:
            voxel_logits = list(prediction.logits.flatten(2))
            # Heights first, as the logits are.
            voxel_labels = [f.labels.permute(2, 0, 1).flatten() for f in frames]
            self.dead = set()
            if self.watching:
                self.dead = set(dead_classes(voxel_logits, voxel_labels))
            if c.mask_weight > 0 or c.dice_weight > 0:
                mask, dice = mask_losses(
                    voxel_logits,
                    voxel_labels,
                    self._balance,
                    PointSampling(c.voxel_points),
                    [random(f, _VOXELS) for f in frames],
                    absent=c.absent_classes,
                )
                losses |= {"mask": c.mask_weight * mask, "dice": c.dice_weight * dice}
            if c.entropy_weight > 0:
                losses["entropy"] = c.entropy_weight * class_entropy(
                    voxel_logits, voxel_labels, self._balance.entropy
                )
            if c.jaccard_weight > 0:
                losses["jaccard"] = c.jaccard_weight * jaccard_loss(voxel_logits, voxel_labels)
        if prediction.image_logits is None:
            return losses
        pixel_logits = list(prediction.image_logits.flatten(2))
        pixel_labels = [f.image_labels.flatten() for f in frames]
        image_mask, image_dice = mask_losses(
            pixel_logits,
            pixel_labels,
            self._balance,
            PointSampling(c.image_points),
            [random(f, _PIXELS) for f in frames],
        )
        if c.image_entropy_weight > 0:
            losses["image_entropy"] = c.image_entropy_weight * class_entropy(
                pixel_logits, pixel_labels, self._balance.entropy
            )
        bins = torch.cat([f.depth_bins for f in frames])
        return losses | {
            "image_mask": c.image_weight * c.mask_weight * image_mask,
            "image_dice": c.image_weight * c.dice_weight * image_dice,
            "depth": c.depth_weight * depth_loss(prediction.depth, bins),
        }

    def _velocities(
        self, prediction: TrainingPrediction, frames: Sequence[TrainingFrame]
    ) -> tuple[Tensor, Tensor] | None:  # [M, bins, 2], [M, 2] m/s
        """Velocity bins and true velocities of all voxels whose velocity is known."""
        if prediction.flow_cost is None:
            return None
        flow = torch.stack([f.flow for f in frames])  # [B, Y, X, Z, 2]
        known = flow.isfinite().all(-1)
        # In the order of the logits, heights first.
        rising = flow.permute(0, 3, 1, 2, 4)
        return self._forward.flow_logits(prediction, known), rising[known.permute(0, 3, 1, 2)]

    def _random(self, frame: TrainingFrame, purpose: int) -> torch.Generator:
        visit = frame.visit
        return torch_random(frame.images.device, self._config.seed, purpose, visit.step, visit.slot)


def _looked_at(
    frames: Sequence[TrainingFrame], rows: Sequence[slice] | None
) -> Sequence[TrainingFrame]:
    """The frames with the truth of these rows only."""
    if rows is None:
        return frames
    return [
        replace(f, labels=f.labels[r], flow=None if f.flow is None else f.flow[r])
        for f, r in zip(frames, rows, strict=True)
    ]
