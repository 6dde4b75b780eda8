# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Arrows, captions and rounded corners: what the parts of a page are drawn with."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from alocc_ros.viewer.layout import BACKGROUND, CORNER_RADIUS, FAINT, TEXT

_ARROW_HEAD = 7.0  # px


def draw_arrows(
    picture: Image.Image,
    ends: np.ndarray,  # [n, 2, 2] px, from and to
    colours: list[tuple[int, int, int]],
) -> None:
    """Arrows with a dark rim, drawn twice as large and made smaller: smooth on any ground."""
    if not len(ends):
        return
    large = picture.resize((picture.width * 2, picture.height * 2), Image.Resampling.NEAREST)
    painter = ImageDraw.Draw(large)
    for (start, end), colour in zip(2 * ends, colours, strict=True):
        length = float(np.hypot(*(end - start)))
        if length < 4 or not np.isfinite(length):
            continue
        along = (end - start) / length
        across = np.array([-along[1], along[0]])
        head = min(2 * _ARROW_HEAD, 0.6 * length)
        neck = end - head * along
        tip = [tuple(end), tuple(neck + 0.55 * head * across), tuple(neck - 0.55 * head * across)]
        for fill, extra in (((10, 12, 16), 4), (colour, 0)):
            painter.line([tuple(start), tuple(neck)], fill, 4 + extra)
            painter.polygon(tip, fill, fill, width=max(extra, 1))
    picture.paste(large.resize(picture.size, Image.Resampling.BOX))


def write_caption(picture: Image.Image, text: str) -> None:
    """A caption in the upper left corner, readable on anything."""
    painter = ImageDraw.Draw(picture, "RGBA")
    text = fitting_text(text, load_font(14), picture.width - 40)
    width = painter.textlength(text, load_font(14))
    painter.rounded_rectangle((8, 8, 8 + width + 16, 8 + 24), 6, (*BACKGROUND, 190))
    painter.text((16, 20), text, TEXT, load_font(14), "lm")


def fitting_text(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """As much of it as there is room for; names out of files may hold anything."""
    whole = "".join(c if c.isprintable() else " " for c in text[:500]).strip()
    shown = whole
    while shown and font.getlength(shown) > width:
        shown = shown[:-1]
    return whole if shown == whole else shown[:-3].rstrip() + "..." if len(shown) > 3 else ""


def write_centred(picture: Image.Image, text: str) -> None:
    """Lines in the middle of the picture, six at most."""
    painter = ImageDraw.Draw(picture)
    words, lines = text.split(), [""]
    for word in words:
        longer = f"{lines[-1]} {word}".strip()
        if painter.textlength(longer, load_font(14)) > 0.85 * picture.width:
            lines.append(word)
        else:
            lines[-1] = longer
    middle = (picture.width / 2, picture.height / 2)
    painter.text(middle, "\n".join(lines[:6]), FAINT, load_font(14), "mm", align="center")


def write_outlined(
    painter: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    font: ImageFont.FreeTypeFont,
    anchor: str,
) -> None:
    """Text with a dark rim; ``anchor`` (as of Pillow): which point of it is at ``place`` (px)."""
    painter.text(place, text, TEXT, font, anchor, stroke_width=2, stroke_fill=(10, 12, 16))


def paste_rounded(page: Image.Image, tile: Image.Image, place: tuple[int, int]) -> None:
    """``tile`` with its upper left corner at ``place`` (px), its corners rounded."""
    page.paste(tile, place, _rounded(tile.size))


@lru_cache(maxsize=16)
def _rounded(size: tuple[int, int]) -> Image.Image:
    large = Image.new("L", (size[0] * 4, size[1] * 4))
    box = (0, 0, large.width - 1, large.height - 1)
    ImageDraw.Draw(large).rounded_rectangle(box, 4 * CORNER_RADIUS, 255)
    return large.resize(size, Image.Resampling.BOX)


@lru_cache(maxsize=16)
def load_font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font; ``size`` in px."""
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
