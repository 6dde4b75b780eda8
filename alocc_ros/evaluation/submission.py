# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Predictions in the format of the CVPR 2024 Occupancy and Flow challenge.

A gzip file of one pickled dictionary: a few lines about the method, and ``results``: for each
sample token the class, distance and flow at the end of every ray, origin after origin.
"""

from __future__ import annotations

import gzip
import pickle
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from alocc_ros.errors import ParameterError
from alocc_ros.evaluation.store import Rays
from alocc_ros.files import whole_file

# What the challenge wants to know, besides the results.
ABOUT = ("method", "team", "authors", "e-mail", "institution / company", "country / region")


def check_about(about: Mapping[str, str]) -> None:
    """That these are entries of the challenge.

    Raises:
        ParameterError: one is not.
    """
    if unknown := [key for key in about if key not in ABOUT]:
        raise ParameterError(
            f"the challenge has no entry {unknown[0]!r}; there are {', '.join(ABOUT)}"
        )


def write_submission(
    path: Path,
    scenes: Iterable[tuple[list[str], Rays]],
    about: Mapping[str, str],
) -> None:
    """Writes the file, scene after scene: all of them at once would not fit into memory.

    Args:
        path: of the file, usually ``*.gz``.
        scenes: sample tokens of each scene, and its rays.
        about: entries of ``ABOUT``; others stay empty.

    Raises:
        OutputError: it cannot be written; nothing is left behind.
    """
    submission = {key: about.get(key, "") for key in ABOUT}
    submission["authors"] = [a.strip() for a in about.get("authors", "").split(",")]
    submission["results"] = _Streamed(_frames(scenes))
    # No time and no name in the header: equal results, equal files.
    with (
        whole_file(path) as scratch,
        scratch.open("wb") as file,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed,
    ):
        pickler = pickle.Pickler(packed, protocol=4)
        pickler.fast = True  # remembers nothing, so what was written can go
        pickler.dump(submission)


def _frames(
    scenes: Iterable[tuple[list[str], Rays]],
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    for tokens, rays in scenes:
        end = 0
        for token, count in zip(tokens, rays.counts, strict=True):
            begin, end = end, end + int(count)
            yield (
                token,
                {
                    "pcd_cls": rays.classes[begin:end].copy(),
                    "pcd_dist": rays.distance[begin:end].copy(),
                    "pcd_flow": rays.flow[begin:end].copy(),
                },
            )


class _Streamed:
    """Pickles as a dictionary whose items are made one after the other."""

    def __init__(self, items: Iterator[tuple[str, object]]) -> None:
        self._items = items

    def __reduce__(self) -> tuple[object, ...]:
        return dict, (), None, None, self._items
