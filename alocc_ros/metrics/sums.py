# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What all scores have in common: sums over frames that can be kept and put together, checks of
what comes in, and tables of what goes out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alocc_ros.errors import MetricError
from alocc_ros.labels import ClassList

IGNORED = 255  # a voxel of the truth that nobody knows


class Sums:
    """Named arrays that frames are added to.

    Whole numbers are 64-bit integers. Sums of errors are float64, so they depend on the order:
    for equal bits, add up each scene by itself and merge the scenes in one order.
    """

    def __init__(self, **sums: np.ndarray) -> None:
        self._sums = sums

    def state(self) -> dict[str, np.ndarray]:
        """All that was counted, as plain arrays (copies)."""
        return {name: array.copy() for name, array in self._sums.items()}

    def merge(self, state: Mapping[str, np.ndarray]) -> None:
        """Adds what another accumulator of this kind has counted: its ``state()``.

        Raises:
            MetricError: it is the state of another kind.
        """
        if state.keys() != self._sums.keys():
            raise MetricError(f"these scores hold {sorted(state)}, not {sorted(self._sums)}")
        for name, array in self._sums.items():
            if state[name].shape != array.shape or state[name].dtype != array.dtype:
                raise MetricError(
                    f"{name} of these scores is {list(state[name].shape)} {state[name].dtype}, "
                    f"not {list(array.shape)} {array.dtype}"
                )
        for name, array in self._sums.items():
            array += state[name]


def checked_labels(
    labels: Any, classes: ClassList, what: str, *, ignored: bool = False, shape: Any = None
) -> np.ndarray:  # [X, Y, Z] uint8
    """``labels`` (numpy or torch) as uint8, every one of them a class (or 255, if ``ignored``).

    Raises:
        MetricError: they are not; says where.
    """
    labels = as_array(labels)
    if labels.ndim != 3 or (shape is not None and labels.shape != tuple(shape)):
        wanted = "[X, Y, Z]" if shape is None else f"{list(shape)}, as the truth"
        raise MetricError(f"labels of the {what} must be {wanted}, got {list(labels.shape)}")
    if labels.dtype.kind not in "iu":
        raise MetricError(f"labels of the {what} must be whole numbers, got {labels.dtype}")
    top = len(classes.names)
    wrong = (labels < 0) | (labels >= top)
    if ignored:
        wrong &= labels != IGNORED
    if wrong.any():
        where = np.argwhere(wrong)[0]
        raise MetricError(
            f"label {labels[tuple(where)]} of the {what} at voxel {where.tolist()}: "
            f"{classes.name} has classes 0 to {top - 1}"
        )
    return labels.astype(np.uint8, copy=False)


def as_array(values: Any) -> np.ndarray:
    """A numpy array of a numpy array or of a tensor on any device."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient, NaN where there is nothing to divide by."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan)


def mean_of_known(values: np.ndarray) -> float:
    """Mean without the NaN ones; NaN if there are no others."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def plain(value: Any) -> Any:
    """For JSON, which knows neither arrays nor NaN: lists, and None."""
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def text_table(header: Sequence[str], rows: Sequence[Sequence[Any]], digits: int = 2) -> str:
    """Columns of text and numbers; a dash for what is not known."""

    def text(cell: Any) -> str:
        if isinstance(cell, float | np.floating):
            return "-" if math.isnan(cell) else f"{cell:.{digits}f}"
        return str(cell)

    lines = [list(header), *([text(c) for c in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
