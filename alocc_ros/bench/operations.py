# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""How many operations a call of torch, or of one of this package's fused operators, stands for: on
tensor cores, and on the others. A multiply-add counts as two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

Operations = tuple[float, float]


def operations(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Operations:
    """Of a call; of calls that nothing is known of one for each number that comes out."""
    packet, name = func.overloadpacket, func.overloadpacket.__name__
    if func.namespace == "aten":  # what is done in place costs the same
        packet = getattr(torch.ops.aten, name.removesuffix("_"), packet)
    if packet in flop_registry:
        return float(flop_registry[packet](*args, **kwargs, out_val=result)), 0.0
    if name in OF_FUSED:
        return OF_FUSED[name](args, result)
    outputs = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
    return 0.0, float(sum(t.numel() for t in outputs))


def untouched(func: Any, args: tuple[Any, ...]) -> int:
    """Bytes of a call's arguments that it neither reads nor writes."""
    if func.overloadpacket.__name__ != "add_present_fused" or args[5] is None:
        return 0
    current, out = args[0], args[5]  # of the new history the first slot is its affair
    return (out.numel() - current.numel()) * out.element_size()


def _cells(rows: Tensor) -> int:  # [..., C]
    return rows[..., 0].numel()


def _remembered_sum(args: tuple[Any, ...], sums: Tensor) -> Operations:
    history, matrix = args[0], args[3]
    taps = 4 if history.shape[3] == 1 else 8
    return 2.0 * history.numel() * matrix.shape[1], 2.0 * (taps + 1) * history.numel()


def _lift(args: tuple[Any, ...], volume: Tensor) -> Operations:
    geometry, context, sides = args[0], args[1], 0 if args[7] is None else 24
    points = geometry[:, :1].numel() * (geometry.shape[1] + sides)
    return 0.0, 2.0 * 8 * points * context.shape[1]


def _gated_mix(args: tuple[Any, ...], mixed: Tensor) -> Operations:
    now, matrix = args[1], args[3]
    return 2.0 * now[:, 0].numel() * matrix.numel(), 8.0 * now.numel()


def _dense_flow(args: tuple[Any, ...], flow: Tensor) -> Operations:
    first, second, cells = args[3], args[5], _cells(args[0])
    return 2.0 * cells * (first.numel() + second.numel()), 3.0 * cells * second.shape[-1]


def _sparse_flow(args: tuple[Any, ...], results: Any) -> Operations:
    around, first, second, most = args[3], args[5], args[7], args[9]
    products = around.numel() + first.numel() + second.numel()
    return 2.0 * most * products, 3.0 * most * second.shape[-1] + args[2].numel()


# By name of the fused form: arguments and result to operations.
OF_FUSED: dict[str, Callable[[tuple[Any, ...], Any], Operations]] = {
    "conv_epilogue": lambda a, y: (2.0 * y.numel() * a[1][0].numel(), 0.0),
    # Four taps, a difference and a sum for each channel and depth.
    "cost_volume_fused": lambda a, y: (0.0, 10.0 * a[0].numel() * a[6]),
    "intra_object_fused": lambda a, y: (0.0, 2.0 * y.numel() * a[1].shape[1]),
    "lift_fused": _lift,
    "camera_gates_fused": lambda a, y: (
        0.0,
        2.0 * len(a[0]) * sum(a[i].numel() for i in (1, 3, 5)),
    ),
    "gate_feature_fused": lambda a, y: (0.0, float(sum(t.numel() for t in y))),
    "depth_answer_fused": lambda a, y: (0.0, 4.0 * sum(t.numel() for t in y)),
    "remembered_sum_fused": _remembered_sum,
    "add_present_fused": lambda a, y: (2.0 * y.numel() * y.shape[-1], 4.0 * y.numel()),
    # Offsets, the time convolution twice, and the concatenation's.
    "fuse_recurrent_fused": lambda a, y: (
        2.0 * a[0].numel() * (4 * a[0].shape[-1] + 3),
        16.0 * a[0].numel(),
    ),
    # Products with three matrices forwards, two of them backwards.
    "scene_step_fused": lambda a, y: (10.0 * a[0].numel() * a[0].shape[-1], 0.0),
    "warp_frustum_fused": lambda a, y: (0.0, 2.0 * 8 * y.numel()),
    "gated_mix_fused": _gated_mix,
    "time_bias_fused": lambda a, y: (0.0, 2.0 * a[0].numel() * (a[3].numel() + a[5].numel())),
    # Eight corners of each level, or nine taps of four.
    "upsample_add__fused": lambda a, y: (0.0, 2.0 * 8 * a[0].numel() * len(a[1])),
    "upsample_taps__fused": lambda a, y: (0.0, 2.0 * 36 * a[0].numel() * len(a[1])),
    "classify_fused": lambda a, y: (2.0 * a[0].numel() * a[1].shape[1], 4.0 * y[0].numel()),
    "occupancy_argmax_fused": lambda a, y: (0.0, float(a[0].numel())),
    # Four cells of full size; each of them four taps in the past map.
    "matching_maps_fused": lambda a, y: (0.0, 2.0 * y.numel() * (4 + 16) / 2),
    "correlation_fused": lambda a, y: (0.0, 2.0 * a[0].numel() * y.shape[1]),
    "dense_flow_fused": _dense_flow,
    "sparse_flow_fused": _sparse_flow,
    # Both passes, of one image: taps of its columns, then of its rows.
    "resize_images__fused": lambda a, y: (
        0.0,
        2.0 * a[8].numel() * (a[2].shape[1] + a[4].shape[1]),
    ),
}
