# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Our own small vectors: what the small networks said when they agreed with the reference.

``python test/golden/make_own_vectors.py`` writes own_vectors.npz anew; do that only after
``alocc parity`` passed against the reference's tensors.
"""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from small_networks import drive, small  # noqa: E402

from alocc_ros.bench import scene  # noqa: E402
from alocc_ros.network.model import Alocc  # noqa: E402

FILE = Path(__file__).with_name("own_vectors.npz")
NAMES = ("alocc_2d_mini", "alocc_2d", "alocc_3d", "alocc_flow_2d", "alocc_flow_3d")
FRAMES = 3


def uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers in [0, 1) that depend on the name alone, the same with every numpy and torch."""
    count = int(np.prod(shape)) if shape else 1
    raw = np.random.PCG64(zlib.crc32(name.encode())).random_raw(count)
    return ((raw >> np.uint64(11)) * 2.0**-53).reshape(shape)


def named_network(name: str) -> Alocc:
    """The small network with weights made from their names."""
    network = Alocc(small(name)).eval()
    state = network.state_dict()
    for key, tensor in state.items():
        if key.startswith("view_transformer") or not tensor.is_floating_point():
            continue
        values = uniform(key, tuple(tensor.shape))
        if key.endswith("running_var"):
            values = 0.5 + values
            if key.startswith("depth_net.bn."):
                values = 1e5 * values  # raw focal lengths come in
        elif tensor.dim() > 1:
            values = (values - 0.5) * np.sqrt(24.0 / np.prod(tensor.shape[1:]))
        elif key.endswith("weight"):
            values = 0.75 + 0.5 * values
        else:
            values = 0.2 * (values - 0.5)
        tensor.copy_(torch.from_numpy(values))
    network.load_state_dict(state)
    return network


def images(shape: tuple[int, ...], device: object, seed: int) -> torch.Tensor:
    """Noise from its own name, instead of torch's generator."""
    return torch.from_numpy(2 * uniform(f"images {seed}", shape) - 1).float()


def outputs(name: str, backend: str) -> dict[str, np.ndarray]:
    """Every 37th logit and flow, and all labels of the last frame."""
    before, scene._images = scene._images, images
    try:
        last = drive(named_network(name), FRAMES, backend)[-1]
    finally:
        scene._images = before
    found = {"logits": last.logits.reshape(-1)[::37].numpy(), "labels": last.labels[0].numpy()}
    if last.flow is not None:
        found["flow"] = last.flow.reshape(-1)[::37].numpy()
    return found


if __name__ == "__main__":
    arrays = {}
    for name in NAMES:
        for key, value in outputs(name, "reference").items():
            arrays[f"{name}/{key}"] = value[::8] if value.dtype == np.float32 else value
    np.savez_compressed(FILE, **arrays)
    print(f"{FILE.name}: {FILE.stat().st_size / 1e3:.0f} kB")
