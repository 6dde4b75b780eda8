# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc demo``: a synthetic street, the node over ROS 2, and the scores of what it says.

Exits with 1 if no results came.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import webbrowser
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from alocc_ros.cli._values import image_size, number_within, whole_number_from
from alocc_ros.errors import AloccError, OutputError

if TYPE_CHECKING:
    from rich.console import Console

    from alocc_ros.records import ModelRecord
    from alocc_ros.ros.demo.drive import DriveResult
    from alocc_ros.ros.demo.scores import Scored
    from alocc_ros.ros.demo.street import Street

_SEED = 2032  # no network of this package was trained on it
_SIZE = (160, 440)  # px, of which the smallest network sees nearly every one
_SECONDS = 5.5
_PAGES = 12
_NEEDED = ("rclpy", "alocc_ros.msg", "tf2_msgs", "tf2_ros", "message_filters")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``alocc demo``."""
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("out/demo"),
        metavar="DIR",
        help="folder for all that is made (default out/demo)",
    )
    parser.add_argument(
        "--model", default="alocc_tiny", help="a name of `alocc models list`, or a file"
    )
    parser.add_argument("--random-weights", action="store_true", help="run without trained weights")
    parser.add_argument(
        "--seed", type=whole_number_from(0), default=_SEED, help="other seed, other street"
    )
    parser.add_argument(
        "--seconds",
        type=number_within(0.5, 60.0, "seconds"),
        default=_SECONDS,
        metavar="S",
        help=f"of driving ({_SECONDS})",
    )
    parser.add_argument(
        "--size",
        type=image_size,
        default=_SIZE,
        metavar="HxW",
        help="of the images ({}x{})".format(*_SIZE),
    )
    parser.add_argument("--view", action="store_true", help="show it when it is done")
    parser.set_defaults(variant=None)  # the node is given the model alone


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    _check_ros()
    record = _model(args)
    # Whatever is running ends in its order, its processes with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    from rich.console import Console

    from alocc_ros.cli._progress import bars
    from alocc_ros.evaluation.scoring import find_scoring
    from alocc_ros.ros.demo import pages, report
    from alocc_ros.ros.demo.drive import drive
    from alocc_ros.ros.demo.scores import score
    from alocc_ros.ros.demo.street import Street

    scoring = find_scoring(f"{record.classes.name}-mask")
    scoring.check_model(record)
    console, out = Console(), args.output
    street = Street(out, args.seed, args.seconds, args.size)
    with bars() as on_progress:
        if not street.bag.exists():
            print(f"a street is drawn, once, which takes minutes: {street.bag}", flush=True)
        street.make(on_progress)
    recording, picture, animation, found = (
        out / name for name in ("occupancy.mcap", "demo.png", "demo.webp", "demo.json")
    )
    # What an earlier run left must not be taken for what this one found.
    _forget(recording, picture, animation, found)
    with _telling() as tell:
        driven = drive(street.bag, recording, args.model, tell, random_weights=args.random_weights)
        if driven.recording is None:
            return _nothing(driven)
        scored = score(recording, street, scoring, _PAGES, tell)
        tell("pages are drawn")
        pages.draw(scored.pairs, street.bag, scored.model, picture, animation)
    report.save(found, scored, driven)
    _tell(console, scored, driven)
    _say_what_is_where(street, recording, picture, animation, found)
    if args.view:
        _show(recording, street.bag, picture)
    return 0


def _check_ros() -> None:
    missing = [name for name in _NEEDED if not _is_there(name)]
    if missing:
        raise AloccError(
            f"the demo runs the ROS 2 node, and {', '.join(missing)} cannot be imported here: "
            "`make ros` takes ROS 2 from wheels (it needs a C++ compiler and Python's headers, and "
            "says which is missing), or source a ROS 2 installation with this package built; "
            "`alocc doctor --node` tells more, `alocc run` needs no ROS"
        )


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _model(args: argparse.Namespace) -> ModelRecord:
    """The model, whose weights are here: before anything that takes time."""
    from alocc_ros.cli._models import find_model, load_network

    record, weights = find_model(args)
    load_network(record, weights, "cpu", 0)  # a damaged file is told now, not in minutes
    return record


@contextlib.contextmanager
def _telling() -> Iterator[Callable[[str], None]]:
    """What is going on, on stderr: in a terminal all of it, else a line for each new thing."""
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        with console.status("") as status:
            yield status.update
        return
    told = ""

    def tell(text: str) -> None:
        nonlocal told
        what = text.partition(":")[0]
        if what != told:
            print(what, file=sys.stderr, flush=True)
        told = what

    yield tell


def _forget(*paths: Path) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}") from error


def _nothing(driven: DriveResult) -> int:
    print("alocc: the node gave no results; it said:", file=sys.stderr)
    print(driven.node_output.strip(), file=sys.stderr)
    return 1


def _tell(console: Console, scored: Scored, driven: DriveResult) -> None:
    from rich.table import Table

    from alocc_ros.ros.demo.report import score_rows, time_rows

    table = Table(
        title=f"{scored.model}: {len(scored.stamps)} results against the truth", show_header=False
    )
    table.add_column()
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    for rows in (score_rows(scored), time_rows(driven)):
        for row in rows:
            table.add_row(row.name, row.value, row.meaning)
        table.add_section()
    console.print(table)
    if scored.random_weights:
        console.print("RANDOM WEIGHTS: the scores mean nothing", style="bold red")
    console.print(", ".join(f"{k} {v}" for k, v in driven.environment.items()), style="dim")


def _say_what_is_where(street: Street, *made: Path) -> None:
    recording, picture, animation, found = made
    lines = (
        (street.bag, "the street, kept for the next time"),
        (recording, "what the node published; for Foxglove, too"),
        (picture, "images, the node's voxels, the true ones"),
        (animation, "the same in motion"),
        (found, "the numbers above, and those of each class"),
    )
    width = max(len(str(path)) for path, _ in lines)
    text = "\n".join(f"  {path!s:{width}}  {what}" for path, what in lines)
    program = _program()
    print(f"\nWhat there is now:\n{text}\n\nWhat to do next:")
    print(f"  {program} view {recording} {street.bag} --png pages")
    print(f"  {program} play {recording}")
    print(f"  {program} run BAG -o OUT.mcap --model MODEL")
    print("docs/demo.md explains the numbers, docs/node.md the node on a vehicle.")


def _program() -> str:
    """How this was called: in a virtual environment that is not activated, by its file."""
    called = Path(sys.argv[0])
    on_path = shutil.which("alocc")
    if called.name != "alocc" or (on_path and Path(on_path).resolve() == called.resolve()):
        return "alocc"
    return str(called)


def _show(recording: Path, bag: Path, picture: Path) -> None:
    """In the viewer if it is there, else the picture, else it is said how."""
    has_screen = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    if has_screen and _is_there("rerun"):
        command = [sys.executable, "-m", "alocc_ros.cli.main", "view", str(recording), str(bag)]
        subprocess.run(command)
        return
    opener = shutil.which("xdg-open")
    if has_screen and opener:
        subprocess.run([opener, str(picture)])
        return
    if has_screen and webbrowser.open(picture.resolve().as_uri()):
        return
    reason = "nothing here opens pictures" if has_screen else "there is no screen here"
    print(f"{reason}: copy {picture} to where one is (Rerun: pip install 'alocc_ros[viewer]')")
