# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Occupancy and flow heads (paper sections 3.3 and 3.5; spec sections 10 and 11)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alocc_ros.network.observe import observe
from alocc_ros.network.variants import Variant
from alocc_ros.ops.conv import conv_bn
from alocc_ros.ops.correlation import TAPS, correlation
from alocc_ros.ops.flow import FLOW_BINS, decode_flow
from alocc_ros.ops.history import index_motion, warp_twin

# The flow head's bird's-eye map: mean of the voxel slices z = 3..8 (0.2 to 2.6 m).
FLOW_SLICES = slice(3, 9)
_FLOW_COST_CHANNELS = 24


class AloccHead(nn.Module):
    """Class prototypes against voxel features; optionally flow.

    There is no decoder: each class is one embedding, so the logits of all classes are one matrix
    product with constants. Query 0 is a noise slot, dropped before labels.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        width = variant.voxel_channels
        self.query_feat = nn.Embedding(variant.queries, width)
        self.post_norm = nn.LayerNorm(width)
        self.mask_embed = _mlp(width, width)
        # Only the image-semantics loss of training uses this one.
        self.mask_embed2 = _mlp(width, variant.context_channels)
        if variant.flow:
            inputs = width + _FLOW_COST_CHANNELS
            # "volum" is how the official state_dict spells it.
            self.cost_volum_net = nn.Sequential(
                nn.Conv2d(TAPS * TAPS, _FLOW_COST_CHANNELS, 3, padding=1),
                nn.BatchNorm2d(_FLOW_COST_CHANNELS),
            )
            self.flow_post_conv = nn.Sequential(nn.Conv3d(inputs, width, 3, padding=1), nn.ReLU())
            self.flow_predicter = nn.Sequential(
                nn.Conv3d(width, 2 * width, 1), nn.ReLU(), nn.Conv3d(2 * width, 2 * FLOW_BINS, 1)
            )

    def class_embeddings(self) -> Tensor:  # [Q, V]
        """What a voxel feature is compared with."""
        embeddings = self.mask_embed(self.post_norm(self.query_feat.weight))
        observe("head/mask_embed", lambda: embeddings[None])
        return embeddings

    def forward(self, voxels: Tensor) -> Tensor:  # [1, V, Y, X, Z] -> [Y, X, Z, Q - 1]
        """Logits of the benchmark's classes, channels last."""
        embeddings = self.class_embeddings()
        observe("head/occ_logits", lambda: torch.einsum("qc,bcyxz->bqyxz", embeddings, voxels))
        return voxels[0].permute(1, 2, 3, 0) @ embeddings[1:].T

    def flow(
        self,
        voxels: Tensor,  # [1, V, Y, X, Z]
        previous: Tensor | None,  # [1, V, Y, X] bird's-eye map of the previous key frame
        previous_T_current: Tensor,  # [4, 4] metres
        variant: Variant,
        where: Tensor | None = None,  # [Y, X, Z] bool; elsewhere the velocity is 0
    ) -> tuple[Tensor, Tensor]:
        """Velocity of every voxel, and the bird's-eye map to remember.

        Returns:
            flow [Y, X, Z, 2] m/s, components (along Y, along X); map [1, V, Y, X].
        """
        # Over rows of channels, the order in which voxels lie in memory: ten times faster.
        rows = voxels.permute(0, 2, 3, 4, 1)
        bev = rows[:, :, :, FLOW_SLICES].mean(3).permute(0, 3, 1, 2)
        cost = self._match(bev, bev if previous is None else previous, previous_T_current, variant)
        cost = F.interpolate(cost, size=bev.shape[2:], mode="bilinear", align_corners=True)
        flow = decode_flow(cost, voxels, self.flow_post_conv[0], self.flow_predicter, where)
        observe("head/flow", lambda: flow[None])
        return flow, bev.detach()

    @staticmethod
    @torch.no_grad()
    def correlate(
        bev: Tensor,  # [1, C, Y, X]
        previous: Tensor,  # [1, C, Y, X]
        previous_T_current: Tensor,
        variant: Variant,
    ) -> Tensor:  # [1, TAPS * TAPS, Y/2, X/2]
        """How alike each place now and the places around it before are."""
        r = variant.grid.resolution
        motion = index_motion(previous_T_current, variant.grid.lower, (r, r, r), planar=True)
        warped = warp_twin(previous[0, ..., None], motion)[None, ..., 0]
        observe("flow/history_bev_warped", warped)
        half = [s // 2 for s in bev.shape[2:]]
        maps = torch.cat([bev, warped])
        maps = F.interpolate(maps, size=half, mode="bilinear", align_corners=True)
        return correlation(maps[0], maps[1])[None]

    def _match(
        self, bev: Tensor, previous: Tensor, previous_T_current: Tensor, variant: Variant
    ) -> Tensor:  # [1, 24, Y/2, X/2]
        cost = self.correlate(bev, previous, previous_T_current, variant)
        observe("flow/cost_volume_softmax", cost)
        cost = conv_bn(cost, *self.cost_volum_net)
        observe("flow/cost_volume_net", cost)
        return cost


def _mlp(width: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, out),
    )
