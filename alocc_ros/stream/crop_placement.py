# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Which part of a camera's image the network sees, decided by where the camera looks.

The networks know nuScenes' images: 1600x900 with the horizon between rows 459 and 496, mounting
included, on both of its cars, and focal lengths of 0.50 (back camera) to 0.80 widths; scaled to the
input's width and cut to the lowest rows. A camera of another shape, pitch or lens is scaled and cut
so that its picture is like those; docs/other_vehicles.md has the numbers behind the bounds.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from alocc_ros.errors import CalibrationError
from alocc_ros.stream.image_geometry import Crop
from alocc_ros.stream.preset import LOWEST
from alocc_ros.types import Calibration

_NUSCENES = (1600, 900)  # px
# Rows of such an image: where the horizon is put, ...
_HORIZON = 478
# ... and within which the lowest rows are kept: what nuScenes' cars have, and 1.6 degrees of pitch
# either way. Training itself, which scales at random, shows more than that.
_AS_IN_TRAINING = (424, 531)
# Focal lengths in input widths: of nuScenes' cameras, the back one and the others, and how far one
# may be off (a ratio) and still count as that; nuScenes' own differ by 1.5 %.
_FOCALS = (0.50, 0.79)
_SAME_FOCAL = 1.05
# What training shows at most: those, scaled at random by 0.38 / 0.44 to 0.55 / 0.44.
FOCAL_RANGE = (0.43, 0.99)
# Parts of the input's height that the horizon may be off before it is said: with 0.23 more above
# or 0.33 more below it, there is too little of what stands on the ground, or of the ground.
_USEFUL = (-0.23, 0.33)
_LEVEL = 0.2  # sine; a camera whose y axis is nearer to level looks up, down, or lies on its side


def place_crop(
    calibration: Calibration,
    input_size: tuple[int, int] = (256, 704),  # height and width
) -> Crop:
    """How this camera's images become the network's.

    Raises:
        ParameterError: a size that no input can be cut of.
        CalibrationError: ``calibration.crop`` is not within the image.
    """
    width, height = calibration.width, calibration.height
    if not isinstance(calibration.crop, str):
        return _chosen(calibration, input_size)
    lowest = Crop.fit(width, height, input_size)
    horizon = horizon_row(calibration)
    if calibration.crop == LOWEST or horizon is None:
        return lowest
    rows, columns = input_size
    focal = float(calibration.intrinsics[0, 0]) * lowest.scale / columns
    closer = _closer(focal)
    trained = Crop.fit(*_NUSCENES, input_size)
    first, last = (_share(trained, row) for row in _AS_IN_TRAINING)
    if closer == 1.0 and first <= _share(lowest, horizon) <= last:
        return lowest
    crop = Crop.fit(width, height, input_size, lowest.scale * closer)
    top = horizon * crop.resized[1] / height - _share(trained, _HORIZON) * rows
    return replace(crop, top=round(min(max(top, 0), crop.resized[1] - rows)))


def as_in_training(
    crop: Crop,
    image_size: tuple[int, int],  # height and width, of the images that the network learned from
) -> np.ndarray | None:  # [3, 3]
    """Pixel of the camera's image -> of one of that size which, cut as in training, gives ``crop``.

    A network is told the camera matrix and how its image was cut, in one vector whose numbers it
    has seen a handful of. Said of this other image, it is the same geometry in numbers it knows.
    None: the camera's image was cut as in training, and so it is said as in training.
    """
    if crop == Crop.fit(crop.width, crop.height, crop.input_size):
        return None
    height, width = image_size
    return np.linalg.inv(_affine(Crop.fit(width, height, crop.input_size))) @ _affine(crop)


def _affine(crop: Crop) -> np.ndarray:  # [3, 3]
    """Of homogeneous pixels (u, v, 1): camera's image -> input."""
    affine = crop.post_rotation()
    affine[:2, 2] = crop.post_translation()[:2]
    return affine


