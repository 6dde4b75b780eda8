# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""TensorRT (10.3 or newer) and TensorRT-RTX behind one small class: ONNX in, engines out, engines
into calls on torch's stream.

Both are strongly typed: an engine computes in the types that the ONNX file declares. TensorRT
builds for the GPU that is here; TensorRT-RTX for any of its targets, without a GPU too.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from alocc_ros.errors import DeviceError, ParameterError
from alocc_ros.runtime.toolkit import TOOLKITS, import_toolkit

log = logging.getLogger(__name__)

_TYPES = {
    "FLOAT": torch.float32,
    "HALF": torch.float16,
    "BF16": torch.bfloat16,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "UINT8": torch.uint8,
    "BOOL": torch.bool,
}


class Toolkit:
    """One of the two, imported.

    Attributes:
        name: as in ``TOOLKITS``.
        version: its own.
        module: what was imported.
        targets: compute capabilities that it builds for without such a GPU; none of TensorRT.
    """

    def __init__(self, name: str, module: ModuleType) -> None:
        self.name, self.version, self.module = name, str(module.__version__), module
        known = getattr(module, "ComputeCapability", None) if name == "tensorrt_rtx" else None
        members = known.__members__ if known is not None else ()
        self.targets = tuple(m for m in members if m.startswith("SM"))

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    def target_of(self, device: torch.device) -> str:
        """The target that a GPU is, as ``build`` takes it.

        Raises:
            DeviceError: it is no GPU, or one that nothing can be built for.
        """
        if device.type != "cuda" or not torch.cuda.is_available():
            raise DeviceError(f"{self} runs on a CUDA device; {device} is none that torch can use")
        major, minor = torch.cuda.get_device_capability(device)
        target, gpu = f"SM{major}{minor}", torch.cuda.get_device_name(device)
        if self.targets and target not in self.targets:
            raise DeviceError(
                f"{self} builds for {', '.join(self.targets)}, not for {target} ({gpu}): install "
                "tensorrt 10.3 or newer, or take another backend"
            )
        return target

    def check_target(self, target: str) -> None:
        """Whether engines can be built for a target that need not be here.

        Raises:
            ParameterError: they cannot.
        """
        if not self.targets:
            raise ParameterError(f"{self} builds for the GPU that is here only; leave {target} out")
        if target not in self.targets:
            raise ParameterError(
                f"{self} knows no target {target!r}: there are {', '.join(self.targets)}"
            )

    def build(self, onnx: bytes, target: str, tf32: bool = False) -> bytes:
        """An engine for a target; of TensorRT, the GPU that is here.

        Args:
            onnx: the graph with its weights, whose types are those that the engine computes in.
            target: as in ``targets``.
            tf32: products of float32 may be rounded.

        Raises:
            DeviceError: it cannot be built; the message is the builder's own.
        """
        trt, logger = self.module, _logger(self.module)
        try:
            builder = trt.Builder(logger)
        except TypeError as error:  # of the binding, where there is no GPU
            raise self._failure("has no builder", logger) from error
        # Newer releases have no other kind, and no flag for it.
        flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        network = builder.create_network(0 if flag is None else 1 << int(flag))
        parser = trt.OnnxParser(network, logger)
        if not parser.parse(onnx):
            told = parser.get_error(0).desc() if parser.num_errors else ""
            raise self._failure("cannot parse the graph", logger, told)
        config = builder.create_builder_config()
        if not tf32:
            config.clear_flag(trt.BuilderFlag.TF32)
        if self.targets:
            config.num_compute_capabilities = 1
            config.set_compute_capability(getattr(trt.ComputeCapability, target), 0)
        engine = builder.build_serialized_network(network, config)
        if engine is None:
            raise self._failure(f"cannot build an engine for {target}", logger)
        return bytes(engine)

    def load(
        self, data: bytes, device: torch.device, shared: Mapping[str, Tensor] | None = None
    ) -> LoadedEngine:
        """An engine on a GPU, ready to be called.

        Args:
            data: what ``build`` returned.
            device: where it is to run.
            shared: buffers to take as inputs of these names; others are made.

        Raises:
            DeviceError: the engine is damaged, or of another GPU or version.
        """
        logger = _logger(self.module)
        runtime = self.module.Runtime(logger)
        engine = runtime.deserialize_cuda_engine(data)
        context = None if engine is None else engine.create_execution_context()
        if context is None:
            raise self._failure("cannot load the engine", logger)
        # Those that made it must outlive it.
        return LoadedEngine(self.module, (logger, runtime, engine), context, device, shared or {})

    def _failure(self, what: str, logger: Any, told: str = "") -> DeviceError:
        words = told or (logger.errors[0] if logger.errors else "no reason is given")
        return DeviceError(f"{self} {what}: {' '.join(words.split())[:300]}")


class LoadedEngine:
    """An engine with buffers that stay where they are: it can be part of a CUDA graph.

    Attributes:
        inputs, outputs: buffers by name; a call reads the first and overwrites the second.
    """

    def __init__(
        self,
        trt: ModuleType,
        owners: tuple[Any, Any, Any],  # logger, runtime, engine
        context: Any,
        device: torch.device,
        shared: Mapping[str, Tensor],
    ) -> None:
        self._owners, self._context, self._device = owners, context, device
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        engine = owners[2]
        for i in range(engine.num_io_tensors):
            name = engine.get_tensor_name(i)
            shape, dtype = tuple(engine.get_tensor_shape(name)), engine.get_tensor_dtype(name).name
            is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            buffer = shared.get(name) if is_input else None
            if not _fits(buffer, shape, _TYPES[dtype]):
                buffer = torch.zeros(shape, dtype=_TYPES[dtype], device=device)
            (self.inputs if is_input else self.outputs)[name] = buffer
            context.set_tensor_address(name, buffer.data_ptr())
        # What is set up at the first call must not be set up while a graph is captured.
        self()
        torch.cuda.synchronize(device)

    def __call__(self) -> None:
        """Enqueues the engine on torch's current stream.

        Raises:
            DeviceError: it was not accepted.
        """
        stream = torch.cuda.current_stream(self._device).cuda_stream
        if not self._context.execute_async_v3(stream):
            errors = self._owners[0].errors
            raise DeviceError(f"an engine cannot be run: {errors[-1] if errors else 'no reason'}")

    def __deepcopy__(self, memo: dict[int, Any]) -> LoadedEngine:
        return self  # copies of a network share it, as they share weights


def find_toolkit(names: Sequence[str] = TOOLKITS) -> Toolkit:
    """The first of these that can be imported and is new enough.

    Raises:
        DeviceError: there is none; the message says why, and what to install.
    """
    return Toolkit(*import_toolkit(names))


def _logger(trt: ModuleType) -> Any:  # trt.ILogger
    class Logger(trt.ILogger):
        """Keeps errors for messages; the rest goes to Python's log."""

        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.ERROR:
                self.errors.append(message)
            elif severity <= trt.ILogger.WARNING:
                log.debug("%s", message)

    return Logger()


def _fits(buffer: Tensor | None, shape: tuple[int, ...], dtype: torch.dtype) -> bool:
    same = buffer is not None and tuple(buffer.shape) == shape and buffer.dtype == dtype
    return same and buffer.is_contiguous()
