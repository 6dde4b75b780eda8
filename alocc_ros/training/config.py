# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Every setting of a training run, in one flat record that is written next to the results.

Defaults are the reference's (spec training.md section 1). ``alocc train --set name=value``
changes any of them.
"""

from __future__ import annotations

import os
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from alocc_ros.errors import ParameterError


@dataclass(frozen=True)
class TrainingConfig:
    """One run.

    Attributes:
        model: a model record's name.
        split: scenes to train on.
        benchmark: whose labels; ``""``: the model's own.
        steps: optimiser steps.
        seed: of everything random.
        batch: samples that one process computes at once.
        accumulate: so many batches make one step.
        workers: loader processes per training process, but not more than cores; 0: none.
        learning_rate, weight_decay: of AdamW.
        warmup_steps, warmup_ratio: linear warm-up.
        cosine: let the learning rate fall to zero; the reference keeps it.
        clip: largest L2 norm of the gradient.
        ema_limit, ema_warmup, ema_offset: see ema.py.
        epoch_steps: what an epoch of the schedules below is; 0: once through the frames, times
            4.554 (the length that class-balanced sampling would have had).
        image_steps: steps at the very beginning that teach only the image networks, from the depth
            and classes of pixels, at a fifth of the time; for training from nothing. The
            schedules in epochs begin after them.
        whole_scenes: sequences are whole scenes, as in evaluation; the reference's are half ones.
        spread_classes: class embeddings begin apart, also for training from nothing.
        frozen: parts of the network, as their tensors' names begin, that stay as they are, their
            normalisation too; for teaching a trained network a little more from few samples.
        temporal_start: epochs without history at the beginning.
        depth_denoising: epochs over which the measured depth fades out of what is lifted.
        flow_denoising: epochs between which the true occupancy fades out of flow matching.
        mask_weight, dice_weight, image_weight, depth_weight, flow_bin_weight, flow_weight,
            flow_angle_weight: of the losses; ``image_weight`` times the first two for pixels.
        absent_classes: a sample's voxels also teach which classes are not there; the reference's
            do not.
        entropy_weight: of a loss that the reference lacks, the cross entropy between classes over
            all voxels, without which rare classes die in short runs; 0: none.
        entropy_balance: power of a class's rarity in it; 0: every voxel weighs the same, 1: every
            class.
        voxel_points, image_points: drawn for a class's mask.
        count_voxels: frames in which voxels are counted for the class weights; 0: the counts of
            nuScenes.
        image_scale, image_flip, image_turn, grid_flip: augmentation; see augmentation.py.
        augment_images: False: images are cut as outside training.
        inter_object_bug: side copies only land in the first depth bins, as the released weights
            have learned; False: anywhere, as the paper says.
        precision: ``fp32``, or ``bf16`` where that is safe.
        checkpointing: compute activations twice instead of keeping them.
        compile: torch.compile for the convolutional parts.
        save_every, keep: steps between checkpoints; how many of them stay.
        save_memories: also what each slot remembers (the 3D networks: 1.3 GB each). Without, a
            resumed run begins with empty memories, so its losses differ for a while.
        evaluate_every: steps between evaluations; 0: never.
        evaluate_split, evaluate_scenes: on which scenes; 0 scenes: all of the split.
        log_every: steps between lines of the log.
    """

    model: str
    split: str = "train"
    benchmark: str = ""
    steps: int = 96060
    seed: int = 0
    batch: int = 2
    accumulate: int = 1
    workers: int = 4
    learning_rate: float = 2e-4
    weight_decay: float = 1e-2
    warmup_steps: int = 200
    warmup_ratio: float = 1e-3
    cosine: bool = False
    clip: float = 5.0
    ema_limit: float = 0.999
    ema_warmup: float = 2000.0
    ema_offset: int = 10560
    epoch_steps: int = 0
    image_steps: int = 0
    whole_scenes: bool = False
    spread_classes: bool = False
    frozen: tuple[str, ...] = ()
    temporal_start: float = 2.0
    depth_denoising: float = 6.0
    flow_denoising: tuple[float, float] = (2.0, 4.0)
    mask_weight: float = 5.0
    dice_weight: float = 5.0
    image_weight: float = 0.1
    depth_weight: float = 1.0
    flow_bin_weight: float = 1.0
    flow_weight: float = 1.0
    flow_angle_weight: float = 1.0
    absent_classes: bool = False
    entropy_weight: float = 0.0
    entropy_balance: float = 0.5
    voxel_points: int = 25088
    image_points: int = 1056
    count_voxels: int = 0
    image_scale: tuple[float, float] = (-0.06 / 0.44, 0.11 / 0.44)
    image_flip: float = 0.5
    image_turn: float = 5.4
    augment_images: bool = True
    grid_flip: float = 0.5
    inter_object_bug: bool = True
    precision: str = "fp32"
    checkpointing: bool = False
    compile: bool = False
    save_every: int = 1000
    keep: int = 3
    save_memories: bool = True
    evaluate_every: int = 0
    evaluate_split: str = "val"
    evaluate_scenes: int = 4
    log_every: int = 10

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate", "save_every", "keep", "log_every"):
            if getattr(self, name) < 1:
                raise ParameterError(f"{name} is {getattr(self, name)}, must be at least 1")
        for name in ("image_flip", "grid_flip"):
            if not 0 <= getattr(self, name) <= 1:
                raise ParameterError(f"{name} is {getattr(self, name)}, must be from 0 to 1")
        for name in (f.name for f in fields(self) if f.name.endswith("_weight")):
            if getattr(self, name) < 0:
                raise ParameterError(f"{name} is {getattr(self, name)}, must not be negative")
        if self.precision not in ("fp32", "bf16"):
            raise ParameterError(f"precision is {self.precision!r}, must be fp32 or bf16")
        if self.learning_rate <= 0 or self.clip <= 0:
            raise ParameterError("learning_rate and clip must be positive")

    def changed(self, settings: Sequence[str]) -> TrainingConfig:
        """With ``name=value`` settings.

        Raises:
            ParameterError: no such name, or a value of another kind.
        """
        values = {}
        for setting in settings:
            name, equals, text = setting.partition("=")
            if not equals:
                raise ParameterError(f"--set {setting}: must be NAME=VALUE")
            values[name.strip()] = yaml.safe_load(text) if text else ""
        return self.with_values(values)

    def with_values(self, values: Mapping[str, Any]) -> TrainingConfig:
        """With these values.

        Raises:
            ParameterError: no such name, or a value of another kind.
        """
        kinds = typing.get_type_hints(TrainingConfig)
        unknown = [n for n in values if n not in kinds]
        if unknown:
            raise ParameterError(
                f"no such setting: {', '.join(unknown)}; there are {', '.join(kinds)}"
            )
        return replace(self, **{n: _as_kind(n, v, kinds[n]) for n, v in values.items()})

    def write(self, path: Path) -> None:
        """As YAML; the whole file or none."""
        plain = {n: list(v) if isinstance(v, tuple) else v for n, v in asdict(self).items()}
        scratch = path.with_name(f".{path.name}.part")
        scratch.write_text(yaml.safe_dump(plain, sort_keys=False), encoding="utf-8")
        os.replace(scratch, path)

    @staticmethod
    def read(path: Path) -> TrainingConfig:
        """What ``write`` wrote, or a part of it.

        Raises:
            ParameterError: not such a file.
        """
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ParameterError(f"{path}: {' '.join(str(error).split())}") from error
        if not isinstance(values, dict) or not isinstance(values.get("model"), str):
            raise ParameterError(f"{path}: not a training configuration, it names no model")
        return TrainingConfig(values.pop("model")).with_values(values)

    def differences(self, other: TrainingConfig) -> list[str]:
        """Names of the settings that differ."""
        return [f.name for f in fields(self) if getattr(self, f.name) != getattr(other, f.name)]


def _as_kind(name: str, value: Any, kind: Any) -> Any:
    if isinstance(kind, types.GenericAlias) and isinstance(value, (list, tuple)):
        inner = typing.get_args(kind)
        if inner[-1] is Ellipsis:
            return tuple(_as_kind(name, v, inner[0]) for v in value)
        if len(value) == len(inner):
            return tuple(_as_kind(name, v, k) for v, k in zip(value, inner, strict=True))
    if kind is float and isinstance(value, str):
        try:
            return float(value)  # YAML takes 1e-4 for a word
        except ValueError:
            pass
    if kind is float and type(value) in (int, float):
        return float(value)
    if type(value) is kind:
        return value
    wanted = kind.__name__ if isinstance(kind, type) and kind in (int, float, bool, str) else kind
    raise ParameterError(f"{name} is {value!r}, must be {wanted}")
