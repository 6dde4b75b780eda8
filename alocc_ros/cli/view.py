# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc view``: bags, recordings of results, NPZ files and datasets, to be looked at."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING

from alocc_ros.cli._progress import bars
from alocc_ros.cli._values import number_within, whole_number_from
from alocc_ros.errors import BagError, OutputError, ParameterError
from alocc_ros.stream.preset import load_preset, preset_names
from alocc_ros.words import counted

if TYPE_CHECKING:
    from alocc_ros.viewer.frames import FrameHandle, ViewFrame
    from alocc_ros.viewer.source import ReadOptions, Source

_FIRST_IN_NS = 10**12  # smaller stamps are seconds: as nanoseconds they were minutes after 1970


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``alocc view``."""
    parser.add_argument(
        "inputs",
        type=Path,
        nargs="+",
        metavar="FILE|DIR",
        help="bag, output of `alocc run`, NPZ files of it, or nuScenes folder; several are "
        "matched by their stamps",
    )
    parser.add_argument(
        "--truth", type=Path, metavar="FILE|DIR", help="ground truth to show beside it"
    )
    scenes = parser.add_mutually_exclusive_group()
    scenes.add_argument("--scene", metavar="NAME", help="of a nuScenes folder")
    scenes.add_argument(
        "--split", metavar="NAME", help="all scenes of a split of a nuScenes folder, such as val"
    )
    parser.add_argument(
        "--benchmark", metavar="NAME", help="ground truth of a nuScenes folder: occ3d, openocc"
    )
    parser.add_argument(
        "--camera-mask", action="store_true", help="only voxels that a camera sees (occ3d knows)"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--preset",
        metavar="NAME",
        help=f"topics and frames of a bag: {', '.join(preset_names())} (default: what fits)",
    )
    where.add_argument(
        "--config", type=Path, metavar="FILE", help="topics and frames from a YAML file"
    )
    parser.add_argument("--calibration", type=Path, help="rig YAML, or folder of camera_info YAMLs")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--frame", type=whole_number_from(0), metavar="N", help="only this one, counted from 0"
    )
    which.add_argument(
        "--stamp", type=_stamp, metavar="S", help="only the one nearest to this stamp, s or ns"
    )
    which.add_argument(
        "--max-frames", type=whole_number_from(1), metavar="N", help="stop after so many"
    )
    parser.add_argument(
        "--png", type=Path, metavar="OUT", help="a page as a picture: one FILE.png, or all in DIR"
    )
    parser.add_argument(
        "--plain-images", action="store_true", help="draw no voxels into the images of a page"
    )
    parser.add_argument(
        "--animation", type=Path, metavar="OUT", help="the pages as a .gif or .webp"
    )
    parser.add_argument(
        "--width", type=whole_number_from(160), metavar="PX", help="of the animation (960)"
    )
    parser.add_argument(
        "--fps",
        type=number_within(0.1, 60.0, "frames a second"),
        help="of the animation (as recorded)",
    )
    parser.add_argument(
        "--save", type=Path, metavar="FILE.rrd", help="a recording for Rerun, without a screen"
    )


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    _check_outputs(args)
    from alocc_ros.viewer.inputs import open_sources
    from alocc_ros.viewer.source import (
        TRUTH,
        ReadOptions,
        as_truth,
        in_display_order,
        with_distinct_names,
    )

    chosen = args.config or args.preset
    options = ReadOptions(
        preset=load_preset(chosen) if chosen else None,
        calibration=args.calibration,
        scene=args.scene,
        split=args.split,
        benchmark=args.benchmark,
    )
    with contextlib.ExitStack() as stack:
        sources: list[Source] = []
        with bars() as on_progress:

            def opened(path: Path) -> list[Source]:
                return open_sources(path, _options_beside(sources, options), stack, on_progress)

            for path in args.inputs:
                sources += opened(path)
            truth = as_truth(opened(args.truth)) if args.truth else []
        if args.truth:
            _check_truth(args.truth, truth, sources)
            sources = [s for s in sources if s.name != TRUTH] + truth
        sources = with_distinct_names(sources)
        number = _show(args, in_display_order(sources))
    for path in filter(None, (args.png, args.animation, args.save)):
        print(f"{path}: {counted(number, 'frame')}")
    for warning in dict.fromkeys(s.warning for s in sources if s.warning):
        print(f"alocc: warning: {warning}", file=sys.stderr)
    return 0


def _options_beside(sources: Sequence[Source], options: ReadOptions) -> ReadOptions:
    """How the next input is read beside those that are open."""
    classes = next((s.classes for s in sources if s.classes), "")
    return dataclasses.replace(options, classes=classes, all_scenes=bool(sources))


def _check_truth(path: Path, truth: Sequence[Source], sources: Sequence[Source]) -> None:
    if not truth:
        classes = next((f" with the classes of {s.classes}" for s in sources if s.classes), "")
        raise BagError(f"--truth {path}: there are no voxels{classes} in it")


def _check_outputs(args: argparse.Namespace) -> None:
    """Before anything is read."""
    if args.save and args.save.suffix != ".rrd":
        raise OutputError(f"--save {args.save}: the name must end in .rrd")
    for path in (args.save, args.animation):
        if path and path.is_dir():
            raise OutputError(f"{path}: there is a folder of that name")
    if args.png and not _one_picture(args) and args.png.is_file():
        raise OutputError(
            f"--png {args.png}: a file of that name is there; give a .png or a folder"
        )
    if (args.width or args.fps) and not args.animation:
        raise ParameterError("--width and --fps are of --animation, which was not asked for")
    if args.config and args.config.suffix not in {".yaml", ".yml"}:
        raise ParameterError(f"--config {args.config}: expected a file that ends in .yaml")
    if _on_screen(args) and sys.platform == "linux":
        if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise ParameterError(
                "there is no screen here (DISPLAY is not set): write pictures with --png or "
                "--animation, or a recording for the Rerun viewer with --save FILE.rrd"
            )


def _on_screen(args: argparse.Namespace) -> bool:
    return not (args.png or args.animation or args.save)


def _one_picture(args: argparse.Namespace) -> bool:
    return args.png is not None and args.png.suffix.lower() == ".png"


def _asked_for(args: argparse.Namespace) -> str:
    if args.frame is not None:
        return f"{args.frame} (they are counted from 0)"
    if args.stamp is not None:
        return f"within 0.1 s of {args.stamp} ns"
    return "in it"


def _show(args: argparse.Namespace, sources: Sequence[Source]) -> int:
    """Everything that was asked for; returns how many frames that were."""
    from alocc_ros.viewer.layers import mask_unseen
    from alocc_ros.viewer.source import matched_frames

    paired: set[Source] = set()
    chosen = _chosen(args, matched_frames(sources, paired.add))
    number = 0
    with contextlib.ExitStack() as stack:
        advance = stack.enter_context(_progress())
        outputs = _outputs(args, sources, stack)
        for number, frame in enumerate(_matched(args, chosen, sources, paired), start=1):
            view = mask_unseen(frame.load()) if args.camera_mask else frame.load()
            for output in outputs:
                output(number - 1, view)
            advance()
        if not number:  # in here, so that outputs which have begun are taken back
            raise BagError(f"{args.inputs[0]}: there is no frame {_asked_for(args)}")
    return number


def _matched(
    args: argparse.Namespace,
    frames: Iterator[FrameHandle],
    sources: Sequence[Source],
    paired: set[Source],
) -> Iterator[FrameHandle]:
    """The frames; an error if the sources to be matched are of another time."""
    alone = args.frame is not None or args.stamp is not None or _one_picture(args)
    seen = False
    for frame in frames:
        seen = True
        if alone:
            _check_matched(sources, paired)
        yield frame
    if seen:
        _check_matched(sources, paired)


def _check_matched(sources: Sequence[Source], paired: set[Source]) -> None:
    for source in sources[1:]:
        if source not in paired:
            what = source.name or "image"
            raise BagError(
                f"no {what} of {source.path} was taken within 0.1 s of the frames of "
                f"{sources[0].path} that were asked for"
            )


def _chosen(args: argparse.Namespace, frames: Iterator[FrameHandle]) -> Iterator[FrameHandle]:
    from alocc_ros.viewer.source import TOLERANCE

    if args.stamp is not None:
        near = nearest(frames, args.stamp)
        return iter([near] if near and abs(near.stamp - args.stamp) <= TOLERANCE else [])
    if args.frame is not None:
        return itertools.islice(frames, args.frame, args.frame + 1)
    return itertools.islice(frames, 1 if _one_picture(args) else args.max_frames)


def nearest(frames: Iterable[FrameHandle], stamp: int) -> FrameHandle | None:
    """The one nearest to ``stamp`` (ns); they come in order of time."""
    best = None
    for frame in frames:
        if best and abs(frame.stamp - stamp) > abs(best.stamp - stamp):
            break
        best = frame
    return best


def _outputs(
    args: argparse.Namespace, sources: Sequence[Source], stack: contextlib.ExitStack
) -> list[Callable[[int, ViewFrame], None]]:
    """What is done with each view."""
    outputs: list[Callable[[int, ViewFrame], None]] = []
    if args.save or _on_screen(args):
        from alocc_ros.viewer.recording import Recording

        names = tuple(dict.fromkeys(s.name for s in sources if s.name))
        cameras = any(s.has_images for s in sources)
        recording = stack.enter_context(Recording(args.save, names, cameras=cameras))
        outputs.append(recording.add)
    if args.png or args.animation:
        outputs.append(_pages(args, stack))
    return outputs


def _pages(
    args: argparse.Namespace, stack: contextlib.ExitStack
) -> Callable[[int, ViewFrame], None]:
    from alocc_ros.viewer.page import render_page
    from alocc_ros.viewer.pictures import ANIMATION_WIDTH, Animation, save_png

    animation = None
    if args.animation:
        animation = Animation(args.animation, args.width or ANIMATION_WIDTH, args.fps)
        stack.enter_context(animation)

    def page_of(number: int, view: ViewFrame) -> None:
        page = render_page(view, plain_images=args.plain_images)
        if args.png:
            name = f"{number + (args.frame or 0):06d}_{view.stamp}.png"
            save_png(args.png if _one_picture(args) else args.png / name, page)
        if animation:
            animation.add(view.stamp, page)

    return page_of


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[], None]]:
    """A count on stderr, if that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.completed:.0f} frames"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda: progress.advance(task)


def _stamp(text: str) -> int:
    """``1600000000.008`` seconds, or the same in whole nanoseconds."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal(-1)
    if not number.is_finite() or not 0 <= number < 1 << 63:
        raise argparse.ArgumentTypeError(f"must be a stamp in seconds or nanoseconds, got {text!r}")
    return int(number if number >= _FIRST_IN_NS else number * 10**9)
