# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Geometry from key frame to key frame: where surfaces were, between depth network and lifting
(GDFusion, arXiv 2504.12959; docs/network.md section 8b).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from alocc_ros.network.depth import DepthNet, DepthPrediction, gate_logit
from alocc_ros.network.plan import PlanTensors
from alocc_ros.network.state import State, check_part, stored
from alocc_ros.network.variants import Variant
from alocc_ros.ops.recurrent import warp_frustum

Bins = tuple[Tensor, float] | None  # measured depth bins [B * N, h, w], and their share


class NoGeometryFusion(nn.Module):
    """Of variants that look at the geometry of the present only."""

    def shapes(self, samples: int, cameras: int) -> dict[str, tuple[int, ...]]:
        """Nothing is remembered."""
        return {}

    def forward(
        self,
        prediction: DepthPrediction,
        state: State | None,
        plan: PlanTensors,
        out: State,
        keyframe: bool,
        measured: Bins,
        truth: Bins,
    ) -> tuple[DepthPrediction, Tensor | None, Bins]:
        return prediction, None, measured or truth


class FrustumWarp(nn.Module):
    """Resampling of [N, D, h, w] from one camera's frustum to another's; a module so that it can be
    watched.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.operator = warp_frustum
        self._depths = (float(variant.depth_range[0]), float(variant.depth_step))

    def forward(self, values: Tensor, homography: Tensor, offset: Tensor) -> Tensor:
        return self.operator(values, homography, offset, *self._depths)


class LogitsMix(nn.Module):
    """Remembered logits that were moved to the present and those of now, by a gate."""

    def __init__(self, depth_net: DepthNet) -> None:
        super().__init__()
        # A tuple, so that the module keeps the one name that the state_dict has for it.
        self._gates = (depth_net.depth_his_fusion_post_layer.gate_net,)

    def forward(
        self,
        warped: Tensor,  # [N, D, h, w]
        logits: Tensor,  # [N, D, h, w], of the network
        known: Tensor,  # [N, D, h, w], the same or what a LiDAR says in their place
    ) -> tuple[Tensor, Tensor]:
        """What is gone on with, and what is remembered."""
        gate = torch.sigmoid(gate_logit(self._gates[0], torch.cat([warped, logits], 1)))
        # BUG-COMPAT: what is outside is told by the value, bin by bin: an exact 0 is outside.
        seen = warped != 0
        fused = torch.where(seen, gate * warped + (1 - gate) * logits, logits)
        if known is logits:
            return fused, fused
        return fused, torch.where(seen, gate * warped + (1 - gate) * known, known)


class GeometryFusion(nn.Module):
    """Remembered logits of where surfaces are, moved to the present and mixed with those of now."""

    def __init__(self, variant: Variant, depth_net: DepthNet) -> None:
        super().__init__()
        self._variant = variant
        self.warp, self.mix = FrustumWarp(variant), LogitsMix(depth_net)

    def shapes(self, samples: int, cameras: int) -> dict[str, tuple[int, ...]]:
        """Of the state of so many streams."""
        v = self._variant
        return {"geometry": (samples * cameras, v.depth_bins, *v.feature_size)}

    def forward(
        self,
        prediction: DepthPrediction,
        state: State | None,
        plan: PlanTensors,
        out: State,
        keyframe: bool,
        measured: Bins,  # by LiDAR, for networks that were trained with it
        truth: Bins,  # of training, mixed in before anything else
    ) -> tuple[DepthPrediction, Tensor | None, Bins]:
        """The prediction with fused logits, the new state, and what is still to be mixed in before
        intra-object lifting.

        A LiDAR's depth stands in the state for the network's own, but the gates of the present do
        not see it.
        """
        logits = prediction.history
        known = logits if measured is None else surface(logits, measured[0])
        fused, kept = logits, known
        if state is not None:
            previous = state.geometry
            check_part(previous, logits.shape, self._variant.name, "logits")
            warped = self.warp(previous, plan.key_homography, plan.key_offset)
            if plan.has_history is not None:
                cameras = len(warped) // len(plan.has_history)
                begun = plan.has_history.repeat_interleave(cameras, output_size=len(warped))
                warped = warped.masked_fill(~begun.view(-1, 1, 1, 1), 0.0)
            fused, kept = self.mix(warped, logits, known)
        prediction = prediction._replace(
            history=fused, surface=None if measured is None else measured[0]
        )
        if not keyframe:
            return prediction, None if state is None else state.geometry, truth
        return prediction, stored(kept, out.geometry), truth


class GeometryMix(nn.Module):
    """The geometry of now and the remembered one, by a gate; what is lifted."""

    def __init__(self, depth_net: DepthNet) -> None:
        super().__init__()
        self._gates = (depth_net.gate_net,)

    def forward(
        self,
        geometry: Tensor,  # [N, D, h, w], after intra-object lifting
        prediction: DepthPrediction,
    ) -> Tensor:
        remembered = torch.softmax(prediction.history, 1)
        gate = torch.sigmoid(gate_logit(self._gates[0], torch.cat([remembered, geometry], 1)))
        if prediction.surface is not None:
            geometry = surface(geometry, prediction.surface)
        return gate * remembered + (1 - gate) * geometry


def surface(values: Tensor, bins: Tensor) -> Tensor:  # [N, D, h, w], [N, h, w] -> [N, D, h, w]
    """One in the measured bin and zero in the others, where something was measured."""
    every = torch.arange(values.shape[1], device=bins.device)[:, None, None]
    return torch.where((bins >= 0)[:, None], (bins[:, None] == every).to(values), values)
