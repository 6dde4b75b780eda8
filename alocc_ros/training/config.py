# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Every setting of a training run, in one flat record that is written next to the results.

Defaults are the reference's, but for ``ema_offset``. ``alocc train --set name=value``
changes any of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, Field, Strict

from alocc_ros import schema
from alocc_ros.errors import ParameterError
from alocc_ros.files import whole_file
from alocc_ros.schema import (
    Count,
    CountOrZero,
    Flag,
    Number,
    Text,
    between,
    described,
    one_of,
)


def _number(value: Any) -> Any:
    """YAML takes 1e-4 for a word."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


_Number = Annotated[Number, BeforeValidator(_number)]
_Weight = Annotated[_Number, Field(ge=0), described("a number, 0 or more")]
_Probability = Annotated[_Number, between(0, 1)]
# May be infinite, as in ``clip=.inf``.
_Positive = Annotated[
    float, Strict(), Field(gt=0), BeforeValidator(_number), described("a number above 0")
]
_Range = Annotated[tuple[_Number, _Number], described("a list of 2 numbers")]
_Names = Annotated[tuple[Text, ...], described("a list of names")]


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
        ema_limit: of what the average keeps of itself at a step.
        ema_warmup: steps after which that has come to 63 % of its limit.
        ema_offset: steps that this is ahead; the reference's 10560 keep the first weights of short
            runs.
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
        voxel_points, image_points: sampled for a class's mask.
        count_voxels: frames in which voxels are counted for the class weights; 0: the counts of
            nuScenes.
        image_scale, image_flip, image_turn, grid_flip: augmentation; see augmentation.py.
        augment_images: False: images are cut as outside training.
        inter_object_bug: inter-object copies only land in the first depth bins, as the released
            weights have learned; False: anywhere, as the paper says.
        precision: ``fp32``, or ``bf16`` where that is safe.
        checkpointing: compute activations twice instead of keeping them.
        compile: torch.compile for the convolutional parts.
        save_every, keep: steps between checkpoints; how many of them stay.
        save_memories: also the memory of each slot (the 3D networks: 1.3 GB each). Without, a
            resumed run begins with empty memories, so its losses differ for a while.
        evaluate_every: steps between evaluations; 0: never.
        evaluate_split, evaluate_scenes: on which scenes; 0 scenes: all of the split.
        log_every: steps between lines of the log.
    """

    model: Text
    split: Text = "train"
    benchmark: Text = ""
    steps: Count = 96060
    seed: CountOrZero = 0
    batch: Count = 2
    accumulate: Count = 1
    workers: CountOrZero = 4
    learning_rate: _Positive = 2e-4
    weight_decay: _Number = 1e-2
    warmup_steps: CountOrZero = 200
    warmup_ratio: _Number = 1e-3
    cosine: Flag = False
    clip: _Positive = 5.0
    ema_limit: _Number = 0.999
    ema_warmup: _Number = 2000.0
    ema_offset: CountOrZero = 0
    epoch_steps: CountOrZero = 0
    image_steps: CountOrZero = 0
    whole_scenes: Flag = False
    spread_classes: Flag = False
    frozen: _Names = ()
    temporal_start: _Number = 2.0
    depth_denoising: _Number = 6.0
    flow_denoising: _Range = (2.0, 4.0)
    mask_weight: _Weight = 5.0
    dice_weight: _Weight = 5.0
    image_weight: _Weight = 0.1
    depth_weight: _Weight = 1.0
    flow_bin_weight: _Weight = 1.0
    flow_weight: _Weight = 1.0
    flow_angle_weight: _Weight = 1.0
    absent_classes: Flag = False
    entropy_weight: _Weight = 0.0
    entropy_balance: _Number = 0.5
    voxel_points: CountOrZero = 25088
    image_points: CountOrZero = 1056
    count_voxels: CountOrZero = 0
    image_scale: _Range = (-0.06 / 0.44, 0.11 / 0.44)
    image_flip: _Probability = 0.5
    image_turn: _Number = 5.4
    augment_images: Flag = True
    grid_flip: _Probability = 0.5
    inter_object_bug: Flag = True
    precision: Annotated[str, one_of("fp32", "bf16")] = "fp32"
    checkpointing: Flag = False
    compile: Flag = False
    save_every: Count = 1000
    keep: Count = 3
    save_memories: Flag = True
    evaluate_every: CountOrZero = 0
    evaluate_split: Text = "val"
    evaluate_scenes: CountOrZero = 4
    log_every: Count = 10

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
            try:
                values[name.strip()] = schema.load_yaml(text) if text else ""
            except yaml.YAMLError as error:
                reason = " ".join(str(error).split())
                raise ParameterError(f"--set {setting[:80]}: {reason}") from error
        return self.with_values(values, "--set")

    def with_values(
        self, values: Mapping[str, Any], where: str = "training configuration"
    ) -> TrainingConfig:
        """With these values, which messages say to come from ``where``.

        Raises:
            ParameterError: no such name, or a value of another kind or out of bounds.
        """
        return schema.parse(TrainingConfig, {**vars(self), **values}, where, ParameterError)

    def as_dict(self) -> dict[str, Any]:
        """In plain values, as YAML and checkpoints hold them."""
        return {n: list(v) if isinstance(v, tuple) else v for n, v in vars(self).items()}

    def write(self, path: Path) -> None:
        """As YAML; the whole file or none.

        Raises:
            OutputError: it cannot be written.
        """
        with whole_file(path) as scratch:
            scratch.write_text(yaml.safe_dump(self.as_dict(), sort_keys=False), encoding="utf-8")

    @staticmethod
    def read(path: Path) -> TrainingConfig:
        """What ``write`` wrote, or a part of it.

        Raises:
            ParameterError: not such a file.
        """
        try:
            values = schema.load_yaml(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ParameterError(f"{path}: {' '.join(str(error).split())}") from error
        if not isinstance(values, dict) or not isinstance(values.get("model"), str):
            raise ParameterError(f"{path}: not a training configuration, it names no model")
        return TrainingConfig(values["model"]).with_values(values, str(path))

    def differences(self, other: TrainingConfig) -> list[str]:
        """Names of the settings that differ."""
        return [f.name for f in fields(self) if getattr(self, f.name) != getattr(other, f.name)]
