# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Pages into files: one PNG, a PNG for each frame, a moving picture. Whole files or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from alocc_ros.arrays import direction_colours
from alocc_ros.errors import OutputError
from alocc_ros.files import whole_file
from alocc_ros.labels import OCC3D

ANIMATIONS = {".gif": "GIF", ".webp": "WEBP"}
ANIMATION_WIDTH = 960  # px
ANIMATION_FRAMES = 300  # all of them are in memory
_SLOWEST, _FASTEST = 1000, 50  # ms a frame
_REST = 500  # ms for the last one, or if there is only one


def save_png(path: Path, page: Image.Image, about: Mapping[str, str] | None = None) -> None:
    """Writes one page; ``about`` goes into the file as text, by keyword.

    Raises:
        OutputError: it cannot be written.
    """
    notes = PngInfo()
    for keyword, text in (about or {}).items():
        notes.add_text(keyword, text)
    with whole_file(path) as scratch:
        page.save(scratch, format="PNG", pnginfo=notes)


class Animation:
    """A moving picture that is being put together, in a ``with`` block at whose end it is written.

    Attributes:
        path: the file, ``.gif`` or ``.webp``.
    """

    def __init__(self, path: Path, width: int = ANIMATION_WIDTH, fps: float | None = None) -> None:
        """Nothing is written yet.

        Args:
            path: its suffix selects the format.
            width: px.
            fps: pages a second; None: as they were recorded.

        Raises:
            OutputError: another suffix.
        """
        if path.suffix.lower() not in ANIMATIONS:
            raise OutputError(f"--animation {path}: the name must end in {' or '.join(ANIMATIONS)}")
        self.path, self._width, self._fps = path, width, fps
        self._pages: list[Image.Image] = []
        self._stamps: list[int] = []

    def add(self, stamp: int, page: Image.Image) -> None:
        """One more page.

        Raises:
            OutputError: there are too many.
        """
        if len(self._pages) == ANIMATION_FRAMES:
            raise OutputError(
                f"--animation {self.path}: more than {ANIMATION_FRAMES} frames; choose with "
                "--max-frames"
            )
        size = (self._width, round(page.height * self._width / page.width))
        self._pages.append(page.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0))
        self._stamps.append(stamp)

    def __enter__(self) -> Animation:
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        """Writes the file, if all went well and there is anything to be seen.

        Raises:
            OutputError: it cannot be written.
        """
        if failure is not None or not self._pages:
            return
        pages, options = self._pages, {"quality": 82, "method": 4}
        if self.path.suffix.lower() == ".gif":
            pages, options = _with_one_palette(pages), {"disposal": 1}
        with whole_file(self.path) as scratch:
            pages[0].save(
                scratch,
                format=ANIMATIONS[self.path.suffix.lower()],
                save_all=True,
                append_images=pages[1:],
                duration=self._durations(),
                loop=0,
                **options,
            )

    def _durations(self) -> list[int]:  # ms
        if self._fps is not None:
            return [round(1000 / self._fps)] * len(self._pages)
        apart = np.diff(self._stamps) // 1_000_000
        return [*np.clip(apart, _FASTEST, _SLOWEST).tolist(), _REST]


def _with_one_palette(pages: Sequence[Image.Image]) -> list[Image.Image]:
    """Palettes that change from page to page flicker.

    Most of the palette is what the pages have most of; the classes, which may be small in them,
    and the directions of motion have a part of their own.
    """
    chosen = [pages[i] for i in np.unique(np.linspace(0, len(pages) - 1, 8).astype(int))]
    width, height = chosen[0].size
    strip = Image.new("RGB", (width, height * len(chosen)))
    for number, page in enumerate(chosen):
        strip.paste(page, (0, number * height))
    turns = direction_colours(np.arange(12) * np.pi / 6) * 255
    always = np.vstack([OCC3D.colours, 0.75 * OCC3D.colours, turns]).astype(np.uint8)
    often = strip.quantize(256 - len(always), Image.Quantize.MEDIANCUT).getpalette("RGB")
    palette = Image.new("P", (1, 1))
    palette.putpalette([*(often or []), *always.reshape(-1).tolist()])
    return [page.quantize(palette=palette, dither=Image.Dither.NONE) for page in pages]
