# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Class scores to labels on a GPU, and voxel features to both in one pass."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from alocc_ros.ops.argmax.reference import evenly_spaced
from alocc_ros.ops.triton_common import Launch, blocks, power_of_2, run

# Scores of a program.
_BLOCK = 4096


def occupancy_argmax(logits: Tensor, first: int) -> Tensor:
    """See ``occupancy_argmax_reference``."""
    rows = logits if evenly_spaced(logits) else logits.contiguous()
    labels = rows.new_empty(rows.shape[:-1], dtype=torch.uint8)
    run(_argmax_launches(rows, labels, first))
    return labels


def classify(voxels: Tensor, classes: Tensor, skip: int) -> tuple[Tensor, Tensor]:
    """See ``classify_reference``. Labels are those of scores that are not rounded yet."""
    rows = voxels if evenly_spaced(voxels) else voxels.contiguous()
    logits = rows.new_empty(*rows.shape[:-1], classes.shape[1])
    labels = rows.new_empty(rows.shape[:-1], dtype=torch.uint8)
    run(_classify_launches(rows, classes, logits, labels, skip))
    return logits, labels


def signatures(data: torch.dtype = torch.float16) -> dict[str, Launch]:
    """By name, the kernels that the published networks start."""

    def empty(*shape: int, dtype: torch.dtype = data) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    cells = (1, 200, 200, 16)
    labels, logits = empty(*cells, dtype=torch.uint8), empty(*cells, 18)
    classify = (empty(*cells, 48), empty(48, 18), logits, labels, 0)
    return {
        "argmax": _argmax_launches(logits, labels, 0)[0],
        "classify, 3d": _classify_launches(*classify)[0],
    }


def _argmax_launches(logits: Tensor, labels: Tensor, first: int) -> list[Launch]:
    classes, count = logits.shape[-1], labels.numel()
    wide = power_of_2(classes)
    rows = max(1, _BLOCK // wide)
    constants = {"Q": classes, "ROWS": rows, "QB": wide, "FIRST": first}
    arguments = (logits, labels, count, _distance(logits))
    return [Launch(argmax_kernel, (blocks(count, rows),), arguments, constants)]


def _classify_launches(
    voxels: Tensor, classes: Tensor, logits: Tensor, labels: Tensor, skip: int
) -> list[Launch]:
    (width, queries), count = classes.shape, labels.numel()
    wide = power_of_2(queries, 16)
    rows = max(16, _BLOCK // wide)
    constants = {"V": width, "Q": queries, "SKIP": skip}
    constants |= {"ROWS": rows, "VB": power_of_2(width, 16), "QB": wide}
    arguments = (voxels, classes, logits, labels, count, _distance(voxels), *classes.stride())
    return [Launch(classify_kernel, (blocks(count, rows),), arguments, constants)]


def _distance(rows: Tensor) -> int:
    """Numbers from row to row, of rows that are evenly spaced."""
    strides = [s for n, s in zip(rows.shape[:-1], rows.stride(), strict=False) if n != 1]
    return strides[-1] if strides else rows.shape[-1]


@triton.jit
def _labels(scores, q, SKIP: tl.constexpr, Q: tl.constexpr):
    """First class from SKIP on with the highest sigmoid; NaN is higher than any number, as torch
    has it.
    """
    share = 1 / (1 + tl.exp(-scores))
    share = tl.where(scores != scores, 2.0, share)
    share = tl.where(((q >= SKIP) & (q < Q))[None, :], share, -1.0)
    best = tl.max(share, 1)
    number = tl.where(share == best[:, None], q[None, :], Q)
    return tl.min(number, 1)


@triton.jit
def argmax_kernel(
    logits, labels, count, distance,
    Q: tl.constexpr,  # classes
    ROWS: tl.constexpr,
    QB: tl.constexpr,  # power of two, at least Q
    FIRST: tl.constexpr,
):  # fmt: skip
    """Logits [count, Q], rows ``distance`` apart; labels [count]; grid (blocks of rows,)."""
    row, q = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, QB)
    live = row < count
    place = row.to(tl.int64)[:, None] * distance + q[None, :]
    scores = tl.load(logits + place, mask=live[:, None] & (q < Q)[None, :], other=0.0)
    best = _labels(scores.to(tl.float32), q, 0, Q) + FIRST
    tl.store(labels + row, best.to(tl.uint8), mask=live)


@triton.jit
def classify_kernel(
    voxels, classes, logits, labels, count, distance, classes_v, classes_q,
    V: tl.constexpr,  # channels
    Q: tl.constexpr,  # classes
    SKIP: tl.constexpr,  # leading classes that are no label
    ROWS: tl.constexpr,
    VB: tl.constexpr,  # powers of two, at least V and Q
    QB: tl.constexpr,
):  # fmt: skip
    """Voxels [count, V], rows ``distance`` apart; logits [count, Q], labels [count]; grid (blocks
    of rows,).
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    v, q = tl.arange(0, VB), tl.arange(0, QB)
    live, wide = row < count, row.to(tl.int64)[:, None]
    now = tl.load(voxels + wide * distance + v, mask=live[:, None] & (v < V)[None, :], other=0.0)
    matrix = tl.load(
        classes + v[:, None] * classes_v + q[None, :] * classes_q,
        mask=(v < V)[:, None] & (q < Q)[None, :],
        other=0.0,
    ).to(now.dtype)
    scores = tl.dot(now, matrix, input_precision="ieee")
    there = live[:, None] & (q < Q)[None, :]
    tl.store(logits + wide * Q + q, scores.to(logits.dtype.element_ty), mask=there)
    tl.store(labels + row, _labels(scores, q, SKIP, Q).to(tl.uint8), mask=live)
