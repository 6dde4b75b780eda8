# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What is true in a key frame: the labels of a benchmark, read from a data set's folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from alocc_ros.datasets.formats import LabelFormat, MaskFile, find_format
from alocc_ros.datasets.label_files import UNKNOWN, Truth, read_mask
from alocc_ros.datasets.samples import LidarSample, Sample
from alocc_ros.errors import DataError
from alocc_ros.words import counted

__all__ = [
    "UNKNOWN",
    "Truth",
    "SOURCES",
    "check_present",
    "label_folders",
    "missing_files",
    "missing_images",
    "read_truth",
    "training_masks",
    "truth_files",
]

# Who publishes what is in a folder of a data set; all else is nuScenes' own.
SOURCES = {
    "gts": "Occ3D-nuScenes",
    "openocc_v2": "OpenOcc",
    "openocc_v2_ray_mask": "OpenOcc's ray mask",
    "gts_surroundocc": "SurroundOcc",
    "nuScenes-Occupancy-v0.1": "OpenOccupancy",
}


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


def training_masks(supervision: str) -> dict[str, bool]:
    """Which masks a model of that supervision learns with, as arguments of ``read_truth``."""
    return {
        "ray_mask": supervision in ("ray_visible", "visible"),
        "camera_mask": supervision in ("camera_visible", "visible"),
    }


def label_folders(
    labels: LabelFormat, *, ray_mask: bool = False, camera_mask: bool = False
) -> tuple[str, ...]:
    """The folders of a data set in which ``read_truth`` opens files."""
    pose = np.eye(4)
    sweep = LidarSample("token", 0, Path("sweep"), pose, pose)  # any: its folder is asked for
    sample = Sample("token", "scene", "scene", 0, {}, sweep)
    files = truth_files(Path(), sample, labels, ray_mask=ray_mask, camera_mask=camera_mask)
    return tuple(dict.fromkeys(file.parts[0] for file in files))


def check_present(missing: list[Path], what: str, root: Path | None = None) -> None:
    """Says what is missing, all of it at once; below ``root``, how much of which data set.

    Raises:
        DataError: something is missing.
    """
    if missing:
        shown = ", ".join(str(path) for path in missing[:5])
        rest = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        parts = Counter(
            path.relative_to(root).parts[0]
            for path in missing
            if root is not None and path.is_relative_to(root)
        )
        sources = [f"{n} in {f}/ of {SOURCES.get(f, 'nuScenes')}" for f, n in parts.items()]
        where = f" ({', '.join(sources)})" if sources else ""
        files = f"{counted(len(missing), 'file')} of {what}"
        verb = "is" if len(missing) == 1 else "are"
        raise DataError(f"{files} {verb} missing{where}: {shown}{rest}")


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
