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
from alocc_ros.ops.history import add_present, fuse_history, remembered_sum, warp

Fused = tuple[Tensor, State]  # volume [B, C, Y, X, Z]; the parts of the new state that are fusion's
Shapes = dict[str, tuple[int, ...]]  # by name of the state's part


class Fusion(nn.Module):
    """What every form has; see ``HistoryFusion`` for the arguments.

    Attributes:
        form: of what is remembered; states of one form can be exchanged.
        recalls: whether ``recall`` does anything.
    """

    form, recalls = "", False

    def recall(
        self, state: State | None, plan: PlanTensors, out: State, keyframe: bool
    ) -> Tensor | None:
        """The part that needs no image, which may be done before these are there; given to
        ``forward``. None: there is none.
        """
        return None


class NoFusion(Fusion):
    """Of variants that look at one frame at a time."""

    form = "NoFusion"

    def shapes(self, samples: int) -> Shapes:
        """There is no history."""
        return {}

    def forward(
        self,
        volume: Tensor,
        recalled: Tensor | None,
        state: State | None,
        plan: PlanTensors,
        out: State,
        keyframe: bool,
    ) -> Fused:
        return volume, State()


class Warp(nn.Module):
    """Resampling of [B, C, Y, X, Z] by [B, 3, 4]; a module so that it can be watched."""

    def forward(self, volume: Tensor, motion: Tensor) -> Tensor:
        return warp(volume, motion)


class HistoryFusion(Fusion):
    """Warp all slots by one step, append their age, convolve, concatenate, convolve.

    The whole buffer is warped and stored so: a slot k key frames old has been resampled k times,
    which is what the weights have seen. History: [B, T, C, Y, X, Z], newest first.
    """

    form = "HistoryFusion"

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
        recalled: Tensor | None,  # what ``recall`` returned for this frame
        state: State | None,  # None: every slot is a copy of the present
        plan: PlanTensors,
        out: State,  # its history, if there is one, is overwritten with the new one
        keyframe: bool,
    ) -> Fused:
        history = None if state is None else state.history
        groups, new = self.groups(volume, state, plan)
        fused = self.merge(groups, plan.ages)
        if not keyframe:
            return fused, State(history)
        return fused, State(new.clone() if out.history is None else out.history.copy_(new))

    def groups(
        self, volume: Tensor, state: State | None, plan: PlanTensors
    ) -> tuple[Tensor, Tensor]:  # [B, T + 1, C, Y, X, Z]; [B, T, ...], a view
        """Present and moved slots, and those of them that a key frame leaves as the new history."""
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
        return groups, groups[:, :-1].detach()

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


class ProjectedHistoryFusion(Fusion):
    """The same on projected features: each is multiplied once in its life instead of once a frame,
    and the age of each slot is only a bias. History: [B, Y, X, Z, T * C], newest first.
    """

    form = "ProjectedHistoryFusion"

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
        self,
        volume: Tensor,
        recalled: Tensor | None,
        state: State | None,
        plan: PlanTensors,
        out: State,
        keyframe: bool,
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
        fused = self.fuse(rows, recalled, history, plan, new if keyframe else None)
        return fused.permute(0, 4, 1, 2, 3), State(new)

    def fuse(
        self,
        rows: Tensor,  # [B, Y, X, Z, C] projected
        recalled: Tensor | None,
        history: Tensor,  # [B, Y, X, Z, T * C]
        plan: PlanTensors,
        new: Tensor | None,  # likewise, overwritten
    ) -> Tensor:  # [B, Y, X, Z, C]
        """Present and remembered slots to one volume."""
        bias = self.slot_bias(plan)
        return self.operator(rows, history, bias, plan.motion, self.matrix, self.offset, new)

    def slot_bias(self, plan: PlanTensors) -> Tensor:  # [B, (T + 1) * C]
        """What the time convolution adds to each slot."""
        return torch.addcmul(self.bias, plan.ages[..., None], self.per_second).flatten(1)


class AheadHistoryFusion(ProjectedHistoryFusion):
    """The same in two steps, the first of which needs no image: most of the work, and of the
    memory that is moved.
    """

    recalls = True

    def __init__(self, whole: ProjectedHistoryFusion) -> None:
        """Takes the buffers of ``whole``."""
        nn.Module.__init__(self)
        self._variant = whole._variant
        for name, value in whole.named_buffers(recurse=False):
            self.register_buffer(name, value, persistent=False)
        self.remember, self.operator = Remember(), add_present

    def recall(
        self, state: State | None, plan: PlanTensors, out: State, keyframe: bool
    ) -> Tensor | None:
        """See ``Fusion``."""
        if state is None or state.history is None or (keyframe and out.history is None):
            return None
        return self._sum(state.history, plan, out.history if keyframe else None)

    def fuse(
        self,
        rows: Tensor,
        recalled: Tensor | None,
        history: Tensor,
        plan: PlanTensors,
        new: Tensor | None,
    ) -> Tensor:
        """See ``ProjectedHistoryFusion``."""
        if recalled is None:
            recalled = self._sum(history, plan, new)
        return self.operator(rows, recalled, self.slot_bias(plan), self.matrix, self.offset, new)

    def _sum(self, history: Tensor, plan: PlanTensors, new: Tensor | None) -> Tensor:
        return self.remember(history, self.slot_bias(plan), plan.motion, self.matrix, new)


class Remember(nn.Module):
    """The sum over the remembered slots; a module, because it has an operator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.operator = remembered_sum

    def forward(
        self, history: Tensor, bias: Tensor, motion: Tensor, matrix: Tensor, out: Tensor | None
    ) -> Tensor:
        return self.operator(history, bias, motion, matrix, out)


def _check(history: Tensor, shape: tuple[int, ...], variant: Variant) -> None:
    if tuple(history.shape) != shape:
        raise TemporalMemoryError(
            f"{variant.name} remembers {list(shape)}, the state holds {list(history.shape)}"
        )
