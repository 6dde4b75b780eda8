# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""A network with its weights, out of a record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from alocc_ros import records
from alocc_ros.errors import CheckpointError
from alocc_ros.network.checkpoint import LoadReport, load_weights, read_weights
from alocc_ros.network.model import Alocc
from alocc_ros.network.variants import find_variant
from alocc_ros.network.weights_file import Weights, some
from alocc_ros.runtime.device import keep_freed_memory, resolve_device


def load_network(
    record: records.ModelRecord,
    weights_file: Path | None,
    device: str,
    seed: int,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[Alocc, str]:
    """The network on its device, and where its weights come from in a few words.

    ``say`` hears which of the file's tensors are used, where there is something to say.

    Raises:
        CheckpointError: the file cannot be read safely, or does not fit.
        ModelError: it is not the file that the record is about.
        DeviceError: no such device.
    """
    weights = f"RANDOM WEIGHTS (seed {seed})"
    if weights_file is not None:
        weights = f"sha256:{records.verified_sha256(weights_file, record)}"

    place = resolve_device(device)
    keep_freed_memory()
    torch.manual_seed(seed)
    network = Alocc(find_variant(record.variant))
    if weights_file is not None:
        for line in fill(network, weights_file):
            say(line)
    return network.eval().to(place), weights


def fill(network: Alocc, weights_file: Path) -> list[str]:
    """Puts a file's weights into a network; what the user should know of which they are.

    Raises:
        CheckpointError: the file cannot be read safely, or does not fit.
    """
    weights = None
    try:
        weights = read_weights(weights_file)
        report = load_weights(network, weights.tensors)
    except CheckpointError as error:
        named = str(error).startswith((str(weights_file), weights_file.name))
        where = f"{weights_file}: " + (f"{weights.entry}: " if weights and weights.entry else "")
        raise CheckpointError(str(error) if named else f"{where}{error}") from error
    return _remarks(weights_file, weights, report)


def _remarks(path: Path, weights: Weights, report: LoadReport) -> list[str]:
    lines = []
    if weights.entry:
        lines.append(f"weights of {path.name}: {weights.source()}")
    if report.constant:
        lines.append(f"weights of {path.name} of one number only: {some(report.constant)}")
    return lines
