# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""All operators as torch's dispatcher sees them: registration, which form runs, metadata."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from operators import random, uniform
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from alocc_ros.ops import (  # noqa: F401  # noqa: F401
    argmax,
    correlation,
    cost_volume,
    depth_net,
    flow_head,
    history,
    intra_object,
    lift,
    native,
    recurrent,
    resize,
    upsample,
)
from alocc_ros.ops.conv import FoldedConv
from alocc_ros.ops.conv.cpu import WinogradConv
from alocc_ros.ops.conv.gpu import conv_epilogue  # noqa: F401

F64 = torch.float64


def _winograd_arguments() -> tuple[Any, ...]:
    packed = WinogradConv(FoldedConv.of(nn.Conv2d(32, 32, 3, padding=1)))
    x = random(2, 32, 16, 16).contiguous(memory_format=torch.channels_last)
    return (
        x,
        packed.packed,
        packed.bias,
        random(*x.shape).contiguous(memory_format=torch.channels_last),
        True,
    )


def _resize_arguments() -> tuple[Any, ...]:
    images = (255 * uniform(2, 5, 6, 3)).to(torch.uint8)
    across, down = resize.bicubic_filters(6, 7, 0, 7), resize.bicubic_filters(5, 5, 0, 5)
    filters = (across.starts, across.weights, down.starts, down.weights)
    return (images, *filters, random(3), random(3, seed=1), True, torch.zeros(2, 3, 5, 7))


