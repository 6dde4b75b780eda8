# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""A graph of convolutions in int8, as ONNX with Q/DQ nodes, by onnxruntime's quantiser.

One look at images gives the range of every activation (``observe``); from a graph and its ranges
``quantised`` makes what a target wants. The targets differ in what they run fast, so in where Q and
DQ stand and in which types:

``CPU``, for onnxruntime: uint8 activations with a zero point (its fastest kernels on x86), int8
weights for each channel, every operation that has an int8 kernel, inputs and outputs float32.

``TENSORRT``: symmetric int8 everywhere, since TensorRT takes no zero points. What is quantised is
what convolutions read, not what they write: whatever no convolution reads stays float16. Of a sum
one side is quantised too, the one that is stored (a skip, an upsampled level): by NVIDIA's guide to
Q/DQ an addition is fused into the convolution of its other side, and that convolution writes the
type of the stored side; were it float16, the next Q would be a pass over memory of its own.
Quantising both sides would part the addition from its convolution. Biases and outputs stay float16,
and so are scales (an engine is strongly typed: DQ gives the type of its scale).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from alocc_ros.errors import DeviceError, ParameterError

# Q and DQ of float16 need 19; the operations of a graph of convolutions are the same as in 18.
_HALF_OPSET = 19
UNCALIBRATED = (
    "precision int8: these weights have not been calibrated on this machine; run "
    "`alocc calibrate BAG --model MODEL` with a recording of your cameras first"
)


@dataclass(frozen=True)
class Ranges:
    """What the activations of a graph were seen to be.

    Attributes:
        values: lowest and highest value by the tensor's name.
        form: digest of the graph's operations and names; its weights and sizes do not matter.
    """

    values: Mapping[str, tuple[float, float]]
    form: str

    def dumped(self) -> bytes:
        """As JSON, float32 exactly; the same ranges are the same bytes."""
        return json.dumps({"form": self.form, "values": self.values}, sort_keys=True).encode()

    @classmethod
    def loaded(cls, data: bytes) -> Ranges:
        """What ``dumped`` made; whoever kept it must know that it is whole."""
        found = json.loads(data)
        values = {name: (low, high) for name, (low, high) in found["values"].items()}
        return cls(values, found["form"])

    @cached_property
    def digest(self) -> str:
        """SHA-256."""
        return hashlib.sha256(self.dumped()).hexdigest()


@dataclass(frozen=True)
class Target:
    """What runs a quantised graph, and what it wants.

    Attributes:
        name: for keys.
        activations: their type, as onnxruntime's ``QuantType`` names it.
        operations: whose inputs are quantised; none named: all that have int8 kernels.
        half: float16 in the place of float32.
        options: of onnxruntime's quantiser.
    """

    name: str
    activations: str
    operations: tuple[str, ...] = ()
    half: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


CPU = Target("onnxruntime", "QUInt8")
TENSORRT = Target(
    "tensorrt",
    "QInt8",
    ("Conv",),
    half=True,
    options={
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "QuantizeBias": False,
        "OpTypesToExcludeOutputQuantization": ["Conv"],
    },
)


@dataclass(frozen=True)
class Quantisation:
    """How a segment is quantised.

    Attributes:
        ranges: of its activations.
        target: what will run it.
    """

    ranges: Ranges
    target: Target


def observe(graph: bytes, images: Iterable[np.ndarray]) -> Ranges:
    """The ranges of a graph's activations over images.

    Args:
        graph: in float32, with one input, ``images``.
        images: [N, 3, H, W] float32 each, of the graph's shape; one at least.

    Raises:
        ParameterError: activations are no numbers, or a package is missing.
    """
    check_packages()
    import onnx
    from onnxruntime.quantization import CalibrationMethod, create_calibrator

    with tempfile.TemporaryDirectory(prefix="alocc-int8-") as folder, _without_advice():
        path = Path(folder) / "graph.onnx"
        path.write_bytes(graph)
        calibrator = create_calibrator(
            path,
            _all_operations(),
            augmented_model_path=str(Path(folder) / "observed.onnx"),
            calibrate_method=CalibrationMethod.MinMax,
        )
        calibrator.collect_data(_Reader(iter(images)))
        found = calibrator.compute_data()
    values = {n: tuple(float(np.squeeze(x)) for x in found[n].range_value) for n in found}
    for name, (low, high) in values.items():
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ParameterError(f"activations {name} are {low} to {high}: nothing to calibrate on")
    return Ranges(values, _form(onnx.load_from_string(graph)))


