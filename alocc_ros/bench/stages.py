# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The network's stages, watched from outside by hooks: which module gives which value.

Parity compares these values with those of the reference, the benchmark asks the clock between the
parts. The network itself knows nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from alocc_ros.network.model import Alocc, Output
from alocc_ros.network.variants import Variant
from alocc_ros.ops.recurrent import frustum_grid, moved_indices, unit_grid

# A stage's name, and the value; the last value of a stage is the one that counts.
Observer = Callable[[str, Tensor], None]

# Parts of a frame in the order in which they run, by module of the network.
PARTS = (
    ("fusion.remember", "history"),
    ("img_backbone", "img_backbone"),
    ("img_neck", "img_neck"),
    ("stereo", "stereo"),
    ("depth_net", "depth_net"),
    ("geometry", "depth_net"),
    ("lift", "view_transformer"),
    ("pre_process", "pre_process"),
    ("fusion", "history"),
    ("scene", "history"),
    ("img_bev_encoder_backbone", "bev_encoder"),
    ("img_bev_encoder_neck", "bev_encoder"),
    ("classify", "classes"),
    ("flow_match", "flow"),
    ("flow_cost", "flow"),
    ("flow_head", "flow"),
)


@contextmanager
def watching(core: Alocc, observer: Observer, wanted: Callable[[str], bool]) -> Iterator[None]:
    """Within this block ``observer(stage, value)`` sees the stages of a network, prepared or not.

    Stages that a prepared network does not have any more (they are merged with others) are left
    out; values are made only of stages that are ``wanted``.
    """

    def tell(stage: str, make: Callable[[], Tensor]) -> None:
        if wanted(stage):
            observer(stage, make())

    def hook(made: Callable[[Any, Any], dict[str, Callable[[], Tensor]]]) -> Callable[..., None]:
        def call(_: nn.Module, inputs: Any, output: Any) -> None:
            for stage, make in made(inputs, output).items():
                tell(stage, make)

        return call

    handles = []
    for path, made in _table(core):
        module = _find(core, path)
        if module is not None and getattr(module, "is_whole", True):
            handles.append(module.register_forward_hook(hook(made)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def timing_parts(core: Alocc, done: Callable[[str], None]) -> Iterator[None]:
    """Within this block ``done(part)`` is called whenever a part of the network has run."""
    handles = []
    for path, part in PARTS:
        module = _find(core, path)
        if module is not None and not isinstance(module, nn.Identity):
            hook = lambda *_, part=part: done(part)  # noqa: E731
            handles.append(module.register_forward_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def output_stages(output: Output) -> dict[str, Tensor]:
    """The stages that the network returns."""
    stages = {"final/occ_logits_xyzc": output.logits[0], "final/occ_argmax": output.labels[0]}
    if output.flow is not None:
        stages["final/flow_fp32"] = output.flow[0]
    return stages


def _find(core: Alocc, path: str) -> nn.Module | None:
    module: Any = core
    for name in path.split("."):
        module = getattr(module, name, None)
        if not isinstance(module, nn.Module):
            return None
    return module


def _table(core: Alocc) -> list[tuple[str, Callable[[Any, Any], dict[str, Callable[[], Tensor]]]]]:
    """Path of a module, and what its inputs and output say. Of a convolution and its BatchNorm both
    are named: the one that runs last has the value.
    """
    volumetric = core.variant.volumetric

    def planes(x: Tensor) -> Tensor:  # [B, C, Y, X, Z] -> without Z if bird's-eye
        return x if volumetric else x[..., 0]

    def heights_first(x: Tensor) -> Tensor:  # [..., Y, X, Z] -> [..., Z, Y, X]
        return x.permute(*range(x.dim() - 3), -1, -3, -2) if volumetric else x[..., 0]

    def plain(stage: str) -> Callable[[Any, Any], dict[str, Callable[[], Tensor]]]:
        return lambda _, y: {stage: lambda: y}

    def of(stage: str, make: Callable[[Any], Tensor]) -> Callable[..., Any]:
        return lambda _, y: {stage: lambda: make(y)}

    def backbone(_: Any, levels: tuple[Tensor, ...]) -> dict[str, Callable[[], Tensor]]:
        some = levels if core.variant.stereo else levels[1:]
        return {f"img_backbone/out{i}": lambda x=x: x for i, x in enumerate(some)}

    def depth_net(_: Any, y: Any) -> dict[str, Callable[[], Tensor]]:
        return {
            "depth_net/depth_prob": lambda: y.depth,
            "depth_net/context": lambda: y.context[None],
        }

    def classify(_: Any, y: Any) -> dict[str, Callable[[], Tensor]]:
        voxels = y.voxels
        if voxels is None:
            return {}
        stages: dict[str, Callable[[], Tensor]] = {"voxel_feature_before_head": lambda: voxels}
        if not volumetric:
            stages["final_conv/out"] = lambda: voxels.permute(0, 1, 4, 2, 3).flatten(1, 2)
        embeddings = core.alocc_head.mask_embed
        head = core.alocc_head
        every = lambda: embeddings(head.post_norm(head.query_feat.weight))  # noqa: E731
        stages["head/mask_embed"] = lambda: every()[None]
        stages["head/occ_logits"] = lambda: torch.einsum("qc,bcyxz->bqyxz", every(), voxels)
        return stages

    def levels(_: Any, y: list[Tensor]) -> dict[str, Callable[[], Tensor]]:
        return {f"bev_encoder/backbone{i}": lambda x=x: x for i, x in enumerate(y)}

    table = [
        ("img_backbone", backbone),
        ("img_neck", plain("img_neck/out0")),
        ("stereo", plain("stereo/cost_volume_softmax")),
        ("depth_net", depth_net),
        ("depth_net.context_se", plain("depth_net/context_se")),
        ("depth_net.depth_se", plain("depth_net/depth_se")),
        ("depth_net.depth_conv.4", plain("depth_net/depth_logits")),
        ("depth_net.occ_conv.3", plain("depth_net/occ_weight_logits")),
        (
            "depth_net.depth2occ_inter_weight_net",
            of("depth_net/inter_weight", lambda y: torch.sigmoid(y).unflatten(1, (3, 3, 3))),
        ),
        (
            "depth_net.depth2occ_inter_bias_net",
            of("depth_net/inter_offset", lambda y: (y * 4).clamp(-8, 8).unflatten(1, (3, 3, 2))),
        ),
        ("lift.intra_object", of("depth_net/geometry_after_intra", lambda y: y[None])),
        ("lift", of("view_transformer/lifted", planes)),
        ("fusion", lambda _, y: {"history/fused": lambda: planes(y[0])}),
        ("lift.mix", of("depth_net/geometry_fused", lambda y: y[None])),
        ("img_bev_encoder_backbone", levels),
        ("img_bev_encoder_neck", plain("bev_encoder/neck")),
        ("classify", classify),
        ("flow_match.maps.warp", of("flow/history_bev_warped", lambda y: y[..., 0])),
        ("flow_match", plain("flow/cost_volume_softmax")),
        ("flow_head", of("head/flow", lambda y: y[0].flip(-1))),
    ]
    if core.variant.recurrent:
        table += _recurrent_table(core.variant)
    else:
        table.append(("fusion.warp", of("history/sampled_history", heights_first)))
    if core.variant.pre_process:
        table.append(("pre_process", plain("pre_process/out")))
    for path in ("depth_net.reduce_conv.0", "depth_net.reduce_conv.1"):
        table.append((path, of("depth_net/reduce_conv", torch.relu)))
    timed = lambda y: heights_first(torch.relu(y)) if volumetric else torch.relu(y)  # noqa: E731
    table.append(("history_keyframe_time_conv.1", of("history/time_conv", timed)))
    for stage, *paths in (
        ("stereo/cost_volume_net", "depth_net.cost_volumn_net.2", "depth_net.cost_volumn_net.3"),
        ("flow/cost_volume_net", "alocc_head.cost_volum_net.0", "alocc_head.cost_volum_net.1"),
    ):
        table += [(path, plain(stage)) for path in paths]
    return table


def _recurrent_table(
    variant: Variant,
) -> list[tuple[str, Callable[[Any, Any], dict[str, Callable[[], Tensor]]]]]:
    """The stages that only recurrent variants have."""
    c = variant.context_channels

    def of(stage: str, make: Callable[[Any], Tensor]) -> Callable[..., Any]:
        return lambda _, y: {stage: lambda: make(y)}

    def channels_first(rows: Tensor) -> Tensor:  # [B, Y, X, Z, C] -> [B, C, Z, Y, X]
        return rows.permute(0, 4, 3, 1, 2)

    def frustum(inputs: Any, y: Tensor) -> dict[str, Callable[[], Tensor]]:
        depths = float(variant.depth_range[0]), float(variant.depth_step)
        grid = lambda: frustum_grid(*inputs[1:], *inputs[0].shape[1:], *depths)  # noqa: E731
        return {
            "depth_net/history_grid": grid,
            "depth_net/history_warped": lambda: y[None],
        }

    def geometry(_: Any, y: Any) -> dict[str, Callable[[], Tensor]]:
        return {
            "depth_net/history_fused": lambda: y[0].history[None],
            "depth_net/history_prob": lambda: torch.softmax(y[0].history, 1)[None],
        }

    def correction(_: Any, y: Any) -> dict[str, Callable[[], Tensor]]:
        return {
            "history/motion_previous": lambda: channels_first(y.previous),
            "history/motion_gradient": lambda: channels_first(y.gradient),
        }

    def warped(inputs: Any, y: Tensor) -> dict[str, Callable[[], Tensor]]:
        _, motion, offset = inputs
        base = lambda: moved_indices(motion, *y.shape[1:4])  # noqa: E731
        return {
            "history/grid": lambda: unit_grid(base()),
            "history/motion_grid": lambda: unit_grid(base() + offset),
            "history/sampled_history": lambda: channels_first(y),
        }

    def fused(_: Any, y: Any) -> dict[str, Callable[[], Tensor]]:
        return {
            "history/state": lambda: channels_first(y[1].history),
            "history/motion_offset": lambda: channels_first(y[1].motion),
        }

    def scene(_: Any, y: Any) -> dict[str, Callable[[], Tensor]]:
        return {
            "scene/weight_update": lambda: y.sums[..., :c],
            "scene/bias_update": lambda: y.sums[..., c:],
            "scene/norm_weight_update": lambda: y.norm[:, 0, :, None],
            "scene/norm_bias_update": lambda: y.norm[:, 1, :, None],
            "scene/fused": lambda: y.rows.movedim(-1, 1),
        }

    gate = "depth_net.depth_his_fusion_post_layer.gate_net"
    return [
        ("depth_net.depth_head", of("depth_net/depth_logits", lambda y: y)),
        ("depth_net.depth_head2", of("depth_net/history_logits", lambda y: y[None])),
        ("geometry.warp", frustum),
        (f"{gate}.2", of("depth_net/history_gate", torch.sigmoid)),
        ("geometry", geometry),
        ("depth_net.gate_net.2", of("depth_net/geometry_gate", torch.sigmoid)),
        ("his_stream_offset_net", of("history/motion_predicted", channels_first)),
        ("fusion.correct", correction),
        ("fusion.warp", warped),
        ("fusion.embed", of("history/time_embedding", lambda y: y)),
        ("fusion", fused),
        ("scene.update", scene),
    ]
