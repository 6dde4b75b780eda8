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
    labels = _room(logits)
    run(_argmax_launches(logits, labels, first))
    return labels


def classify(voxels: Tensor, classes: Tensor, skip: int) -> tuple[Tensor, Tensor]:
    """See ``classify_reference``. Labels are those of scores that are not rounded yet."""
    rows, labels = voxels if evenly_spaced(voxels) else voxels.contiguous(), _room(voxels)
    logits = rows.new_empty(*rows.shape[:-1], classes.shape[1])
    run(_classify_launches(rows, classes, logits, labels, skip))
    return logits, labels


def _room(cells: Tensor) -> Tensor:
    """For labels of [B, Y, X, ..., C], X before Y in memory."""
    shape = list(cells.shape[:-1])
    if len(shape) < 3:
        return cells.new_empty(shape, dtype=torch.uint8)
    shape[1:3] = shape[2], shape[1]
    return cells.new_empty(shape, dtype=torch.uint8).transpose(1, 2)


def _axes(tensor: Tensor, values: bool) -> Tensor:
    """With the four axes B, Y, X, Z, and one of values behind them."""
    count = tensor.dim() - values
    if count > 4:
        raise ValueError(f"labels of volumes [B, Y, X, Z], not {list(tensor.shape)}")
    for _ in range(4 - count):
        tensor = tensor.unsqueeze(count)
    return tensor


def signatures(data: torch.dtype = torch.float16) -> dict[str, Launch]:
    """By name, the kernels that the published networks start."""

    def empty(*shape: int, dtype: torch.dtype = data) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    cells = (1, 200, 200, 16)
    labels, logits = _room(empty(*cells, 1)), empty(*cells, 18)
    classify = (empty(*cells, 48), empty(48, 18), logits, labels, 0)
    return {
        "argmax": _argmax_launches(logits, labels, 0)[0],
        "classify, 3d": _classify_launches(*classify)[0],
    }


def _argmax_launches(logits: Tensor, labels: Tensor, first: int) -> list[Launch]:
    classes, count = logits.shape[-1], labels.numel()
    logits, labels = _axes(logits, True), _axes(labels, False)
    wide = power_of_2(classes)
    rows = max(1, _BLOCK // wide)
    constants = dict(zip("YXZ", labels.shape[1:], strict=True))
    constants |= {"Q": classes, "ROWS": rows, "QB": wide, "FIRST": first}
    arguments = (logits, labels, count, *logits.stride(), *labels.stride())
    return [Launch(argmax_kernel, (blocks(count, rows),), arguments, constants)]


def _classify_launches(
    voxels: Tensor, classes: Tensor, logits: Tensor, labels: Tensor, skip: int
) -> list[Launch]:
    (width, queries), count = classes.shape, labels.numel()
    labels = _axes(labels, False)
    wide = power_of_2(queries, 16)
    rows = max(16, _BLOCK // wide)
    constants = dict(zip("YXZ", labels.shape[1:], strict=True))
    constants |= {"V": width, "Q": queries, "SKIP": skip}
    constants |= {"ROWS": rows, "VB": power_of_2(width, 16), "QB": wide}
    arguments = (voxels, classes, logits, labels, count, _distance(voxels))
    arguments += (*classes.stride(), *labels.stride())
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
def _place(
    row, along_b, along_y, along_x, along_z, Y: tl.constexpr, X: tl.constexpr, Z: tl.constexpr
):
    """Where cells lie that are counted in order of (b, y, x, z)."""
    column = row // Z
    b = (column // (Y * X)).to(tl.int64)
    y, x = column // X % Y, column % X
    return b * along_b + y * along_y + x * along_x + row % Z * along_z


@triton.jit
def argmax_kernel(
    logits, labels, count, logits_b, logits_y, logits_x, logits_z, logits_q,
    labels_b, labels_y, labels_x, labels_z,
    Y: tl.constexpr, X: tl.constexpr, Z: tl.constexpr,
    Q: tl.constexpr,  # classes
    ROWS: tl.constexpr,
    QB: tl.constexpr,  # power of two, at least Q
    FIRST: tl.constexpr,
):  # fmt: skip
    """Logits [B, Y, X, Z, Q], labels [B, Y, X, Z]; grid (blocks of rows,)."""
    row, q = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, QB)
    live = row < count
    place = _place(row, logits_b, logits_y, logits_x, logits_z, Y, X, Z)
    scores = tl.load(
        logits + place[:, None] + (q * logits_q)[None, :],
        mask=live[:, None] & (q < Q)[None, :],
        other=0.0,
    )
    to = labels + _place(row, labels_b, labels_y, labels_x, labels_z, Y, X, Z)
    best = _labels(scores.to(tl.float32), q, 0, Q) + FIRST
    tl.store(to, best.to(tl.uint8), mask=live)


@triton.jit
def classify_kernel(
    voxels, classes, logits, labels, count, distance, classes_v, classes_q,
    labels_b, labels_y, labels_x, labels_z,
    Y: tl.constexpr, X: tl.constexpr, Z: tl.constexpr,
    V: tl.constexpr,  # channels
    Q: tl.constexpr,  # classes
    SKIP: tl.constexpr,  # leading classes that are no label
    ROWS: tl.constexpr,
    VB: tl.constexpr,  # powers of two, at least V and Q
    QB: tl.constexpr,
):  # fmt: skip
    """Voxels [count, V], rows ``distance`` apart; logits [count, Q], labels [B, Y, X, Z]; grid
    (blocks of rows,).
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
    to = labels + _place(row, labels_b, labels_y, labels_x, labels_z, Y, X, Z)
    tl.store(to, _labels(scores, q, SKIP, Q).to(tl.uint8), mask=live)
