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

# What people of the reference's code type, by our names.
_REFERENCE = {
    **dict.fromkeys(("lr", "optimizer.lr"), "learning_rate"),
    **dict.fromkeys(("samples_per_gpu", "data.samples_per_gpu", "batch_size"), "batch"),
    **dict.fromkeys(("workers_per_gpu", "data.workers_per_gpu"), "workers"),
    **dict.fromkeys(("max_iters", "runner.max_iters", "iterations"), "steps"),
    **dict.fromkeys(("max_norm", "grad_clip"), "clip"),
    "init_updates": "ema_offset",
    "use_checkpoint": "checkpointing",
    "warmup_iters": "warmup_steps",
}


@dataclass(frozen=True)
class TrainingConfig:
    """One run; what each setting means is in ``settings.py``."""

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
    volumes: Text = ""
    crop_rows: CountOrZero = 0
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
    image_entropy_weight: _Weight = 0.0
    jaccard_weight: _Weight = 0.0
    voxel_points: CountOrZero = 25088
    image_points: CountOrZero = 1056
    count_voxels: CountOrZero = 0
    image_scale: _Range = (-0.06 / 0.44, 0.11 / 0.44)
    image_flip: _Probability = 0.5
    image_turn: _Number = 5.4
    augment_images: Flag = True
    image_light: _Probability = 0.0
    bonnet: _Probability = 0.0
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
        names = [f.name for f in fields(self)]
        for name in values.keys() - set(names):
            near = schema.nearest_names(name, names)
            hint = f"did you mean {near}? " if near else ""
            if name in _REFERENCE:
                hint = f"it is called {_REFERENCE[name]!r} here; "
            raise ParameterError(
                f"--set: unknown setting {name!r}; {hint}`alocc train --settings` lists all"
            )
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
