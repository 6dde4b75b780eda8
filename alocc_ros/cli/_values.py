# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Kinds of values on the command line: text in, value out, or one line about what is wrong."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable


def whole_number_from(least: int) -> Callable[[str], int]:
    """``least`` and more."""

    def parsed(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least}, got {text!r}")
        return int(text)

    return parsed


def number_within(least: float, most: float, what: str = "a number") -> Callable[[str], float]:
    """``least`` and ``most`` included."""

    def parsed(text: str) -> float:
        number = _number(text)
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(
                f"must be {what} from {least:g} to {most:g}, got {text!r}"
            )
        return number

    return parsed


def positive(text: str) -> float:
    """Above 0, and finite."""
    number = _number(text)
    if not 0.0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return number


def not_negative(text: str) -> float:
    """0 and above, and finite."""
    number = _number(text)
    if not 0.0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number from 0, got {text!r}")
    return number


def image_size(text: str) -> tuple[int, int]:  # height, width
    """``256x704``: what the synthetic street can be drawn in."""
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 256x704 (height x width)")
    height, width = int(match[1]), int(match[2])
    if not (16 <= height <= 1200 and 16 <= width <= 1600):
        raise argparse.ArgumentTypeError(f"{text}: from 16x16 up to 1200x1600")
    return height, width


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan  # within no bounds
