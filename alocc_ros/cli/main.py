# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc``: finds the subcommand, turns what goes wrong into one line and an exit code.

Exit codes: 0 done, 1 the thing checked does not hold, 2 bad input or usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Sequence

from alocc_ros import __version__
from alocc_ros.errors import AloccError

# Name and help; the code is in alocc_ros/cli/<name>.py: add_arguments(parser), run(args) -> int.
# Only the module of the command that was asked for is imported.
COMMANDS = (
    ("run", "occupancy and flow of a recorded bag"),
    ("evaluate", "score a model on nuScenes, or on anything in its format"),
    ("score", "compare recorded results with the LiDAR of the drive, without labels"),
    ("view", "look at bags, results, NPZ files and datasets"),
    ("prepare", "make info files and LiDAR classes of a nuScenes folder, once"),
    ("convert", "write scenes of nuScenes, or pictures and poses, as ROS 2 bags"),
    ("play", "publish a bag over ROS 2, where there is no rosbag2"),
    ("record", "write ROS 2 topics into a bag, where there is no rosbag2"),
    ("demo", "a synthetic street, the node, and the scores of what it says"),
    ("soak", "a bag in a loop and faults into the node for hours, and what became of all"),
    ("parity", "compare this build of the network with golden tensors"),
    ("benchmark", "time the network on this machine"),
    ("flops", "count the network's operations"),
    ("train", "train a network on nuScenes, or on anything in its format"),
    ("launch", "train or evaluate in several processes, on one machine or several"),
    ("rig", "the cameras of another vehicle: presets, pictures to check them, scores"),
    ("synth", "write a synthetic nuScenes: images, LiDAR and perfect truth"),
    ("export", "write a network as ONNX, or as engines of TensorRT"),
    ("calibrate", "look at your cameras' images, for a network in int8"),
    ("models", "list, fetch and verify published weights"),
    ("doctor", "what is here, what is missing, and how to mend it"),
)
_BROKEN_PIPE = 128 + 13  # what a shell reports for a program that SIGPIPE ended
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


def parser_for(argv: Sequence[str]) -> argparse.ArgumentParser:
    """The parser, with the arguments of the command that ``argv`` names."""
    parser = argparse.ArgumentParser(
        prog="alocc", description="Camera-only 3D occupancy and flow (ALOcc, arXiv 2411.07725)."
    )
    parser.add_argument("--version", action="version", version=f"alocc {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, help_line in COMMANDS:
        sentence = f"{help_line[0].upper()}{help_line[1:]}."
        command = commands.add_parser(name, help=help_line, description=sentence)
        if argv[:1] == [name]:
            module = importlib.import_module(f"alocc_ros.cli.{name}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        args = parser_for(argv).parse_args(argv)
        code = args.run(args)
        sys.stdout.flush()  # a reader that went away shows here, not at exit
        return code
    except AloccError as error:
        return _fail(str(error))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("", "alocc_ros"):
            raise
        return _fail(f"the Python package {error.name!r} is not installed{_advice(error.name)}")
    except KeyboardInterrupt:
        if os.environ.get("LOCAL_RANK") is None:  # else the launcher says it, once for all
            print("alocc: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        _silence_stdout()
        return _BROKEN_PIPE
    except OSError as error:
        if error.errno not in _NO_ROOM or error.filename is not None:
            raise
        _silence_stdout()
        return _fail(f"cannot write to the standard output: {error.strerror}")


def _silence_stdout() -> None:
    """Python would complain once more when it flushes stdout at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str) -> int:
    # Names out of damaged files may hold anything; a terminal must not act on it.
    line = "".join(c if c.isprintable() else " " for c in message)
    print(f"alocc: error: {line}", file=sys.stderr)
    return 2


def _advice(package: str | None) -> str:
    if package != "torch":
        return ""
    return ": run tools/install_torch.py (CPU), or pip install alocc_ros[gpu]"


if __name__ == "__main__":
    sys.exit(main())
