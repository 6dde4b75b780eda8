# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Training's forward on a stripe of the grid, from images or from lifted volumes.

History is fused over the whole grid and without gradients, as always; what comes after may be
computed on some of its rows, whose place stays the same on the ground for as long as a sequence
lasts (up to the vehicle's own motion), so the flow head finds where things were. A test holds the
whole grid against ``TrainingForward``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from alocc_ros.errors import ParameterError
from alocc_ros.network.depth import DepthPrediction
from alocc_ros.network.heads import mix_true_match
from alocc_ros.network.model import Alocc
from alocc_ros.network.plan import PlanTensors
from alocc_ros.network.state import State
from alocc_ros.network.variants import Variant
from alocc_ros.training.forward import (
    SlotMemory,
    TrainingForward,
    TrainingPrediction,
    grid_motion,
)
from alocc_ros.training.losses import present_classes
from alocc_ros.training.randomness import torch_random
from alocc_ros.training.samples import TrainingFrame
from alocc_ros.training.schedule import Phase

_ROWS = 6  # purpose of the random numbers, see randomness.py


class StripeForward(TrainingForward):
    """Runs a network on rows of the grid; frames that come with a volume are not looked at.

    Attributes:
        rows: of the grid (along y) that are learned at once; 0: all.
        seed: decides which.
    """

    def __init__(self, network: Alocc, *inputs: Any, rows: int = 0, seed: int = 0) -> None:
        """``inputs`` are those of ``TrainingForward``."""
        super().__init__(network, *inputs)
        self.rows, self.seed = rows, seed

    def __call__(
        self,
        frames: Sequence[TrainingFrame],
        memories: Sequence[SlotMemory | None],
        phase: Phase,
    ) -> tuple[TrainingPrediction, list[SlotMemory | None]]:
        """One step of every sample; a sample whose memory is None begins a sequence."""
        if phase.only_images:
            return super().__call__(frames, memories, phase)
        network, v, device = self.network, self.network.variant, frames[0].images.device
        motions = [grid_motion(f, m) for f, m in zip(frames, memories, strict=True)]
        plan, ages = self._plan(frames, memories, motions, device)
        state = self._remembered(State(), memories, len(plan.rays) // len(frames), device)
        match, truths = self._true_match(frames, memories, plan, phase)
        depth, volume = self._volumes(frames, plan, phase)
        volume = network.pre_process(network.planes(volume)).view(volume.shape)
        groups, history = network.fusion.groups(volume, state, plan)
        size = self.rows or v.grid.shape[1]
        firsts = [self._first(f, m, size) for f, m in zip(frames, memories, strict=True)]
        rows = [_rows(f, first, size) for f, first in zip(frames, firsts, strict=True)]
        groups = torch.stack([g[:, :, r] for g, r in zip(groups, rows, strict=True)])
        fused = network.fusion.merge(groups, plan.ages)
        levels = network.img_bev_encoder_backbone(network.planes(fused))
        classified = network.classify(network.img_bev_encoder_neck(levels))
        flow_cost = bev = None
        if v.flow:
            bev = _spread(network.flow_map(classified.voxels), rows, v.grid.shape[1])
            found = network.flow_match(
                bev, network.previous_map(bev, plan, state), plan.flow_motion
            )
            if match is not None:
                found = mix_true_match(found, match, phase.flow_truth)
            cost = network.flow_cost(found)
            flow_cost = torch.stack([c[:, r] for c, r in zip(cost, rows, strict=True)])
        kept = [
            SlotMemory(
                history=history[b] if phase.temporal else None,
                ages=ages[b],
                flow_bev=None if bev is None else bev[b],
                truth=truths[b],
                augmentation=frame.cameras.augmentation,
                map_T_grid=frame.map_T_grid,
                post_rotation=frame.cameras.post_rotation,
                post_translation=frame.cameras.post_translation,
                first_row=torch.tensor(firsts[b]),
            )
            for b, frame in enumerate(frames)
        ]
        return (
            TrainingPrediction(
                None if depth is None else depth.depth,
                None if depth is None else self._image_logits(depth.context, frames),
                classified.logits.permute(0, 4, 3, 1, 2),
                classified.voxels,
                flow_cost,
                rows,
            ),
            kept,
        )

    def _volumes(
        self, frames: Sequence[TrainingFrame], plan: PlanTensors, phase: Phase
    ) -> tuple[DepthPrediction | None, Tensor]:  # [B, C, Y, X, Z]
        """What is lifted of images, or was before; then nothing is known of their depth."""
        if all(f.volume is not None for f in frames):
            return None, torch.stack([f.volume.float() for f in frames])
        images = self._normalised([f.images for f in frames])
        depth, _ = self.network.encode_images(images, plan, State(stereo=self._stereo(frames)))
        known = None
        if phase.depth_truth > 0:
            known = torch.cat([f.depth_bins for f in frames]), phase.depth_truth
        return depth, self.network.lift(depth, plan, None, known)

    def _first(self, frame: TrainingFrame, memory: SlotMemory | None, size: int) -> int:
        """The first row, as the grid is when it is not mirrored. Where a sequence begins, a class
        that it begins with is drawn, and one of its voxels comes into the middle: what is rare is
        looked at as often as the road.
        """
        if memory is not None and memory.first_row is not None:
            return int(memory.first_row)
        labels = frame.labels.cpu()
        here = present_classes(labels.flatten())
        here = here[here < self.network.variant.classes.free]
        if size == len(labels) or not len(here):
            return (len(labels) - size) // 2
        random = torch_random(torch.device("cpu"), self.seed, _ROWS, *frame.visit[:2])
        label = here[torch.randint(len(here), (), generator=random)]
        places = (labels == label).nonzero()[:, 0]
        middle = int(places[torch.randint(len(places), (), generator=random)])
        first = min(max(middle - size // 2, 0), len(labels) - size)
        return len(labels) - size - first if _mirrored(frame) else first


def check_stripes(variant: Variant) -> None:
    """Whether a network can be trained on rows of its grid.

    Raises:
        ParameterError: it cannot.
    """
    if variant.recurrent or not variant.history:
        raise ParameterError(
            f"crop_rows: {variant.name} has no history of lifted volumes; --set crop_rows=0"
        )


def _mirrored(frame: TrainingFrame) -> bool:
    """Left with right."""
    return bool(frame.cameras.augmentation[1, 1] < 0)


def _rows(frame: TrainingFrame, first: int, size: int) -> slice:
    """The rows of the frame's grid, mirrored or not."""
    count = len(frame.labels)
    first = count - size - first if _mirrored(frame) else first
    return slice(first, first + size)


def _spread(maps: Tensor, rows: Sequence[slice], count: int) -> Tensor:  # [B, V, y, X] -> Y
    """Maps of the whole grid, 0 where nothing was computed."""
    return torch.stack(
        [F.pad(m, (0, 0, r.start, count - r.stop)) for m, r in zip(maps, rows, strict=True)]
    )
