# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Recurrent temporal fusion (GDFusion, arXiv 2504.12959; docs/network.md section 8b).

Instead of sixteen volumes four things are carried from key frame to key frame: where surfaces are
(``geometry_fusion.py``), how things moved and one volume
(``RecurrentFusion``, in the place of ``HistoryFusion``), and a layer that learns the scene while
the network runs (``SceneFusion``, behind it). Each is chosen by the variant; the modules whose
names begin with No stand in where a variant has none.

States have one form, prepared or not. Frames between key frames read all four and leave all four
as they are.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from alocc_ros.network.plan import PlanTensors
from alocc_ros.network.state import State, check_part, stored
from alocc_ros.network.temporal import Fusion
from alocc_ros.network.variants import Variant
from alocc_ros.ops.conv import FoldedConv, conv_bn
from alocc_ros.ops.recurrent import (
    MOTION_LIMIT,
    MotionStep,
    SceneStep,
    SceneWeights,
    correct_motion_reference,
    fuse_recurrent,
    moved_indices,
    sample_rows,
    scene_step,
    scene_step_reference,
    time_bias,
)


class OffsetNet(nn.Module):
    """Predicts how far away each voxel's content was a key frame before; of a bird's-eye slab,
    which has no place along z but its own, in the plane only.
    """

    def __init__(self, channels: int, volumetric: bool = True) -> None:
        super().__init__()
        self.history_stream_offset_net = nn.Conv3d(channels, 3, 1)
        axes = torch.tensor([1.0, 1.0, float(volumetric)])
        self.register_buffer("axes", axes, persistent=False)

    def forward(self, volume: Tensor) -> Tensor:  # [B, C, Y, X, Z] -> [B, Y, X, Z, 3] voxels
        offset = conv_bn(volume, self.history_stream_offset_net)
        return offset.clamp(-MOTION_LIMIT, MOTION_LIMIT).movedim(1, -1) * self.axes


class SceneLayer(nn.Module):
    """What the scene layer begins with, under the official names."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scene_his_learnable_weight = nn.Parameter(torch.eye(channels)[None])
        self.scene_his_learnable_bias = nn.Parameter(torch.zeros(1, channels, 1))
        self.scene_his_norm_weight = nn.Parameter(torch.ones(1, channels, 1))
        self.scene_his_norm_bias = nn.Parameter(torch.zeros(1, channels, 1))
        self.scene_his_q, self.scene_his_k, self.scene_his_v = (
            nn.Linear(channels, channels, bias=False) for _ in range(3)
        )

    def weights(self) -> SceneWeights:
        """As the operator wants them."""
        return SceneWeights(
            self.scene_his_q.weight,
            self.scene_his_k.weight,
            self.scene_his_v.weight,
            self.scene_his_learnable_weight[0],
            self.scene_his_learnable_bias[0, :, 0],
            self.scene_his_norm_weight[0, :, 0],
            self.scene_his_norm_bias[0, :, 0],
        )


class MotionCorrection(nn.Module):
    """One step towards the remembered offsets; a module so that it can be watched."""

    def forward(self, predicted: Tensor, previous: Tensor, motion: Tensor) -> MotionStep:
        return correct_motion_reference(predicted, previous, motion)


class OffsetWarp(nn.Module):
    """Resampling of [B, Y, X, Z, C] where offsets and the vehicle's motion lead to; likewise."""

    def forward(self, rows: Tensor, motion: Tensor, offset: Tensor) -> Tensor:
        base = moved_indices(motion, *rows.shape[1:4])
        return sample_rows(rows, base + offset.to(base.dtype))


class RecurrentLayers(NamedTuple):
    """Layers of recurrent fusion, under their official names."""

    his_stream_offset_net: OffsetNet
    time_emb_net: nn.Sequential
    history_keyframe_time_conv: nn.Sequential
    history_keyframe_cat_conv: nn.Sequential
    scene_his_func_after_vox_his: SceneLayer

    @classmethod
    def of(cls, variant: Variant) -> RecurrentLayers:
        """New ones."""
        c = variant.context_channels
        return cls(
            OffsetNet(c, variant.volumetric),
            nn.Sequential(nn.Linear(c, 2 * c), nn.ReLU(), nn.Linear(2 * c, c)),
            nn.Sequential(nn.Conv3d(c, c, 1), nn.BatchNorm3d(c)),
            nn.Sequential(nn.Conv3d(2 * c, c, 1), nn.BatchNorm3d(c)),
            SceneLayer(c),
        )


