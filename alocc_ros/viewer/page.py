# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""One frame on one page: images with the voxels in them, the voxels, what moves, a legend.

The page is as wide whatever is on it; rows that have nothing to show are left out.
"""

from __future__ import annotations

from PIL import Image

from alocc_ros.errors import ImageError
from alocc_ros.viewer.camera_tiles import camera_rows
from alocc_ros.viewer.frames import ViewFrame
from alocc_ros.viewer.header import draw_legend, write_header
from alocc_ros.viewer.layers import align_heading, align_to_frame
from alocc_ros.viewer.layout import BACKGROUND, GAP, HEADER_HEIGHT, MARGIN, PAGE_WIDTH
from alocc_ros.viewer.voxel_panels import voxel_row


def render_page(view: ViewFrame, *, plain_images: bool = False) -> Image.Image:
    """Draws one frame.

    Args:
        view: what there is to see.
        plain_images: no voxels are drawn into the images.

    Raises:
        ImageError: an image cannot be decoded, or there is nothing to see at all.
    """
    if view.frame_set is None and not view.layers:
        raise ImageError(f"there is nothing to see at {view.stamp} ns: no images and no voxels")
    layers = [align_heading(align_to_frame(layer, view.frame_set)) for layer in view.layers]
    rows: list[Image.Image] = []
    if view.frame_set is not None:
        rows.append(camera_rows(view.frame_set, layers[0] if layers and not plain_images else None))
    rows += [voxel_row(layer, captioned=len(layers) > 1) for layer in layers]
    lists = {layer.occupancy.classes.name: layer.occupancy.classes for layer in layers}
    rows += [draw_legend(classes) for classes in lists.values()]

    height = HEADER_HEIGHT + sum(row.height + GAP for row in rows) - GAP + MARGIN
    page = Image.new("RGB", (PAGE_WIDTH, height), BACKGROUND)
    write_header(page, view)
    top = HEADER_HEIGHT
    for row in rows:
        page.paste(row, (MARGIN, top))
        top += row.height + GAP
    return page
