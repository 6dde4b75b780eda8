# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The image network in int8 on a CPU, by onnxruntime: a quarter of its float32 time.

What follows the image network stays float32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from alocc_ros.network.model import Alocc
from alocc_ros.runtime.cache import Cache
from alocc_ros.runtime.engines import PassedNeck, graph_of
from alocc_ros.runtime.export import segments
from alocc_ros.runtime.prepare import pack_for_cpu
from alocc_ros.runtime.quantisation import CPU, Quantisation, Ranges, check_packages


def int8_core(
    prepared: Alocc,
    identity: str,
    ranges: Ranges,
    cameras: int = 6,
    cache: Cache | None = None,
) -> Alocc:
    """``pack_for_cpu`` with the image part in int8.

    Args:
        prepared: as ``prepare`` made it.
        identity: ``identity_of`` the network that it was made of.
        ranges: of its activations, as ``find_ranges`` found them.
        cameras: of the rig.
        cache: where the quantised graph is kept; None: this user's.

    Raises:
        DeviceError: the ranges are of another form of the network.
        ParameterError: onnxruntime, onnx or onnxscript are missing.
    """
    check_packages()
    segment = segments(prepared, cameras, quantisation=Quantisation(ranges, CPU))[0]
    graph = graph_of(segment, identity, cache or Cache())
    packed = pack_for_cpu(prepared, cameras=cameras)
    packed.img_backbone, packed.img_neck = _Int8Images(graph), PassedNeck()
    return packed


class _Int8Images(nn.Module):
    """Backbone and neck in one graph."""

    def __init__(self, graph: bytes) -> None:
        super().__init__()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"]
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        answers = self._session.run(None, {"images": images.contiguous().numpy()})
        c2, feature = (torch.from_numpy(a) for a in answers)
        return c2, feature, feature
