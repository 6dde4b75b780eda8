# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Fusion of the history by Triton. Bfloat16 is not here: the interpreter cannot multiply it."""

from __future__ import annotations

import pytest
import torch
from interpreted import TOLERANCES, TYPES, count_launches, stored, wide
from operators import assert_close, random

from alocc_ros.ops import history as operators
from alocc_ros.ops.history import fuse_history_reference
from alocc_ros.ops.history.triton import add_present, remembered_sum
from alocc_ros.ops.library import fused_form, launches_of

SIZES = {"planar": (9, 11, 1), "volume": (3, 5, 6)}  # more than a tile, and no multiple of it


def case(shape: str, channels: int = 6, slots: int = 3, batch: int = 1):
    """Arguments of the reference but the last; the history is moved over all borders."""
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


def fuse(current, history, bias, motion, matrix, offset, out):
    """Both kernels; in between only the first slot is still open."""
    partial = remembered_sum(history, bias, motion, matrix, out)
    assert partial.dtype == torch.float32
    assert out is None or out[..., : current.shape[-1]].isnan().all()
    return add_present(current, partial, bias, matrix, offset, out)


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
    ours = fuse(*arguments, kept)
    reference = fuse_history_reference(*wide(arguments), expected)
    assert ours.dtype == data and ours.stride() == reference.stride()
    assert_close(ours.float(), reference, TOLERANCES[data])
    assert_close(kept.float(), expected, TOLERANCES[data])


@pytest.mark.parametrize("shape", SIZES)
def test_samples_of_a_batch_do_not_meet(shape):
    arguments = case(shape, 20, 2, batch=2)
    kept, expected = room(arguments), room(arguments)
    ours = fuse(*arguments, kept)
    assert_close(ours, fuse_history_reference(*arguments, expected), TOLERANCES[torch.float32])
    assert_close(kept, expected, TOLERANCES[torch.float32])


@pytest.mark.parametrize("shape", SIZES)
def test_history_that_is_not_kept_is_only_read(shape):
    arguments = case(shape)
    before = arguments[1].clone()
    unkept = fuse(*arguments, None)
    assert torch.equal(arguments[1], before)
    assert torch.equal(unkept, fuse(*arguments, room(arguments)))


@pytest.mark.parametrize("metres", [1e3, -1e12, torch.inf, torch.nan])
def test_what_lies_outside_is_zero(metres):
    arguments = case("volume", slots=2)
    arguments[3][0, 1, 3] = metres
    kept = room(arguments)
    fuse(*arguments, kept)
    assert torch.equal(kept[..., :6], arguments[0]) and not kept[..., 6:].any()


@pytest.mark.parametrize("argument", [0, 1])
def test_nan_shows_where_it_does_in_the_reference(argument):
    arguments = case("volume")
    arguments[argument][0, 1, 2, 3, 4] = torch.nan
    kept, expected = room(arguments), room(arguments)
    ours = fuse(*arguments, kept)
    reference = fuse_history_reference(*arguments, expected)
    assert reference.isnan().any() and not reference.isnan().all()
    assert_close(ours, reference, TOLERANCES[torch.float32])
    assert_close(kept, expected, TOLERANCES[torch.float32])


def test_room_that_is_not_contiguous_is_refused():
    _, history, bias, motion, matrix, _ = arguments = case("planar")
    with pytest.raises(ValueError, match="must be contiguous"):
        remembered_sum(history, bias, motion, matrix, room(arguments).transpose(1, 2))


def test_they_start_as_many_kernels_as_they_say():
    current, history, bias, motion, matrix, offset = case("planar", 16, 1)
    first = (history, bias, motion, matrix, None)
    form = fused_form(operators.remembered_sum)
    assert count_launches(remembered_sum, first) == launches_of(form, first)
    second = (current, remembered_sum(*first), bias, matrix, offset, None)
    form = fused_form(operators.add_present)
    assert count_launches(add_present, second) == launches_of(form, second)