class RecurrentFusion(Fusion):
    """Move one remembered volume to the present, by the vehicle's motion and by learned offsets;
    convolve, concatenate, convolve. History: [B, Y, X, Z, C].
    """

    form = "RecurrentFusion"

    def __init__(self, variant: Variant, layers: RecurrentLayers) -> None:
        super().__init__()
        self._layers = layers  # a tuple: see HistoryFusion
        self._variant = variant
        self.correct, self.warp, self.embed = (
            MotionCorrection(),
            OffsetWarp(),
            TimeEmbedding(layers),
        )

    def shapes(self, samples: int) -> dict[str, tuple[int, ...]]:
        """Of the state of so many streams."""
        return _volume_shapes(self._variant, samples)

    def forward(
        self,
        volume: Tensor,  # [B, C, Y, X, Z]
        recalled: Tensor | None,
        state: State | None,
        plan: PlanTensors,
        out: State,
        keyframe: bool,
    ) -> tuple[Tensor, State]:
        """The fused volume, and its part of the new state.

        The first frame of a sequence is its own past; its answer is not fused, what it leaves is
        (BUG-COMPAT).
        """
        rows = volume.movedim(1, -1)
        moved = self._layers.his_stream_offset_net(volume)
        past, begun = rows.detach(), None
        if state is not None:
            _check_volume(self._variant, state, len(volume))
            begun = plan.has_history
            step = self.correct(moved, state.motion, plan.motion).offset
            moved = _if_begun(begun, step, moved)
            past = _if_begun(begun, state.history, past)
        fused = self.merge(rows, self.warp(past, plan.motion, moved), self.embed(plan.ages))
        answer = volume
        if state is not None:
            answer = _if_begun(begun, fused, volume)
        fused = fused.detach().movedim(1, -1)
        if not keyframe:
            kept = State() if state is None else state
            return answer, State(history=kept.history, motion=kept.motion)
        return answer, State(history=stored(fused, out.history), motion=stored(moved, out.motion))

    def merge(self, now: Tensor, then: Tensor, embedding: Tensor) -> Tensor:
        """[B, Y, X, Z, C] twice, [B, 2, C] -> [B, C, Y, X, Z]."""
        time_conv = self._layers.history_keyframe_time_conv
        groups = torch.stack([now, then], 1) + embedding[:, :, None, None, None]
        timed = conv_bn(groups.flatten(0, 1).movedim(-1, 1), *time_conv, relu=True)
        timed = timed.unflatten(0, (-1, 2)).flatten(1, 2)
        return conv_bn(timed, *self._layers.history_keyframe_cat_conv, relu=True)


class PreparedRecurrentFusion(Fusion):
    """The same as one operator: the time is only a bias, and nothing is stored that is not kept."""

    form = "PreparedRecurrentFusion"

    def __init__(self, variant: Variant, layers: RecurrentLayers, embed: TimeEmbedding) -> None:
        super().__init__()
        self._variant, self.operator = variant, fuse_recurrent
        c = variant.context_channels
        offset, time_conv, cat_conv = (
            _folded(x)
            for x in (
                layers.his_stream_offset_net.history_stream_offset_net,
                layers.history_keyframe_time_conv[0],
                layers.history_keyframe_cat_conv[0],
            )
        )
        first, _, last = layers.time_emb_net
        matrix = time_conv.weight.reshape(c, c).T
        # The last layer of the embedding and the time convolution are one product.
        time_last = (last.weight.double().T @ matrix.double()).float()
        time_bias = (last.bias.double() @ matrix.double() + time_conv.bias.double()).float()
        axes = layers.his_stream_offset_net.axes
        for name, value in (
            ("offset_matrix", offset.weight.reshape(3, c).T * axes),
            ("offset_bias", offset.bias * axes),
            ("time_matrix", matrix),
            ("cat_matrix", cat_conv.weight.reshape(c, 2 * c).T),
            ("cat_bias", cat_conv.bias),
        ):
            self.register_buffer(name, value.detach().contiguous(), persistent=False)
        self.time = PreparedTime(embed.rates, first, time_last, time_bias)

    def shapes(self, samples: int) -> dict[str, tuple[int, ...]]:
        """Of the state of so many streams."""
        return _volume_shapes(self._variant, samples)

    def forward(
        self,
        volume: Tensor,
        recalled: Tensor | None,
        state: State | None,
        plan: PlanTensors,
        out: State,
        keyframe: bool,
    ) -> tuple[Tensor, State]:
        """See ``RecurrentFusion``."""
        rows = volume.movedim(1, -1).contiguous()
        history, previous = rows, None
        if state is not None:
            _check_volume(self._variant, state, len(volume))
            history, previous = state.history, state.motion
        fused, moved = out.history if keyframe else None, out.motion if keyframe else None
        fused = torch.empty_like(rows) if fused is None else fused
        moved = rows.new_empty((*rows.shape[:-1], 3)) if moved is None else moved
        bias = self.time(plan.ages)
        self.operator(
            rows, history, previous, plan.motion, self.offset_matrix, self.offset_bias,
            self.time_matrix, bias, self.cat_matrix, self.cat_bias, fused, moved,
        )  # fmt: skip
        answer = volume if state is None else fused.movedim(-1, 1)
        if not keyframe:
            kept = State() if state is None else state
            return answer, State(history=kept.history, motion=kept.motion)
        return answer, State(history=fused, motion=moved)


