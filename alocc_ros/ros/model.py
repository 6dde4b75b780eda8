# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The network that the parameters name: loaded once, put on its device while it is needed."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alocc_ros.errors import ModelError, ParameterError
from alocc_ros.records import ModelRecord, find, resolve, verified_sha256
from alocc_ros.ros.parameters import NodeParameters

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from alocc_ros.network.model import Alocc
    from alocc_ros.pipeline import Pipeline


@dataclass
class Model:
    """A network in main memory.

    Attributes:
        record: what its input and labels mean.
        weights_sha256: of its file; "" for random weights.
        device: where it is to run.
        remarks: which of the file's tensors are used, where it has several.
        pipeline: while it is started.
    """

    record: ModelRecord
    weights_sha256: str
    device: torch.device
    network: Alocc
    parameters: NodeParameters
    remarks: tuple[str, ...] = ()
    pipeline: Pipeline | None = None

    def start(self) -> Pipeline:
        """A pipeline on the device, with nothing remembered."""
        from alocc_ros.pipeline import Pipeline
        from alocc_ros.stream.preprocessing import Preprocessor

        parameters, record = self.parameters, self.record
        variant = self.network.variant
        self.pipeline = Pipeline(
            network=self.network.to(self.device),
            record=record,
            preprocessor=Preprocessor.for_model(record, variant.input_size, parameters.decode),
            grid_frame=parameters.grid_frame or None,
            backend=parameters.backend,
            precision=parameters.precision,
            confidence=parameters.confidence,
            random_weights=not self.weights_sha256,
            early=parameters.early,
        )
        return self.pipeline

    def take_over(self, parameters: NodeParameters) -> None:
        """Those that are live."""
        self.parameters = parameters
        if self.pipeline is not None:
            self.pipeline.confidence = parameters.confidence

    def stop(self) -> None:
        """Ends the pipeline's threads and gives the device's memory back.

        Whoever else has the pipeline must have let it go.
        """
        import torch

        if self.pipeline is not None:
            self.pipeline.preprocessor.close()
        self.pipeline = None
        self.network.cpu()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def runs(self) -> dict[str, str]:
        """How it is run, in words of ``diagnostics.KEYS``; empty while it is not started."""
        if self.pipeline is None:
            return {}
        runner = self.pipeline.runner
        words = {"backend": runner.backend, "precision": runner.precision}
        return words | ({"fallback": runner.reason} if runner.reason else {})

    def device_memory(self) -> int:
        """Bytes that torch holds on the device; 0 on a CPU."""
        import torch

        if self.device.type != "cuda" or not torch.cuda.is_initialized():
            return 0
        return torch.cuda.memory_reserved(self.device)


def find_weights(parameters: NodeParameters) -> tuple[ModelRecord, Path | None]:
    """The record, and the file of the weights (None: they are random); nothing is loaded.

    Raises:
        AloccError: unknown model, weights that are not here, no frame for its grid.
    """
    if parameters.random_weights:
        record, path = find(parameters.model), None  # also of models that were never published
    else:
        record, path = resolve(parameters.model, parameters.variant or None)
        if path is None:
            what = f"{record.name} has no published weights: "
            if record.file:
                what = (
                    f"the weights of {record.name} are not here: fetch them with "
                    f"`alocc models fetch {record.name}`, "
                )
            raise ModelError(
                f"{what}give a checkpoint as "
                "`model`, or try things out with random_weights (the output means nothing)"
            )
    if record.frame != "ego" and not parameters.grid_frame:
        raise ParameterError(
            f"grid_frame must be given: {record.name} sees in the {record.frame} frame"
        )
    return record, path


def load(parameters: NodeParameters) -> Model:
    """Loads the network into main memory.

    Raises:
        AloccError: unknown model, weights that are not here or do not fit, no such device.
    """
    record, path = find_weights(parameters)
    digest = verified_sha256(path, record) if path else ""

    import torch

    from alocc_ros.network.model import Alocc
    from alocc_ros.network.variants import find_variant
    from alocc_ros.runtime.device import keep_freed_memory, resolve_device
    from alocc_ros.runtime.loading import fill
    from alocc_ros.runtime.runner import choose

    device = resolve_device(parameters.device)
    choose(parameters.backend, parameters.precision, device)
    keep_freed_memory()
    torch.manual_seed(0)
    network = Alocc(find_variant(record.variant))
    remarks = [] if path is None else fill(network, path)
    return Model(record, digest, device, network.eval(), parameters, tuple(remarks))
