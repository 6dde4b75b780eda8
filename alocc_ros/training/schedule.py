# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What changes with the step: learning rate, denoising, temporal start."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def learning_rate_schedule(
    optimiser: Optimizer,
    base: float,
    warmup_steps: int,
    warmup_ratio: float,
    cosine: bool,
    total_steps: int,
    step: int = 0,
) -> LambdaLR:
    """Linear warm-up, then constant; or a cosine down to zero.

    The rate is a function of the step alone, so a resumed run needs no state of the scheduler and
    may have another number of steps.

    Args:
        optimiser: whose rates are set: now for ``step``, and by each ``step()`` for the next one.
        base: rate after the warm-up.
        warmup_steps: length of the warm-up.
        warmup_ratio: the first rate, as a fraction of ``base``.
        cosine: fall to zero at ``total_steps``. The reference stays constant.
        total_steps: of the run.
        step: to begin with.
    """

    def factor(step: int) -> float:
        if step < warmup_steps:
            return warmup_ratio + (1 - warmup_ratio) * (step / warmup_steps)
        return falling_cosine(step, warmup_steps, total_steps) if cosine else 1.0

    for group in optimiser.param_groups:  # checkpoints of before the scheduler lack it
        group["initial_lr"] = base
    return LambdaLR(optimiser, factor, last_epoch=step - 1)


@dataclass(frozen=True)
class Phase:
    """What is special about a step.

    Attributes:
        depth_truth: share of the measured depth in the depth that is lifted.
        flow_truth: share of the true occupancy in what the flow head matches.
        temporal: the history is kept from frame to frame.
        only_images: nothing is lifted: depth and classes of pixels are all that is learned.
    """

    depth_truth: float
    flow_truth: float
    temporal: bool
    only_images: bool = False


@dataclass(frozen=True)
class Phases:
    """When the helps of the beginning end, in steps.

    Attributes:
        temporal_start: until then every frame is alone with copies of itself for a history.
        depth_end: the measured depth fades out until then.
        flow_start, flow_end: the true occupancy fades out between them.
        image_steps: before all of them, only the image networks learn.
    """

    temporal_start: int
    depth_end: int
    flow_start: int
    flow_end: int
    image_steps: int = 0

    def at(self, step: int) -> Phase:
        """The phase of that step."""
        only_images, step = step < self.image_steps, max(step - self.image_steps, 0)
        return Phase(
            only_images=only_images,
            depth_truth=falling_cosine(step, 0, self.depth_end),
            flow_truth=falling_cosine(step, self.flow_start, self.flow_end),
            temporal=step >= self.temporal_start,
        )


def falling_cosine(step: int, start: int, end: int) -> float:
    """1 until ``start``, 0 from ``end`` on, half a cosine between."""
    if step >= end:
        return 0.0
    if step <= start:
        return 1.0
    return (1 + math.cos(math.pi * (step - start) / (end - start))) / 2
