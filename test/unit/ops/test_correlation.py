# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import pytest
import torch
from operators import assert_close, gradients, random, threads

from alocc_ros.ops.correlation import TAPS, correlation, correlation_reference


def case(channels: int, batch: int = 2):
    current, previous = random(batch, channels, 14, 17), random(batch, channels, 14, 17, seed=1)
    previous[:, :, 3:6, 4:9] = 0.0  # empty cells
    return current, previous


@pytest.mark.parametrize("channels", [1, 3, 8, 48])
def test_it_equals_the_reference(form, channels):
    assert_close(form(correlation)(*case(channels)), correlation_reference(*case(channels)))


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (3, 2)])
def test_maps_that_are_smaller_than_the_reach(form, size):
    current, previous = random(1, 4, *size), random(1, 4, *size, seed=1)
    assert_close(form(correlation)(current, previous), correlation_reference(current, previous))


def test_it_finds_a_shift(form):
    previous = random(1, 16, 30, 30)
    current = torch.roll(previous, (4, -2), (2, 3))  # moved by +4 in y, -2 in x
    best = form(correlation)(current, previous)[0, :, 15, 15].argmax()
    # The past is read at (y - 4, x + 2): tap (-2, +1) of the 11 x 11, counted from (-5, -5).
    assert divmod(int(best), TAPS) == (5 - 2, 5 + 1)


def test_where_nothing_was_anywhere_every_displacement_is_alike(form):
    current = random(1, 5, 4, 4)
    match = form(correlation)(current, torch.zeros_like(current))
    assert_close(match, torch.full_like(match, 1 / TAPS**2))


def test_nan_is_shown_where_it_is_looked_at(form):
    current, previous = case(4, batch=1)
    current[0, 2, 3, 3] = torch.nan
    previous[0, 1, 10, 10] = torch.nan
    nan = form(correlation)(current, previous).isnan().any(1)[0]
    assert torch.equal(nan, correlation_reference(current, previous).isnan().any(1)[0])
    # The present one at its place, the past one in reach of 10 cells, every second of them.
    assert nan[3, 3] and nan[10, 10] and nan[0, 0] and not nan[9, 9]


def test_a_batch_is_each_sample_alone(form):
    current, previous = case(6)
    alone = [form(correlation)(c[None], p[None]) for c, p in zip(current, previous, strict=True)]
    assert_close(form(correlation)(current, previous), torch.cat(alone), tolerance=1e-6)


def test_gradients_are_those_of_the_reference():
    ours, theirs = (gradients(f, case(4), (0, 1)) for f in (correlation, correlation_reference))
    for own, its in zip(ours, theirs, strict=True):
        assert_close(own, its)


def test_threads_change_nothing(compiled):
    matches = []
    for count in (1, 2, 7):
        with threads(count):
            matches.append(correlation(*case(8)))
    assert all(torch.equal(matches[0], m) for m in matches)