# Small inputs of every operator, two samples or cameras each. Weights of the flow head: 8 channels.
HEAD = (random(8, 16), random(16), random(16, 176), random(176))
CASES: dict[str, tuple[Any, ...]] = {
    "occupancy_argmax": (random(2, 3, 5), 1),
    "classify": (random(2, 3, 6), random(6, 5, seed=1), 1),
    "correlation": (random(2, 3, 7, 8), random(2, 3, 7, 8, seed=1)),
    "cost_volume": (
        *(random(2, 4, 5, 6), random(2, 4, 5, 6, seed=1)),
        *(torch.eye(3, dtype=F64).repeat(2, 1, 1), torch.zeros(2, 3, dtype=F64), 1.0, 0.5, 3),
    ),
    "intra_object": (uniform(2, 5, 3, 4), uniform(2, 3, 3, 4, seed=1)),
    "fuse_history": (
        *(random(2, 4, 5, 3, 2), random(2, 4, 5, 3, 4, seed=1), random(2, 6, seed=2)),
        *(torch.eye(4, dtype=F64)[None, :3].repeat(2, 1, 1), random(6, 2), random(2)),
        torch.zeros(2, 4, 5, 3, 4),
    ),
    "remembered_sum": (
        *(random(2, 4, 5, 3, 4, seed=1), random(2, 6, seed=2)),
        *(torch.eye(4, dtype=F64)[None, :3].repeat(2, 1, 1), random(6, 2)),
        torch.zeros(2, 4, 5, 3, 4),
    ),
    "add_present": (
        *(random(2, 4, 5, 3, 2), random(2, 4, 5, 3, 2, seed=1), random(2, 6, seed=2)),
        *(random(6, 2), random(2), torch.zeros(2, 4, 5, 3, 4)),
    ),
    "conv_epilogue": (
        *(random(2, 4, 5, 6).contiguous(memory_format=torch.channels_last), random(3, 4, 3, 3)),
        *(random(3), random(2, 3, 3, 3, seed=1), [2, 2], [1, 1], [1, 1], True),
    ),
    "fuse_recurrent": (
        *(random(2, 4, 5, 3, 8), random(2, 4, 5, 3, 8, seed=1), random(2, 4, 5, 3, 3, seed=2)),
        *(torch.eye(4, dtype=F64)[None, :3].repeat(2, 1, 1), random(8, 3, seed=3), random(3)),
        *(random(8, 8, seed=4), random(2, 2, 8, seed=5), random(16, 8, seed=6), random(8)),
        *(torch.zeros(2, 4, 5, 3, 8), torch.zeros(2, 4, 5, 3, 3)),
    ),
    "scene_step": (
        *(random(2, 4, 5, 3, 8), random(2, 8, 9, seed=1), torch.tensor([1.0, 0.9])),
        [*(random(8, 8, seed=i) for i in range(2, 6)), *(random(8, seed=i) for i in range(6, 9))],
    ),
    "upsample_add_": (random(2, 4, 5, 3, 2), [random(2, 2, 2, 2, 2), random(2, 1, 1, 1, 2)]),
    "upsample_taps_": (random(2, 4, 5, 2), [random(2, 2, 3, 18)]),
    "lift": (
        *(uniform(2, 4, 3, 5), random(2, 6, 3, 5), 0.05 * random(2, 3, 3).double()),
        *(random(2, 3).double(), torch.linspace(0, 20, 5, dtype=F64)),
        *(torch.linspace(0, 15, 3, dtype=F64), torch.tensor([True, False])),
        *(uniform(2, 27, 3, 5), random(2, 18, 3, 5), None, None, 1.0, 0.5, 3),
        *([-4.0, -5.0, -1.0], [0.5, 0.4, 0.8], [16, 25, 5], 1),
    ),
    "dense_flow": (random(2, 3, 4, 5, 8), random(2, 3, 4, 24), random(8), *HEAD),
    "sparse_flow": (
        *(random(2, 24, 3, 4), random(2, 8, 3, 4, 5), uniform(2, 3, 4, 5) < 0.3),
        # Weights as large as a network's: round-off of two orders must not decide a softmax.
        *(0.02 * random(32 * 27, 8), 0.1 * random(8), *(0.1 * t for t in HEAD), 15),
    ),
    "warp_frustum": (
        *(random(2, 6, 4, 5), torch.eye(3, dtype=F64).repeat(2, 1, 1)),
        *(0.1 * random(2, 3, seed=1).double(), 1.0, 0.5),
    ),
    "camera_gates": (
        *(random(2, 5), random(2, 5, 6, seed=1), random(2, 1, 6, seed=2)),
        *(random(2, 6, 6, seed=3), random(2, 1, 6, seed=4), random(2, 6, 6), random(2, 1, 6)),
    ),
    "gate_feature": (
        *(random(2, 6, 3, 4), random(2, 6, 1, 1, seed=1), random(2, 6, 1, 1, seed=2)),
        *(random(2, 3, 3, 4, seed=3), random(3, seed=4)),
    ),
    "depth_answer": (
        *(random(2, 7, 3, 4), random(2, 2, 3, 4, seed=1), random(2, 5, 3, 4, seed=2)),
        *(5, 3, 4.0, 8.0),
    ),
    "matching_maps": (
        *(random(2, 3, 6, 8), random(2, 3, 6, 8, seed=1)),
        torch.eye(4, dtype=F64)[None, :3].repeat(2, 1, 1),
    ),
    "gated_mix": (
        *(random(2, 5, 3, 4), random(2, 5, 3, 4, seed=1), None, random(10, 5, seed=2)),
        *(random(5, seed=3), random(5, seed=4), random(1, seed=5), True),
    ),
    "time_bias": (
        *(uniform(2, 2), random(4, seed=1), random(4, seed=2), random(4, 6, seed=3)),
        *(random(6, seed=4), random(6, 3, seed=5), random(3, seed=6)),
    ),
    "resize_images_": _resize_arguments(),
    "winograd_conv": _winograd_arguments(),
}
WITH_GENERAL_FORM = [n for n in CASES if n not in ("winograd_conv", "conv_epilogue")]
MUTATING = (
    *("fuse_history", "remembered_sum", "add_present", "fuse_recurrent"),
    *("upsample_add_", "upsample_taps_", "resize_images_"),
)
DIFFERENTIABLE = [n for n in WITH_GENERAL_FORM if n not in MUTATING and n != "occupancy_argmax"]


def operator(name: str):
    return getattr(torch.ops.alocc, name).default


def arguments(name: str, change=Tensor.clone) -> tuple[Any, ...]:
    """Of the operator, every tensor changed."""

    def changed(value: Any) -> Any:
        if isinstance(value, Tensor):
            return change(value)
        if isinstance(value, list) and isinstance(value[0], Tensor):
            return [change(t) for t in value]
        return value

    return tuple(map(changed, CASES[name]))


def wanting_gradient(tensor: Tensor) -> Tensor:
    tensor = tensor.clone()
    return tensor.requires_grad_() if tensor.dtype == torch.float32 else tensor


def results(name: str, made: Any, given: tuple[Any, ...]) -> list[Tensor]:
    """What an operator returned, or what it wrote to."""
    if made is None:
        last = {"fuse_recurrent": 2, "resize_images_": 1}
        return list(given[-last[name] :]) if name in last else [given[0]]
    made = list(made) if isinstance(made, tuple) else [made]
    remembering = ("fuse_history", "remembered_sum", "add_present")
    return made + [given[-1]] if name in remembering else made


def test_every_operator_of_the_namespace_has_a_case():
    registered = {
        s.name.removeprefix("alocc::")
        for s in torch._C._jit_get_all_schemas()
        if s.name.startswith("alocc::")
    }
    fused = {name for name in registered if name.endswith("_fused")}
    assert registered - fused == set(CASES)


