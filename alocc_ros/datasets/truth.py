# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What is true in a key frame: the labels of a benchmark, read from a data set's folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from alocc_ros.datasets.formats import LabelFormat, MaskFile, find_format
from alocc_ros.datasets.label_files import UNKNOWN, Truth, read_mask
from alocc_ros.datasets.samples import Sample
from alocc_ros.errors import DataError

__all__ = [
    "UNKNOWN",
    "Truth",
    "check_present",
    "missing_files",
    "missing_images",
    "read_truth",
    "truth_files",
]


def truth_files(
    root: Path,
    sample: Sample,
    benchmark: str | LabelFormat,
    *,
    ray_mask: bool = False,
    camera_mask: bool = False,
) -> tuple[Path, ...]:
    """The files that ``read_truth`` opens.

    Raises:
        DataError: no such benchmark.
    """
    labels = find_format(benchmark)
    masks = _extra_masks(labels, sample, ray_mask, camera_mask)
    return (root / labels.path(sample), *(root / mask.path(sample) for mask in masks.values()))


def missing_files(
    root: Path,
    samples: Iterable[Sample],
    benchmark: str | LabelFormat,
    *,
    ray_mask: bool = False,
    camera_mask: bool = False,
) -> list[Path]:
    """Of the label files of these key frames, those that are not there.

    Raises:
        DataError: no such benchmark.
    """
    masks = {"ray_mask": ray_mask, "camera_mask": camera_mask}
    files = (f for s in samples for f in truth_files(root, s, benchmark, **masks))
    return [file for file in files if not file.is_file()]


def missing_images(samples: Iterable[Sample]) -> list[Path]:
    """Of the images of these key frames, those that are not there."""
    files = (camera.path for sample in samples for camera in sample.cameras.values())
    return [file for file in files if not file.is_file()]


def check_present(missing: list[Path], what: str) -> None:
    """Says what is missing, all of it at once.

    Raises:
        DataError: something is missing.
    """
    if missing:
        shown = ", ".join(str(path) for path in missing[:5])
        rest = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise DataError(f"{len(missing)} files of {what} are missing: {shown}{rest}")


def read_truth(
    root: Path,
    sample: Sample,
    benchmark: str | LabelFormat,
    *,
    ray_mask: bool = False,
    camera_mask: bool = False,
) -> Truth:
    """The labels of a key frame.

    Args:
        root: the data set's folder.
        sample: the key frame.
        benchmark: a name in ``formats.FORMATS``, or the format itself.
        ray_mask: also read the ray mask, if the benchmark has one: OpenOcc's is a download of
            its own.
        camera_mask: also read the camera mask, if it lies in a file of its own: OpenOcc's labels
            come without one, and take Occ3D's. Occ3D's labels always come with it.

    Raises:
        DataError: no such benchmark, or a file is missing, damaged, or holds something else.
    """
    labels = find_format(benchmark)
    truth = labels.read(root / labels.path(sample), labels.classes, labels.grid)
    for name, mask in _extra_masks(labels, sample, ray_mask, camera_mask).items():
        array = read_mask(root / mask.path(sample), mask.array, labels.grid)
        truth = replace(truth, **{name: array})
    return truth


def _extra_masks(
    labels: LabelFormat, sample: Sample, ray_mask: bool, camera_mask: bool
) -> dict[str, MaskFile]:
    """By attribute of ``Truth``: masks that are wanted and not in the label file itself."""
    wanted = {
        "ray_mask": labels.ray_mask if ray_mask else None,
        "mask_camera": labels.camera_mask if camera_mask else None,
    }
    return {
        name: mask
        for name, mask in wanted.items()
        if mask is not None and mask.path(sample) != labels.path(sample)
    }
