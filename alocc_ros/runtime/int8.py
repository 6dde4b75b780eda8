# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The image network in int8 on a CPU, by onnxruntime: a quarter of its float32 time.

Ranges of activations come from images of the user's own cameras (``alocc calibrate``). The
quantised graph lies in the cache under the digest of the weights; all that follows the image
network stays float32.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from alocc_ros.errors import DeviceError, ParameterError
from alocc_ros.network.model import Alocc
from alocc_ros.runtime.cache import Cache, package_version, weights_digest
from alocc_ros.runtime.engines import PassedNeck
from alocc_ros.runtime.export import OPSET, Segment, segments, to_onnx
from alocc_ros.runtime.prepare import pack_for_cpu

_KIND = "int8"


def quantise(
    prepared: Alocc,
    images: Iterable[np.ndarray],  # [N, 3, H, W] float32 as preprocessed, a set each
    cache: Cache | None = None,
) -> bytes:
    """Make and keep the int8 graph of a prepared network's image part.

    Args:
        prepared: as ``prepare`` made it.
        images: what the cameras see, some tens of sets; all rigs and weathers that matter.
        cache: where to keep it; None: this user's.

    Raises:
        ParameterError: onnxruntime, onnx or onnxscript are missing, or there is no image.
    """
    _check_packages()
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    sets = iter(images)
    if (first := next(sets, None)) is None:
        raise ParameterError("there is not one set of images to calibrate with")
    segment = _image(prepared, len(first))
    with tempfile.TemporaryDirectory(prefix="alocc-int8-") as folder:
        whole, small = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        whole.write_bytes(to_onnx(segment))
        with _without_advice():
            quantize_static(
                str(whole),
                str(small),
                _Reader(first, sets),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
        graph = small.read_bytes()
    (cache or Cache()).put(_KIND, _key(prepared, segment), graph)
    return graph


def int8_core(prepared: Alocc, cameras: int = 6, cache: Cache | None = None) -> Alocc:
    """``pack_for_cpu`` with the image part in int8.

    Raises:
        DeviceError: these weights were never calibrated here.
        ParameterError: onnxruntime is missing.
    """
    _check_packages()
    graph = (cache or Cache()).get(_KIND, _key(prepared, _image(prepared, cameras)))
    if graph is None:
        raise DeviceError(
            "precision int8: these weights have not been calibrated on this machine; run "
            "`alocc calibrate BAG --model MODEL` with a recording of your cameras first"
        )
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


class _Reader:
    """onnxruntime's CalibrationDataReader: one set of images after the other."""

    def __init__(self, first: np.ndarray, others: Iterator[np.ndarray]) -> None:
        self._sets = self._all(first, others)

    @staticmethod
    def _all(first: np.ndarray, others: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        yield first
        yield from others

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next input; None: that was all."""
        images = next(self._sets, None)
        return None if images is None else {"images": np.ascontiguousarray(images)}

    def __iter__(self) -> _Reader:
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        if (found := self.get_next()) is None:
            raise StopIteration
        return found


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """onnxruntime advises, through the root logger, to do what the exporter has done already."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)


def _image(prepared: Alocc, cameras: int) -> Segment:
    return next(s for s in segments(prepared, cameras) if s.name == "image")


def _key(prepared: Alocc, segment: Segment) -> dict[str, Any]:
    return {
        "weights": weights_digest(prepared),
        "images": str(list(segment.inputs["images"])),
        "opset": str(OPSET),
        "onnxruntime": package_version("onnxruntime"),
    }


def _check_packages() -> None:
    for package in ("onnxruntime", "onnx", "onnxscript"):
        if find_spec(package) is None:
            raise ParameterError(f"int8 needs the package {package}: pip install alocc_ros[export]")