def quantised(graph: bytes, how: Quantisation) -> bytes:
    """A graph with Q and DQ nodes, as a target wants it.

    Args:
        graph: in float32, of the form that the ranges are of.
        how: ranges and target.

    Raises:
        DeviceError: the ranges are of another form of the network.
        ParameterError: a package is missing.
    """
    check_packages()
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType
    from onnxruntime.quantization.calibrate import TensorsData

    model = onnx.load_from_string(graph)
    if _form(model) != how.ranges.form:
        # Another version of this package, of torch or of the exporter names tensors differently.
        raise DeviceError(f"{UNCALIBRATED} (what was noted is of another version)")
    seen = {n: tuple(np.array([x], np.float32) for x in v) for n, v in how.ranges.values.items()}
    target = how.target
    with _without_advice():
        quantiser = QDQQuantizer(
            model,
            True,  # weights for each channel
            False,  # the whole range of int8
            QuantType.QInt8,
            QuantType[target.activations],
            TensorsData(CalibrationMethod.MinMax, seen),
            [],
            [],
            list(target.operations) or _all_operations(),
            dict(target.options),
        )
        if target.operations:
            for name in _stored_sides(model):
                quantiser.quantize_activation_tensor(name)
        quantiser.quantize_model()
    quantiser.model.topological_sort()
    made = quantiser.model.model
    if target.half:
        _restore_outputs(made)
        made = _in_half(made)
    return made.SerializeToString(deterministic=True)


def check_packages() -> None:
    """Whether there is what quantises.

    Raises:
        ParameterError: a package is missing.
    """
    for package in ("onnxruntime", "onnx", "onnxscript"):
        if find_spec(package) is None:
            raise ParameterError(f"int8 needs the package {package}: pip install alocc_ros[int8]")


def _form(model: Any) -> str:  # onnx.ModelProto
    nodes = [[n.op_type, list(n.input), list(n.output)] for n in model.graph.node]
    return hashlib.sha256(json.dumps(nodes).encode()).hexdigest()


def _all_operations() -> list[str]:
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return sorted({*QLinearOpsRegistry, *QDQRegistry})


def _stored_sides(model: Any) -> list[str]:  # onnx.ModelProto
    """Of every sum neither of whose sides a convolution reads: the second one."""
    nodes = model.graph.node
    read = {n.input[0] for n in nodes if n.op_type == "Conv"}
    return [n.input[1] for n in nodes if n.op_type == "Add" and read.isdisjoint(n.input)]


def _restore_outputs(model: Any) -> None:  # onnx.ModelProto
    """An output that a convolution reads too is given as it was before it was quantised."""
    nodes = model.graph.node
    makers = {name: n for n in nodes for name in n.output}
    names: dict[str, str] = {}
    for output in model.graph.output:
        if (last := makers[output.name]).op_type == "DequantizeLinear":
            before = makers[last.input[0]].input[0]
            names |= {before: output.name, output.name: f"{output.name}_DequantizeLinear_Output"}
    for node in nodes:
        node.input[:] = [names.get(n, n) for n in node.input]
        node.output[:] = [names.get(n, n) for n in node.output]


def _in_half(model: Any) -> Any:  # onnx.ModelProto
    """Float16 throughout. Scales below its smallest number become that: such weights are 0."""
    from onnx.version_converter import convert_version
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(convert_version(model, _HALF_OPSET))


class _Reader:
    """onnxruntime's CalibrationDataReader: one set of images after the other."""

    def __init__(self, sets: Iterator[np.ndarray]) -> None:
        self._sets = sets

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
    """onnxruntime advises, through the root logger, to do what the exporter has done already, and
    numpy warns of activations that are no numbers, which is told anyway.
    """
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            yield
    finally:
        root.setLevel(before)
