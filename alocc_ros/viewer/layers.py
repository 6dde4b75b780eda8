# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Voxel grids brought to one vehicle pose and heading, and masked by what the cameras see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from alocc_ros.errors import ParameterError
from alocc_ros.geometry import inverse
from alocc_ros.types import FrameSet
from alocc_ros.viewer.frames import Layer, ViewFrame


def align_to_frame(layer: Layer, frame: FrameSet | None) -> Layer:
    """The layer relative to where the vehicle was at the frame's stamp, if its own is another.

    What stands still on the map then lies on its image. A grid without a recorded pose (the
    identity) stays where it is.
    """
    map_T_layer = layer.occupancy.map_T_base
    if frame is None or layer.occupancy.stamp == frame.stamp or (map_T_layer == np.eye(4)).all():
        return layer
    base_T_layer = inverse(frame.map_T_base) @ map_T_layer
    base_T_grid = base_T_layer if layer.base_T_grid is None else base_T_layer @ layer.base_T_grid
    return replace(layer, base_T_grid=base_T_grid)


def align_heading(layer: Layer) -> Layer:
    """The same voxels in a frame whose x axis looks ahead, up to 45 degrees.

    A LiDAR's frame may be turned: that of nuScenes has y ahead. Whole quarters of a turn leave
    the cells what they are.
    """
    if layer.base_T_grid is None:
        return layer
    heading = np.arctan2(layer.base_T_grid[1, 0], layer.base_T_grid[0, 0])
    quarters = round(heading / (np.pi / 2)) % 4
    occupancy = layer.occupancy
    turn = np.rint(Rotation.from_euler("z", 90 * quarters, degrees=True).as_matrix())
    corners = np.array([occupancy.grid.lower, occupancy.grid.upper]) @ turn.T
    labels = np.ascontiguousarray(np.rot90(occupancy.labels, quarters))
    x, y, z = corners.min(axis=0).tolist()
    flow = occupancy.flow
    if flow is not None:
        flow = np.rot90(flow, quarters) @ turn[:2, :2].T.astype(flow.dtype)
    turned = replace(
        occupancy,
        labels=labels,
        flow=flow,
        grid=replace(occupancy.grid, lower=(x, y, z), shape=labels.shape),
        confidence=None,  # not shown
    )
    base_T_grid = layer.base_T_grid.copy()
    base_T_grid[:3, :3] = base_T_grid[:3, :3] @ turn.T
    return replace(layer, occupancy=turned, base_T_grid=base_T_grid)


def mask_unseen(view: ViewFrame) -> ViewFrame:
    """Without the voxels that no camera sees, as far as ground truth in the view tells them.

    Models that were trained with that mask put anything there, and are not scored for it.

    Raises:
        ParameterError: none of the grids comes with such a mask, or one has another lattice.
    """
    masked = [layer for layer in view.layers if layer.camera_mask is not None]
    mask, grid = (masked[0].camera_mask, masked[0].occupancy.grid) if masked else (None, None)
    if mask is None or any(layer.occupancy.grid != grid for layer in view.layers):
        raise ParameterError(
            f"--camera-mask: nothing tells which voxels the cameras see at {view.stamp} ns; the "
            "ground truth of occ3d does, for grids like its own"
        )
    layers = []
    for layer in view.layers:
        occupancy = layer.occupancy
        labels = np.where(mask, occupancy.labels, np.uint8(occupancy.classes.free))
        layers.append(replace(layer, occupancy=replace(occupancy, labels=labels)))
    return replace(view, layers=tuple(layers))
