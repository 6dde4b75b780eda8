# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Lifted volumes on disk: what frozen image networks make of each key frame, computed once.

Of a network whose image part learns no more, every visit of a key frame lifts the same volume. It
is kept in half precision (bird's-eye networks: 80 KB a channel of 200 x 200 cells), one file a key
frame, under the digest of the weights that made it: other weights find none of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from alocc_ros.distributed import World
from alocc_ros.errors import DataError, ParameterError
from alocc_ros.files import whole_file
from alocc_ros.network.model import Alocc
from alocc_ros.training.forward import TrainingForward
from alocc_ros.training.samples import Preparation
from alocc_ros.training.streams import Visit

# The parts of a network that a volume is made by; they have to be frozen.
IMAGE_PARTS = ("img_backbone", "img_neck", "depth_net")


class VolumeStore:
    """Volumes of one network's image part.

    Attributes:
        folder: where they lie.
    """

    def __init__(self, root: Path, network: Alocc) -> None:
        self.folder = root / _digest(network)

    def path(self, key: str) -> Path:
        """The file of a key frame (``SampleSource.key``)."""
        return self.folder / f"{key}.npy"

    def read(self, key: str) -> np.ndarray:  # [C, Y, X, Z] float16
        """The volume of a key frame, mapped into memory and not yet read.

        Raises:
            DataError: the file is missing or damaged.
        """
        path = self.path(key)
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: {error}; delete it, and it is made again") from error

    def write(self, key: str, volume: Tensor) -> None:  # [C, Y, X, Z]
        """Keeps a volume; the whole file or none.

        Raises:
            OutputError: it cannot be written.
        """
        with whole_file(self.path(key)) as scratch, scratch.open("wb") as stream:
            np.save(stream, volume.half().cpu().numpy())


def check_frozen(network: Alocc, frozen: Iterable[str]) -> None:
    """Whether a network with these frozen parts can be trained on volumes.

    Raises:
        ParameterError: it cannot.
    """
    v = network.variant
    if v.recurrent or not v.history:
        raise ParameterError(f"volumes: {v.name} has no history of lifted volumes")
    missing = [name for name in IMAGE_PARTS if name not in set(frozen)]
    if missing:
        raise ParameterError(
            f"volumes: what makes them must stay as it is, --set frozen=[{', '.join(IMAGE_PARTS)}];"
            f" {', '.join(missing)} would learn"
        )


def fill(
    store: VolumeStore,
    preparation: Preparation,
    forward: TrainingForward,
    device: torch.device,
    world: World,
    on_progress: Callable[[int, int], None] = lambda done, of: None,
) -> None:
    """Makes the volumes that are missing; what was stopped goes on where it was.

    Args:
        store: where they are kept.
        preparation: of whole frames as outside training, neither moved nor mirrored.
        forward: of the network in training.
        device: where that is.
        world: its processes, each of which makes a share.
        on_progress: told after each, and how many there are to be made.

    Raises:
        AloccError: a key frame cannot be read, or a file not be written.
    """
    source = preparation.source
    indices = [index for scene in source.scenes for index in scene]
    mine = indices[world.rank :: world.size]
    missing = [i for i in mine if not store.path(source.key(i)).is_file()]
    for done, index in enumerate(missing):
        frame = preparation[Visit(0, 0, index, True)].to(device)
        store.write(source.key(index), forward.lift([frame])[0])
        on_progress(done + 1, len(missing))


def _digest(network: Alocc) -> str:
    """Of everything that a volume depends on but the frame."""
    v = network.variant
    said = (v.name, v.grid, v.lift_grid, v.depth_range, v.depth_step, v.input_size)
    digest = hashlib.sha256(repr((said, network.lift.inter_index_max)).encode())
    for name, value in sorted(network.state_dict().items()):
        if name.startswith(IMAGE_PARTS):
            digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