# Symbolic shapes of many slices and scatters: about ten seconds each on a busy machine.
SLOW = ("lift", "fuse_history", "fuse_recurrent")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in CASES]
)
def test_opcheck(compiled, name):
    """Schema (what is written to, what aliases), autograd, fake tensors, ahead-of-time tracing with
    symbolic shapes. Fake results have the strides of real ones.
    """
    torch.library.opcheck(operator(name), arguments(name))


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_opcheck_with_gradients(name):
    # Without tracing, which takes seconds: what is differentiated are operations of torch, and that
    # they can be traced the test above shows.
    utils = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(operator(name), arguments(name, wanting_gradient), test_utils=utils)


@pytest.mark.parametrize("name", WITH_GENERAL_FORM)
def test_both_forms_leave_the_same_values_in_the_same_order_in_memory(compiled, monkeypatch, name):
    given = arguments(name)
    ours = results(name, operator(name)(*given), given)
    monkeypatch.setattr(native, "library", lambda: None)
    change = wanting_gradient if name in ("intra_object", "dense_flow", "sparse_flow") else None
    given = arguments(name, change) if change else arguments(name)
    with torch.enable_grad():
        general = results(name, operator(name)(*given), given)
    for own, other in zip(ours, general, strict=True):
        assert own.stride() == other.stride() and own.dtype == other.dtype
        torch.testing.assert_close(own, other.detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", WITH_GENERAL_FORM)
@pytest.mark.parametrize("how", ["double", "inference mode", "meta", "no compiler"])
def test_other_ways_in(monkeypatch, name, how):
    """Doubles take the general form; so does the meta device, which has no numbers. In inference
    mode the dispatcher skips autograd.
    """
    given = arguments(name)
    with torch.no_grad():
        expected = results(name, operator(name)(*given), given)
    if how == "double":
        given = arguments(name, lambda t: t.double() if t.is_floating_point() else t.clone())
    elif how == "meta":
        given = arguments(name, lambda t: t.to("meta"))
    elif how == "no compiler":
        monkeypatch.setattr(native, "library", lambda: None)
        given = arguments(name)
    else:
        given = arguments(name)
    with torch.inference_mode(how == "inference mode"), torch.no_grad():
        ours = results(name, operator(name)(*given), given)
    for own, reference in zip(ours, expected, strict=True):
        assert own.shape == reference.shape
        if how == "meta":
            assert own.is_meta and own.dtype == reference.dtype
            continue
        if how == "double" and reference.is_floating_point():
            assert own.dtype == torch.float64
        torch.testing.assert_close(own.to(reference.dtype), reference, rtol=1e-4, atol=1e-4)


# An operation of torch that the general form does, and the CPU form does without. Others have one
# form on a CPU.
TELLTALES = {
    "correlation": "aten::im2col",
    "cost_volume": "aten::grid_sampler",
    "intra_object": "aten::unfold",
    "fuse_history": "aten::grid_sampler",
    "fuse_recurrent": "aten::grid_sampler",
    "scene_step": "aten::sqrt",
    "lift": "aten::index_add",
    "dense_flow": "aten::cat",
    "sparse_flow": "aten::scatter",
    "classify": "aten::argmax",
    "occupancy_argmax": "aten::argmax",
    "upsample_add_": "aten::upsample_trilinear3d",
    "upsample_taps_": "aten::upsample_bilinear2d",
}


@pytest.mark.parametrize("name", TELLTALES)
def test_the_kernel_runs_where_nobody_wants_a_gradient_and_only_there(compiled, name):
    def used(*given: Any) -> bool:
        with profile(activities=[ProfilerActivity.CPU]) as watched:
            operator(name)(*given)
        return TELLTALES[name] in {event.key for event in watched.key_averages()}

    assert not used(*arguments(name))
    with torch.enable_grad():
        assert not used(*arguments(name))  # gradients are possible, but no argument wants one
        if name not in MUTATING:
            assert used(*arguments(name, wanting_gradient))
    assert not used(*arguments(name, wanting_gradient))
    assert used(*arguments(name, lambda t: t.double() if t.is_floating_point() else t))


def test_a_gradient_is_wanted_through_what_is_written_to_as_well():
    total, levels = CASES["upsample_add_"]
    leaves = [level.clone().requires_grad_() for level in levels]
    summed = total.clone()
    torch.ops.alocc.upsample_add_(summed, leaves)
    summed.sum().backward()
    assert all(leaf.grad is not None and leaf.grad.any() for leaf in leaves)
