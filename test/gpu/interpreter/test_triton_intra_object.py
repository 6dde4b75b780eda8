# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import pytest
import torch
from interpreted import TOLERANCES, count_launches, stored, wide
from operators import assert_close, random

from alocc_ros.ops.intra_object import intra_object as operator
from alocc_ros.ops.intra_object import intra_object_reference
from alocc_ros.ops.intra_object.triton import intra_object
from alocc_ros.ops.library import fused_form, launches_of


def case(bins: int, length: int):
    depth = torch.softmax(random(2, bins, 3, 4), 1)
    return depth, torch.sigmoid(random(2, length, 3, 4, seed=1))


@pytest.mark.parametrize("data", TOLERANCES)
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("bins", "length"), [(12, 5), (4, 9), (1, 3)])
def test_it_equals_the_reference(data, order, bins, length):
    arguments = tuple(t.contiguous(memory_format=order) for t in stored(case(bins, length), data))
    ours = intra_object(*arguments)
    assert ours.dtype == data and ours.stride() == fused_form(operator)(*arguments).stride()
    assert_close(ours.float(), intra_object_reference(*wide(arguments)), TOLERANCES[data])


def test_nan_reaches_its_own_bin_and_those_behind():
    depth, fill = case(6, 2)
    depth[1, 2, 1, 3] = torch.nan
    nan = intra_object(depth, fill).isnan()
    assert nan[1, :, 1, 3].tolist() == [False, False, True, True, True, False]
    assert nan.sum() == 3


def test_it_starts_as_many_kernels_as_it_says():
    assert count_launches(intra_object, case(6, 2)) == launches_of(fused_form(operator), case(6, 2))
