# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Fusion of the history by Triton. Bfloat16 is not here: the interpreter cannot multiply it."""

from __future__ import annotations

import pytest
import torch
from interpreted import TOLERANCES, TYPES, count_launches, stored, wide
from operators import assert_close, random

from alocc_ros.ops.history import fuse_history as operator
from alocc_ros.ops.history import fuse_history_reference
from alocc_ros.ops.history.triton import add_present, fuse_history, remembered_sum
from alocc_ros.ops.library import fused_form, launches_of

SIZES = {"planar": (9, 11, 1), "volume": (3, 5, 6)}  # more than a tile, and no multiple of it


def case(shape: str, channels: int = 6, slots: int = 3, batch: int = 1):
    """Arguments of ``fuse_history`` but the last; the history is moved over all borders."""
    size, width = SIZES[shape], (slots + 1) * channels
    motion = torch.tensor(
        [[0.99, -0.05, 0.02, 1.3], [0.05, 0.99, -0.03, -0.7], [0.02, -0.01, 1.0, 0.4]],
        dtype=torch.float64,
    ).repeat(batch, 1, 1)
    motion[1:, :, 3] *= -1
    return (
        random(batch, *size, channels),
        random(batch, *size, slots * channels, seed=1),
        random(batch, width, seed=2),
        motion,
        random(width, channels, seed=3),
        random(channels, seed=4),
    )


def room(arguments):
    """For the new history; holds NaN, so that what is not written shows."""
    return torch.full_like(arguments[1], torch.nan)


# 6: padded; 32, 40 and 80: as the networks', in one and in two blocks of columns.
@pytest.mark.parametrize(
    ("shape", "channels", "slots"),
    [("planar", 80, 2), ("planar", 40, 1), ("planar", 6, 11), ("volume", 32, 2), ("volume", 6, 1)],
)
@pytest.mark.parametrize("data", TYPES)
def test_it_equals_the_reference(data, shape, channels, slots):
    arguments = stored(case(shape, channels, slots), data)
    kept, expected = room(arguments), room(wide(arguments))
    ours = fuse_history(*arguments, kept)
    reference = fuse_history_reference(*wide(arguments), expected)
    assert ours.dtype == data and ours.stride() == reference.stride()
    assert_close(ours.float(), reference, TOLERANCES[data])
    assert_close(kept.float(), expected, TOLERANCES[data])


@pytest.mark.parametrize("shape", SIZES)
def test_in_two_parts_it_is_the_same(shape):
    arguments = stored(case(shape, 20, 2, batch=2), torch.float16)
    current, history, bias, motion, matrix, offset = arguments
    kept, other = room(arguments), room(arguments)
    whole = fuse_history(*arguments, kept)
    partial = remembered_sum(history, bias, motion, matrix, other)
    assert other[..., :20].isnan().all()
    parts = add_present(current, partial, bias, matrix, offset, other)
    assert_close(parts.float(), whole.float(), TOLERANCES[torch.float16])
    assert torch.equal(kept, other)


@pytest.mark.parametrize("shape", SIZES)
def test_history_that_is_not_kept_is_only_read(shape):
    arguments = case(shape)
    before = arguments[1].clone()
    unkept = fuse_history(*arguments, None)
    assert torch.equal(arguments[1], before)
    assert torch.equal(unkept, fuse_history(*arguments, room(arguments)))


@pytest.mark.parametrize("metres", [1e3, -1e12, torch.inf, torch.nan])
def test_what_lies_outside_is_zero(metres):
    arguments = case("volume", slots=2)
    arguments[3][0, 1, 3] = metres
    kept = room(arguments)
    fuse_history(*arguments, kept)
    assert torch.equal(kept[..., :6], arguments[0]) and not kept[..., 6:].any()


@pytest.mark.parametrize("argument", [0, 1])
def test_nan_shows_where_it_does_in_the_reference(argument):
    arguments = case("volume")
    arguments[argument][0, 1, 2, 3, 4] = torch.nan
    kept, expected = room(arguments), room(arguments)
    ours = fuse_history(*arguments, kept)
    reference = fuse_history_reference(*arguments, expected)
    assert reference.isnan().any() and not reference.isnan().all()
    assert_close(ours, reference, TOLERANCES[torch.float32])
    assert_close(kept, expected, TOLERANCES[torch.float32])


def test_room_that_is_not_contiguous_is_refused():
    arguments = case("planar")
    with pytest.raises(ValueError, match="must be contiguous"):
        fuse_history(*arguments, room(arguments).transpose(1, 2))


def test_it_starts_as_many_kernels_as_it_says():
    arguments = (*case("planar", 16, 1), None)
    assert count_launches(fuse_history, arguments) == launches_of(fused_form(operator), arguments)
