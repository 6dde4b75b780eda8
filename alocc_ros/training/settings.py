# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What each setting of a training run means: for ``alocc train --settings`` and its page.

Names, kinds and defaults are those of ``TrainingConfig``; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields

import yaml

from alocc_ros.training.config import TrainingConfig


@dataclass(frozen=True)
class Setting:
    """About one setting.

    Attributes:
        unit: of its value; empty where it has none.
        meaning: in a sentence.
        reference: what the reference's config calls it; empty where it has no such thing.
        free: may change when a run is resumed, which stays the same run.
    """

    unit: str
    meaning: str
    reference: str = ""
    free: bool = False


SETTINGS = {
    "model": Setting("", "a model record's name", "the config file"),
    "split": Setting("", "scenes to train on", "data.train.ann_file"),
    "benchmark": Setting("", "whose labels; empty: the model's own", "occupancy_path"),
    "steps": Setting("steps", "optimiser steps", "runner.max_iters", free=True),
    "seed": Setting("", "of everything random", "--seed"),
    "batch": Setting(
        "samples", "that one process computes at once", "data.samples_per_gpu", free=True
    ),
    "accumulate": Setting("batches", "so many make one step", free=True),
    "workers": Setting(
        "processes",
        "that load data, per training process, but not more than cores; 0: none",
        "data.workers_per_gpu",
        free=True,
    ),
    "learning_rate": Setting("", "of AdamW", "optimizer.lr"),
    "weight_decay": Setting("", "of AdamW", "optimizer.weight_decay"),
    "warmup_steps": Setting("steps", "of the linear warm-up", "lr_config.warmup_iters"),
    "warmup_ratio": Setting(
        "", "the first learning rate as a share of the full one", "lr_config.warmup_ratio"
    ),
    "cosine": Setting("", "let the learning rate fall to zero; the reference keeps it"),
    "clip": Setting(
        "", "largest L2 norm of the gradient", "optimizer_config.grad_clip.max_norm"
    ),
    "ema_limit": Setting("", "of what the average (EMA) keeps of itself at a step"),
    "ema_warmup": Setting("steps", "after which that has come to 63 % of its limit"),
    "ema_offset": Setting(
        "steps",
        "that this is ahead; the reference's 10560 keep the first weights of short runs",
        "MEGVIIEMAHook.init_updates",
    ),
    "epoch_steps": Setting(
        "steps",
        "an epoch of the schedules below; 0: once through the frames, times 4.554 (the length "
        "that class-balanced sampling would have had)",
        "num_iters_per_epoch",
    ),
    "image_steps": Setting(
        "steps",
        "at the very beginning that teach only the image networks, from the depth and classes of "
        "pixels, at a fifth of the time; for training from nothing. The schedules in epochs begin "
        "after them",
    ),
    "whole_scenes": Setting(
        "",
        "sequences are whole scenes, as in evaluation; the reference's are half ones",
        "train_sequences_split_num (2: false, 1: true)",
    ),
    "spread_classes": Setting("", "class embeddings begin apart, also for training from nothing"),
    "frozen": Setting(
        "",
        "parts of the network, as their tensors' names begin, that stay as they are, their "
        "normalisation too; for teaching a trained network a little more from few samples",
        "img_backbone.frozen_stages (of the backbone alone)",
    ),
    "volumes": Setting(
        "",
        "folder of lifted volumes to learn from instead of images, in which those that are missing "
        "are made first; the image networks must be frozen",
        free=True,
    ),
    "crop_rows": Setting(
        "rows",
        "of the grid, along y, that are learned at once, about what a sequence begins with of a "
        "class; 0: all",
    ),
    "temporal_start": Setting(
        "epochs",
        "without history at the beginning",
        "SequentialControlHook.temporal_start_iter (steps)",
    ),
    "depth_denoising": Setting(
        "epochs",
        "over which the measured depth fades out of what is lifted",
        "FusionRateControlDepthHook.temporal_end_iter (steps)",
    ),
    "flow_denoising": Setting(
        "epochs",
        "between which the true occupancy fades out of flow matching",
        "FusionRateControlHook.temporal_start_iter, temporal_end_iter (steps)",
    ),
    "mask_weight": Setting("", "of the loss of masks", "alocc_head.loss_mask.loss_weight"),
    "dice_weight": Setting("", "of the Dice loss", "alocc_head.loss_dice.loss_weight"),
    "image_weight": Setting("", "times the two above, for pixels", "img_seg_weight"),
    "depth_weight": Setting(
        "", "of the loss of depth; the reference's loss_depth_weight is not applied there"
    ),
    "flow_bin_weight": Setting("", "of the loss of velocity bins"),
    "flow_weight": Setting("", "of the squared error of the velocity"),
    "flow_angle_weight": Setting("", "of the loss of the velocity's direction"),
    "absent_classes": Setting(
        "",
        "a sample's voxels also teach which classes are not there; the reference's do not",
    ),
    "entropy_weight": Setting(
        "",
        "of a loss that the reference lacks, the cross entropy between classes over all voxels, "
        "without which rare classes die in short runs; 0: none",
    ),
    "entropy_balance": Setting(
        "",
        "power of a class's rarity in it; 0: every voxel weighs the same, 1: every class",
    ),
    "image_entropy_weight": Setting("", "of the same loss over pixels; 0: none"),
    "jaccard_weight": Setting(
        "",
        "of a loss that the reference lacks, one minus each class's IoU in a sample, made smooth; "
        "0: none",
    ),
    "voxel_points": Setting(
        "points", "sampled for a class's mask of voxels", "alocc_head.train_cfg.num_points"
    ),
    "image_points": Setting(
        "points", "sampled for a class's mask of pixels", "alocc_head.num_points_img"
    ),
    "count_voxels": Setting(
        "frames",
        "in which voxels are counted for the class weights; 0: the counts of nuScenes",
    ),
    "image_scale": Setting(
        "",
        "of the images, as a fraction of their scale, from and to",
        "data_config.resize (divided by 0.44, the scale itself)",
    ),
    "image_flip": Setting("", "probability that an image is mirrored", "data_config.flip"),
    "image_turn": Setting("degrees", "that an image is turned, either way", "data_config.rot"),
    "augment_images": Setting("", "false: images are cut as outside training"),
    "image_light": Setting(
        "",
        "probability that a key frame is seen in another light (exposure, white balance, dusk and "
        "night, the sun in a lens) by another camera (noise, blur)",
    ),
    "bonnet": Setting(
        "",
        "probability that the own vehicle is in view, front and back, below and at times above",
    ),
    "grid_flip": Setting(
        "",
        "probability that the voxels are mirrored, along x and along y",
        "bda_aug_conf.flip_dx_ratio, flip_dy_ratio",
    ),
    "inter_object_bug": Setting(
        "",
        "inter-object copies only land in the first depth bins, as the released weights have "
        "learned; false: anywhere, as the paper says",
    ),
    "precision": Setting("", "fp32, or bf16 where that is safe"),
    "checkpointing": Setting(
        "", "compute activations twice instead of keeping them", "use_checkpoint", free=True
    ),
    "compile": Setting("", "torch.compile for the convolutional parts", free=True),
    "save_every": Setting(
        "steps", "between checkpoints", "checkpoint_config.interval", free=True
    ),
    "keep": Setting(
        "checkpoints", "that stay", "checkpoint_config.max_keep_ckpts", free=True
    ),
    "save_memories": Setting(
        "",
        "also save the memory of each slot (the 3D networks: 1.3 GB each). Without, a resumed run "
        "begins with empty memories, so its losses differ for a while",
        free=True,
    ),
    "evaluate_every": Setting(
        "steps", "between evaluations; 0: never", "evaluation.interval", free=True
    ),
    "evaluate_split": Setting("", "on which scenes", "data.val.ann_file", free=True),
    "evaluate_scenes": Setting("scenes", "of that split; 0: all", free=True),
    "log_every": Setting("steps", "between lines of the log", "log_config.interval", free=True),
}  # fmt: skip
FREE = frozenset(name for name, setting in SETTINGS.items() if setting.free)


def rows() -> Iterator[tuple[str, str, Setting]]:
    """Of every setting: its name, its default as YAML has it, and what there is to say."""
    for field in fields(TrainingConfig):
        default = "must be given" if field.default is MISSING else _yaml(field.default)
        yield field.name, default, SETTINGS[field.name]


def as_text() -> str:
    """For a terminal: a line for the value, one for the meaning."""
    lines = []
    for name, default, setting in rows():
        notes = [f"in the reference: {setting.reference}"] if setting.reference else []
        notes += ["may change at --resume"] if setting.free else []
        unit = f" {setting.unit}" if setting.unit else ""
        lines += [f"{name}={default}{unit}", f"    {'; '.join((setting.meaning, *notes))}"]
    return "\n".join(lines)


def _yaml(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, float):
        return f"{value:.4g}"
    return yaml.safe_dump(value).removesuffix("...\n").strip()