def _closer(focal: float) -> float:
    """By how much an image is scaled more than covering the input takes; focal in input widths."""
    wanted = min(_FOCALS, key=lambda known: abs(math.log(known / focal)))
    closer = wanted / focal
    return closer if closer > _SAME_FOCAL else 1.0


def horizon_row(calibration: Calibration) -> float | None:
    """Row of the camera's image, in its middle column, that looks along the ground, px.

    It may lie outside of the image. None: the camera looks up or down, or lies on its side or its
    back.
    """
    down = calibration.base_T_camera[:3, :3].T @ (0.0, 0.0, -1.0)  # in the camera
    if down[1] < _LEVEL:
        return None
    k = calibration.intrinsics
    across = (calibration.width / 2 - k[0, 2]) / k[0, 0]
    return float(k[1, 2] - k[1, 1] * (down[2] + down[0] * across) / down[1])


def crop_remark(calibration: Calibration, crop: Crop) -> str:
    """What the network will not see well in this camera's images, with numbers; or ""."""
    rows, columns = crop.input_size
    horizon = horizon_row(calibration)
    where = (
        f"{calibration.camera}: of {crop.width} x {crop.height} pixels the network sees "
        f"{_seen(crop)}"
    )
    remedy = "`crop` in the preset places it by hand; docs/other_vehicles.md"
    if horizon is None:
        return (
            f"{where}, and the camera looks up or down, or lies on its side: no network here has "
            f"seen such images (turn them before, or check base_T_camera; {remedy})"
        )
    share = _share(crop, horizon)
    wanted = _share(Crop.fit(*_NUSCENES, crop.input_size), _HORIZON)
    if not _USEFUL[0] <= share - wanted <= _USEFUL[1]:
        return (
            f"{where}, with the horizon {100 * share:.0f} % of the height below their top; in "
            f"training it was at {100 * wanted:.0f} %, so it sees too little of "
            f"{'what stands on the ground' if share < wanted else 'the ground'} ({remedy})"
        )
    focal = float(calibration.intrinsics[0, 0]) * crop.resized[0] / crop.width / columns
    if not 0.98 * FOCAL_RANGE[0] <= focal <= FOCAL_RANGE[1]:
        return (
            f"{where}, with a focal length of {focal:.2f} of their width; in training it was 0.50 "
            f"to 0.80 and, scaled at random, {FOCAL_RANGE[0]} to {FOCAL_RANGE[1]}, so what it sees "
            f"looks {'nearer' if focal > 1 else 'farther'} than it is ({remedy})"
        )
    return ""


def _seen(crop: Crop) -> str:
    """The part of the camera's image, in its pixels."""
    rows, columns = crop.input_size
    x, y = crop.width / crop.resized[0], crop.height / crop.resized[1]
    return (
        f"columns {crop.left * x:.0f} to {(crop.left + columns) * x:.0f} and rows "
        f"{crop.top * y:.0f} to {(crop.top + rows) * y:.0f}"
    )


def _share(crop: Crop, horizon: float) -> float:
    """Where a row of the camera's image lies in the input: 0 top, 1 bottom."""
    return (horizon * crop.resized[1] / crop.height - crop.top) / crop.input_size[0]


def _chosen(calibration: Calibration, input_size: tuple[int, int]) -> Crop:
    """The rectangle that the preset names; its height follows from the input's shape."""
    (rows, columns), (left, top, across) = input_size, calibration.crop
    width, height = calibration.width, calibration.height
    down = across * rows / columns
    # Whole pixels of the network's input are not whole ones of the camera's.
    if min(left, top) < 0 or left + across > width or top + down > height + 1:
        raise CalibrationError(
            f"{calibration.camera}: crop [{left}, {top}, {across}] takes {across} x {down:.0f} "
            f"pixels, for the network's input of {columns} x {rows}, which reach outside of an "
            f"image of {width} x {height}"
        )
    crop = Crop.fit(width, height, input_size, columns / across)
    x, y = crop.resized[0] / width, crop.resized[1] / height
    return replace(
        crop,
        left=min(round(left * x), crop.resized[0] - columns),
        top=min(round(top * y), crop.resized[1] - rows),
    )
