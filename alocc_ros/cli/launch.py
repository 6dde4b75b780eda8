# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc launch``: several processes of one command, by torchrun's own launcher.

``torchrun -m alocc_ros.cli.main`` starts the same processes, but ends with a traceback and exit
code 1 whatever happened to them; here their exit code is the command's.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
import uuid
from collections.abc import Sequence

from alocc_ros.cli._values import whole_number_from
from alocc_ros.errors import AloccError, ParameterError

_TOGETHER = ("train", "evaluate")  # the commands that share work between processes
# Seconds from Ctrl-C until the launcher kills: a step ends and writes its checkpoint meanwhile,
# and the memories of 3D networks are gigabytes. torch's own 30 are too few.
_PATIENCE = "600"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``alocc launch``; torchrun's names where it has the same."""
    parser.add_argument(
        "--nproc-per-node", type=whole_number_from(1), metavar="N",
        help="processes on this machine (default: one for each GPU, or one)",
    )  # fmt: skip
    parser.add_argument(
        "--nnodes", type=whole_number_from(1), default=1, metavar="N",
        help="machines, each of which runs this command (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--rdzv-endpoint", metavar="HOST:PORT", help="one of the machines, where all of them meet"
    )
    parser.add_argument(
        "--rdzv-id", default="alocc", metavar="NAME",
        help="tells this run from others that meet there (default: alocc)",
    )  # fmt: skip
    parser.add_argument(
        "arguments", nargs=argparse.REMAINDER, metavar="COMMAND ...",
        help=f"{' or '.join(_TOGETHER)}, and its options",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Runs the command; its exit code is the first one that is not 0."""
    if args.arguments[:1] not in [[name] for name in _TOGETHER]:
        raise ParameterError(
            "launch runs a command in several processes: alocc launch [OPTIONS] "
            f"{'|'.join(_TOGETHER)} ..."
        )
    if args.nnodes > 1 and not args.rdzv_endpoint:
        raise ParameterError("--nnodes: say with --rdzv-endpoint HOST:PORT where machines meet")
    if args.rdzv_endpoint:
        _check_endpoint(args.rdzv_endpoint)
    return start(args, ["-m", "alocc_ros.cli.main", *args.arguments])


def start(args: argparse.Namespace, command: Sequence[str]) -> int:
    """The same for anything that Python runs.

    Raises:
        KeyboardInterrupt: a signal came; the processes have ended.
        AloccError: a process was killed.
        ParameterError: the machines do not find each other.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as torchrun, but without a banner
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", _PATIENCE)
    import torch
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    _silence_torch()
    config = LaunchConfig(
        min_nodes=args.nnodes,
        max_nodes=args.nnodes,
        nproc_per_node=args.nproc_per_node or max(1, torch.cuda.device_count()),
        # Alone on this machine, it meets nobody: any free port, and a name of its own.
        run_id=args.rdzv_id if args.rdzv_endpoint else str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint=args.rdzv_endpoint or "localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, entrypoint=sys.executable)("-u", *command)
    except SignalException as interruption:
        raise KeyboardInterrupt from interruption
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode >= 0:  # the process has said why
            return failure.exitcode
        name = signal.Signals(-failure.exitcode).name
        raise AloccError(f"process {rank} was killed by {name}; the others were ended") from error
    except RendezvousError as error:
        raise ParameterError(
            f"--rdzv-endpoint {args.rdzv_endpoint}: the machines do not find each other: "
            f"{str(error).splitlines()[0]}"
        ) from error
    return 0


def _check_endpoint(endpoint: str) -> None:
    """torch would look for a host of which nobody knows for minutes."""
    host, _, port = endpoint.rpartition(":")
    if not host or not port.isdecimal():
        raise ParameterError(f"--rdzv-endpoint {endpoint}: expected HOST:PORT, such as node1:29500")
    try:
        socket.getaddrinfo(host.strip("[]"), int(port))
    except (OSError, OverflowError) as error:
        raise ParameterError(f"--rdzv-endpoint {endpoint}: no such host ({error})") from error


def _silence_torch() -> None:
    """What its launcher logs of a process that ended is said here, in one line."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(("torch.distributed.elastic", "torch.distributed.launcher")):
            logging.getLogger(name).setLevel(logging.CRITICAL)