class TimeEmbedding(nn.Module):
    """Seconds since the start, of present and history, as vectors of channels."""

    def __init__(self, layers: RecurrentLayers) -> None:
        super().__init__()
        self._net = (layers.time_emb_net,)
        channels = layers.time_emb_net[0].in_features
        rates = 10000.0 ** (-torch.arange(0, channels, 2, dtype=torch.float64) / channels)
        self.register_buffer("rates", rates.float(), persistent=False)

    def forward(self, times: Tensor) -> Tensor:  # [B, 2] seconds -> [B, 2, C]
        angles = times[..., None] * self.rates
        return self._net[0](torch.stack([angles.sin(), angles.cos()], -1).flatten(2))


class PreparedTime(nn.Module):
    """What the time convolution adds: the embedding and that convolution's product with it as two
    layers. Float32 whatever the network is.
    """

    def __init__(self, rates: Tensor, first: nn.Linear, matrix: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.operator = time_bias
        phases = torch.tensor([0.0, math.pi / 2], device=rates.device)
        for name, value in (
            ("rates", rates.repeat_interleave(2)),
            ("phases", phases.repeat(len(rates))),  # a cosine is a sine a quarter later
            ("matrix1", first.weight.T),
            ("bias1", first.bias),
            ("matrix2", matrix),
            ("bias2", bias),
        ):
            self.register_buffer(name, value.detach().contiguous(), persistent=False)

    def forward(self, times: Tensor) -> Tensor:  # [B, 2] seconds -> [B, 2, C]
        layers = (self.matrix1, self.bias1, self.matrix2, self.bias2)
        return self.operator(times, self.rates, self.phases, *layers)


class NoScene(nn.Module):
    """Of variants without a scene layer."""

    def shapes(self, samples: int) -> dict[str, tuple[int, ...]]:
        """Nothing is remembered."""
        return {}

    def forward(
        self, volume: Tensor, state: State | None, plan: PlanTensors, out: State, keyframe: bool
    ) -> tuple[Tensor, Tensor | None]:
        return volume, None


class SceneUpdate(nn.Module):
    """The step and the answer of the scene layer; a module so that it can be watched."""

    def __init__(self, layer: SceneLayer, prepared: bool) -> None:
        super().__init__()
        self._layers, self._prepared = (layer,), prepared
        if prepared:
            self.operator = scene_step

    def forward(self, rows: Tensor, sums: Tensor, keep: Tensor) -> SceneStep:
        weights = self._layers[0].weights()
        if not self._prepared:
            return scene_step_reference(rows, sums, keep, weights)
        return SceneStep(*self.operator(rows, sums, keep, list(weights)))


class SceneFusion(nn.Module):
    """A linear layer that is taught by every frame before it is asked about it.

    The authors sum gradients without end; no more than a scene of nuScenes was ever tried. What
    counts after that is the plan's affair (``times_told``).
    """

    def __init__(self, variant: Variant, layer: SceneLayer, prepared: bool = False) -> None:
        super().__init__()
        self._variant, self.update = variant, SceneUpdate(layer, prepared)

    def shapes(self, samples: int) -> dict[str, tuple[int, ...]]:
        """Of the state of so many streams."""
        c = self._variant.context_channels
        return {"scene": (samples, c, c + 1)}

    def forward(
        self,
        volume: Tensor,  # [B, C, Y, X, Z]
        state: State | None,
        plan: PlanTensors,
        out: State,
        keyframe: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """The answer, and the new state."""
        rows, c = volume.movedim(1, -1), volume.shape[1]
        if state is None:
            sums = volume.new_zeros(len(volume), c, c + 1, dtype=torch.float32)
        else:
            sums = state.scene
            check_part(sums, (len(volume), c, c + 1), self._variant.name, "sums of gradients")
            if plan.has_history is not None:
                sums = _if_begun(plan.has_history, sums, torch.zeros_like(sums))
        step = self.update(rows, sums, plan.scene_keep.to(sums.dtype))
        answer = step.rows.movedim(-1, 1)
        if not keyframe:
            return answer, None if state is None else state.scene
        return answer, stored(step.sums, out.scene)


def _volume_shapes(variant: Variant, samples: int) -> dict[str, tuple[int, ...]]:
    x, y, z = variant.lift_cells
    return {
        "history": (samples, y, x, z, variant.context_channels),
        "motion": (samples, y, x, z, 3),
    }


def _folded(conv: nn.Module) -> FoldedConv:
    if not isinstance(conv, FoldedConv):
        raise TypeError(f"fold the network first, {type(conv).__name__} is not folded")
    return conv


def _if_begun(begun: Tensor | None, value: Tensor, otherwise: Tensor) -> Tensor:
    """By sample: ``value`` where there is a past."""
    if begun is None:
        return value
    return torch.where(begun.view(-1, *(1,) * (value.dim() - 1)), value, otherwise)


def _check_volume(variant: Variant, state: State, samples: int) -> None:
    shapes = _volume_shapes(variant, samples)
    check_part(state.history, shapes["history"], variant.name, "a volume")
    check_part(state.motion, shapes["motion"], variant.name, "offsets")
