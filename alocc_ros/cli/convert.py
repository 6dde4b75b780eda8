# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc convert``: scenes of nuScenes, or pictures and poses, as ROS 2 bags."""

from __future__ import annotations

import argparse
from pathlib import Path

from alocc_ros.cli._motion import add_motion_arguments, of_pictures
from alocc_ros.cli._progress import bars
from alocc_ros.datasets.formats import FORMATS
from alocc_ros.errors import OutputError, ParameterError
from alocc_ros.words import counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``alocc convert``."""
    parser.add_argument("format", choices=["nuscenes", "images"], help="what is there")
    parser.add_argument(
        "root", type=Path, help="folder that holds v1.0-..., samples, sweeps; or the images"
    )
    parser.add_argument("--scene", metavar="NAME[,NAME...]", help="e.g. scene-0061, or `all`")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="of images: the rig file (`alocc rig example`)"
    )
    add_motion_arguments(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help="bag to write (.mcap); for several scenes a folder, which gets one bag each",
    )
    parser.add_argument("--version", help="tables to read, e.g. v1.0-mini (default: v1.0-trainval)")
    parser.add_argument(
        "--truth",
        choices=list(FORMATS),
        help="also write the labels of this benchmark",
    )
    parser.add_argument("--boxes", action="store_true", help="also write the annotated boxes")
    parser.add_argument(
        "--keyframes-only", action="store_true", help="2 Hz instead of all that was recorded"
    )


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    if args.format == "images":
        return _images(args)
    if args.scene is None:
        raise ParameterError("nuscenes: say with --scene which ones, or `all`")
    names = None if args.scene == "all" else [n.strip() for n in args.scene.split(",") if n.strip()]
    if names == []:
        raise ParameterError("--scene: name at least one scene")
    is_file = args.output.suffix == ".mcap"
    if is_file and (names is None or len(names) > 1):
        raise OutputError(f"-o {args.output}: several scenes need a folder, not a single .mcap")
    if is_file and args.output.is_dir():
        raise OutputError(f"-o {args.output}: there is a folder of that name")

    from alocc_ros.datasets.convert import convert_scene, describe, is_converted
    from alocc_ros.datasets.nuscenes import NuScenes
    from alocc_ros.files import component

    with bars() as on_progress:
        dataset = NuScenes(args.root, args.version, scenes=names, on_progress=on_progress)
        for scene in dataset.scenes:
            path = args.output if is_file else args.output / f"{component(scene.name)}.mcap"
            about = describe(dataset, scene, args.truth, args.keyframes_only, args.boxes)
            if not is_file and is_converted(path, about):
                print(f"{path}: is there already")
                continue
            made = convert_scene(
                dataset,
                scene,
                path,
                args.truth,
                key_frames_only=args.keyframes_only,
                boxes=args.boxes,
                on_progress=on_progress,
            )
            grids = f", {counted(made.grids, 'grid')} of {args.truth}" if args.truth else ""
            print(
                f"{path}: {made.seconds:.1f} s, {counted(made.images, 'image')}, "
                f"{counted(made.sweeps, 'sweep')}{grids} "
                f"({path.stat().st_size / 1e6:.1f} MB)"
            )
    return 0


def _images(args: argparse.Namespace) -> int:
    from alocc_ros.bags.pictures import write_bag
    from alocc_ros.bags.reader import Bag
    from alocc_ros.bags.rig_example import preset_text
    from alocc_ros.files import whole_file

    if args.output.suffix != ".mcap" or args.output.is_dir():
        raise OutputError(f"-o {args.output}: the recording's name must end in .mcap")
    preset = args.output.with_suffix(".yaml")
    if args.config and preset.resolve() == args.config.resolve():
        raise OutputError(f"-o {args.output}: its preset would overwrite {args.config}")
    args.bag = args.root
    pictures = of_pictures(args)
    if pictures is None:
        raise ParameterError(f"{args.root} holds no pictures, films or folders of pictures")
    write_bag(pictures, args.output)
    with Bag(args.output) as bag:
        text = preset_text(bag)
        images = sum(bag.counts[t.image] for t in pictures.preset.used_cameras.values())
    with whole_file(preset) as scratch:
        scratch.write_text(text, encoding="utf-8")
    size = args.output.stat().st_size / 1e6
    print(f"{args.output}: {counted(images, 'image')} ({size:.1f} MB); {preset} has its topics")
    return 0
