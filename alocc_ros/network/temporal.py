# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Temporal fusion of the lifted volume with the remembered ones (paper 3.4; docs/network.md
section 8).

Two forms of one fusion. ``HistoryFusion`` remembers the lifted features themselves, as the paper
writes it and as training needs it. ``ProjectedHistoryFusion``, its prepared form, remembers them
already multiplied by the time convolution's weights (ops/history says why that is the same): such a
state fits only the weights that made it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from alocc_ros.errors import TemporalMemoryError
from alocc_ros.network.plan import PlanTensors
from alocc_ros.network.state import State
from alocc_ros.network.variants import Variant
from alocc_ros.ops.conv import FoldedConv, conv_bn
from alocc_ros.ops.history import fuse_history, warp

Fused = tuple[Tensor, State]  # volume [B, C, Y, X, Z]; the parts of the new state that are fusion's
Shapes = dict[str, tuple[int, ...]]  # by name of the state's part


class NoFusion(nn.Module):
    """Of variants that look at one frame at a time."""

    def shapes(self, samples: int) -> Shapes:
        """There is no history."""
        return {}

    def forward(
        self, volume: Tensor, state: State | None, plan: PlanTensors, out: State, keyframe: bool
    ) -> Fused:
        return volume, State()


class Warp(nn.Module):
    """Resampling of [B, C, Y, X, Z] by [B, 3, 4]; a module so that it can be watched."""

    def forward(self, volume: Tensor, motion: Tensor) -> Tensor:
        return warp(volume, motion)


class HistoryFusion(nn.Module):
    """Warp all slots by one step, append their age, convolve, concatenate, convolve.

    The whole buffer is warped and stored so: a slot k key frames old has been resampled k times,
    which is what the weights have seen. History: [B, T, C, Y, X, Z], newest first.
    """

    def __init__(self, variant: Variant, time_conv: nn.Sequential, cat_conv: nn.Sequential) -> None:
        super().__init__()
        # A tuple, so that the modules keep the one name that the state_dict has for them.
        self._convs = (time_conv, cat_conv)
        self._variant = variant
        self.warp = Warp()

    def shapes(self, samples: int) -> Shapes:
        """Of the state of so many streams."""
        x, y, z = self._variant.lift_cells
        return {
            "history": (samples, self._variant.history, self._variant.context_channels, y, x, z)
        }

    def forward(
        self,
        volume: Tensor,  # [B, C, Y, X, Z]
        state: State | None,  # None: every slot is a copy of the present
        plan: PlanTensors,
        out: State,  # its history, if there is one, is overwritten with the new one
        keyframe: bool,
    ) -> Fused:
        slots, history = self._variant.history, None if state is None else state.history
        copies = volume.detach()[:, None].expand(-1, slots, -1, -1, -1, -1)
        past = copies
        if history is not None:
            _check(history, self.shapes(len(volume))["history"], self._variant)
            past = history
            if plan.has_history is not None:
                past = torch.where(plan.has_history.view(-1, 1, 1, 1, 1, 1), history, copies)
        warped = self.warp(past.flatten(1, 2), plan.motion).unflatten(1, (slots, -1))
        groups = torch.cat([volume[:, None], warped], 1)  # [B, T + 1, C, Y, X, Z]
        fused = self.merge(groups, plan.ages)
        if not keyframe:
            return fused, State(history)
        new = groups[:, :-1].detach()
        return fused, State(new.clone() if out.history is None else out.history.copy_(new))

    def merge(self, groups: Tensor, ages: Tensor) -> Tensor:  # -> [B, C, Y, X, Z]
        """Present and warped slots to one volume."""
        time_conv, cat_conv = self._convs
        stamp = ages[:, :, None, None, None, None].expand(-1, -1, 1, *groups.shape[3:])
        x = torch.cat([groups, stamp.to(groups.dtype)], 2)
        planar = not self._variant.volumetric
        x = x[..., 0] if planar else x
        timed = conv_bn(x.flatten(0, 1), *time_conv, relu=True).unflatten(0, groups.shape[:2])
        fused = conv_bn(timed.flatten(1, 2), *cat_conv, relu=True)
        return fused[..., None] if planar else fused


class ProjectedHistoryFusion(nn.Module):
    """The same on projected features: each is multiplied once in its life instead of once a frame,
    and the age of each slot is only a bias. History: [B, Y, X, Z, T * C], newest first.
    """

    def __init__(self, variant: Variant, time_conv: FoldedConv, cat_conv: FoldedConv) -> None:
        super().__init__()
        c = variant.context_channels
        self._variant, self.operator = variant, fuse_history
        weight = time_conv.weight.reshape(c, -1)  # [C, C + 1], the time comes last
        matrix = cat_conv.weight.reshape(c, -1)
        for name, value in (
            ("projection", weight[:, :c].T),
            ("per_second", weight[:, c]),
            ("bias", time_conv.bias),
            ("matrix", matrix.T.contiguous()),
            # Equal groups times different matrices is one group times the sum of the matrices.
            ("first_matrix", matrix.unflatten(1, (-1, c)).sum(1).T),
            ("offset", cat_conv.bias),
        ):
            self.register_buffer(name, value.detach(), persistent=False)

    def shapes(self, samples: int) -> Shapes:
        """Of the state of so many streams."""
        x, y, z = self._variant.lift_cells
        width = self._variant.history * self._variant.context_channels
        return {"history": (samples, y, x, z, width)}

    def forward(
        self, volume: Tensor, state: State | None, plan: PlanTensors, out: State, keyframe: bool
    ) -> Fused:
        """See ``HistoryFusion``."""
        history, new = None if state is None else state.history, out.history
        rows = volume.permute(0, 2, 3, 4, 1) @ self.projection
        if history is None:
            timed = torch.relu(rows + self.bias).to(rows.dtype)
            fused = torch.relu(timed @ self.first_matrix + self.offset).to(rows.dtype)
            if new is None:
                new = rows.repeat(1, 1, 1, 1, self._variant.history)
            else:
                slots = new.unflatten(4, (self._variant.history, -1))
                slots.copy_(rows[..., None, :].expand_as(slots))
            return fused.permute(0, 4, 1, 2, 3), State(new)
        _check(history, self.shapes(len(volume))["history"], self._variant)
        if not keyframe:
            new = history
        elif new is None:
            new = torch.empty_like(history)
        bias = torch.addcmul(self.bias, plan.ages[..., None], self.per_second).flatten(1)
        fused = self.operator(
            rows, history, bias, plan.motion, self.matrix, self.offset, new if keyframe else None
        )
        return fused.permute(0, 4, 1, 2, 3), State(new)


def _check(history: Tensor, shape: tuple[int, ...], variant: Variant) -> None:
    if tuple(history.shape) != shape:
        raise TemporalMemoryError(
            f"{variant.name} remembers {list(shape)}, the state holds {list(history.shape)}"
        )
