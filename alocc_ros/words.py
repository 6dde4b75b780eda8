# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Numbers in messages for people."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """``1 scene``, ``2 scenes``; of nouns whose plural ends in s."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
