# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The first line of a page, and the legend below it all."""

from __future__ import annotations

from datetime import datetime, timezone

from PIL import Image, ImageDraw

from alocc_ros.labels import ClassList
from alocc_ros.viewer.drawing import fitting_text, load_font
from alocc_ros.viewer.frames import ViewFrame
from alocc_ros.viewer.layout import (
    AMBER,
    BACKGROUND,
    CONTENT_WIDTH,
    FAINT,
    HEADER_HEIGHT,
    LEGEND_ROW_HEIGHT,
    MARGIN,
    PAGE_WIDTH,
    RED,
    TEXT,
)


def write_header(page: Image.Image, view: ViewFrame) -> None:
    """What is shown, what has to be known about it, and when it was taken."""
    painter = ImageDraw.Draw(page)
    baseline = HEADER_HEIGHT - 22
    when = _time_of_day(view.stamp)
    painter.text((PAGE_WIDTH - MARGIN, baseline), when, FAINT, load_font(16), "rs")
    end = PAGE_WIDTH - MARGIN - painter.textlength(when, load_font(16)) - 24
    left: float = MARGIN
    title = [f"{layer.name}   {layer.detail}" for layer in view.layers[:1]] or ["cameras"]
    for text, colour, size in [(title[0], TEXT, 24), *_remarks(view)]:
        text = fitting_text(text, load_font(size), end - left)
        painter.text((left, baseline), text, colour, load_font(size), "ls")
        left += painter.textlength(text, load_font(size)) + 18


def _remarks(view: ViewFrame) -> list[tuple[str, tuple[int, int, int], int]]:
    """Words, colour and size (px) of what has to be known about the voxels."""
    remarks = []
    if any(layer.occupancy.random_weights for layer in view.layers):
        remarks.append(("RANDOM WEIGHTS: this means nothing", RED, 16))
    for layer in view.layers[:1]:
        if layer.occupancy.degraded:
            remarks.append((f"degraded: {layer.occupancy.degraded}", AMBER, 16))
        if layer.occupancy.reset:
            remarks.append((f"memory empty: {layer.occupancy.reset}", FAINT, 16))
    return remarks


def _time_of_day(stamp: int) -> str:
    seconds, rest = divmod(stamp, 10**9)
    exact = f"{seconds}.{rest:09d} s"
    try:
        when = datetime.fromtimestamp(seconds, timezone.utc)
    except (OverflowError, OSError, ValueError):  # a stamp beyond any calendar
        return exact
    return f"{when:%Y-%m-%d %H:%M:%S}.{rest // 10**6:03d} UTC   {exact}"


def draw_legend(classes: ClassList) -> Image.Image:
    """Every class with its colour, in columns of equal width."""
    names = [(label, n) for label, n in enumerate(classes.names) if label != classes.free]
    columns = -(-len(names) // 2)
    picture = Image.new("RGB", (CONTENT_WIDTH, 2 * LEGEND_ROW_HEIGHT), BACKGROUND)
    painter = ImageDraw.Draw(picture)
    texts = [name.replace("_", " ") for _, name in names]
    widths = [
        max(painter.textlength(t, load_font(14)) for t in texts[c::columns]) for c in range(columns)
    ]
    space = (CONTENT_WIDTH - sum(widths)) / columns
    left = 0.0
    for column, width in enumerate(widths):
        for row, index in enumerate(range(column, len(names), columns)):
            top = row * LEGEND_ROW_HEIGHT + 6
            colour = tuple(classes.colours[names[index][0]].tolist())
            painter.rounded_rectangle((left, top, left + 16, top + 16), 4, colour, (70, 76, 86))
            painter.text((left + 24, top + 8), texts[index], TEXT, load_font(14), "lm")
        left += width + space
    return picture
