# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""A network with its weights, out of a record."""

from __future__ import annotations

from pathlib import Path

import torch

from alocc_ros import records
from alocc_ros.errors import CheckpointError
from alocc_ros.network.checkpoint import load_weights, read_state_dict
from alocc_ros.network.model import Alocc
from alocc_ros.network.variants import find_variant
from alocc_ros.runtime.device import keep_freed_memory, resolve_device


def load_network(
    record: records.ModelRecord, weights_file: Path | None, device: str, seed: int
) -> tuple[Alocc, str]:
    """The network on its device, and where its weights come from in a few words.

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
        try:
            load_weights(network, read_state_dict(weights_file))
        except CheckpointError as error:
            named = str(error).startswith((str(weights_file), weights_file.name))
            raise CheckpointError(str(error) if named else f"{weights_file}: {error}") from error
    return network.eval().to(place), weights
