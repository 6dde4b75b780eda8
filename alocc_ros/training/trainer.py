# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The loop: frames in, gradients, steps, checkpoints. ``alocc train`` is a few lines around it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from alocc_ros.datasets.formats import format_of
from alocc_ros.datasets.sequences import halves
from alocc_ros.distributed import SINGLE_PROCESS, World, any_rank, barrier, mean_over_ranks
from alocc_ros.errors import OutputError, ParameterError, TrainingError
from alocc_ros.network.checkpoint import save_safetensors
from alocc_ros.network.lifting import RELEASED_INTER_INDEX_MAX
from alocc_ros.network.model import Alocc
from alocc_ros.network.variants import Variant
from alocc_ros.records import ModelRecord
from alocc_ros.training import checkpoint
from alocc_ros.training.augmentation import ImageAugmentation
from alocc_ros.training.config import TrainingConfig
from alocc_ros.training.ema import average_in_words, moving_average
from alocc_ros.training.forward import SlotMemory, TrainingForward
from alocc_ros.training.interrupt import graceful_stop
from alocc_ros.training.loader import VisitBatches, end_workers, frame_loader, raise_errors
from alocc_ros.training.log import RunLog
from alocc_ros.training.losses import IGNORED, ClassBalance
from alocc_ros.training.norms import synchronised
from alocc_ros.training.randomness import seed_everything
from alocc_ros.training.samples import Preparation, SampleSource, TrainingFrame
from alocc_ros.training.schedule import Phases, learning_rate_schedule
from alocc_ros.training.settings import FREE
from alocc_ros.training.start import freeze
from alocc_ros.training.step import TrainingStep
from alocc_ros.training.streams import Streams
from alocc_ros.training.stripes import check_stripes
from alocc_ros.training.volumes import VolumeStore, check_frozen, fill
from alocc_ros.words import counted

_DROPOUT = 5  # purpose of the random numbers, see randomness.py
# A pass over nuScenes with class-balanced sampling would be so many times longer; the reference
# counts its schedules in such epochs.
_EPOCH = 4.554
# Newer releases of torch warn of the older name.
_BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in signature(DistributedDataParallel).parameters
)


@dataclass(frozen=True)
class Report:
    """What is said of a step.

    Attributes:
        step: from 0.
        losses: weighted, by name, mean over the processes.
        gradient: L2 norm before it was clipped.
        learning_rate: of the step.
        seconds: that it took.
        dead: names of the classes that are there and believed in nowhere any more (see
            ``losses.dead_classes``), in this process's last batch; looked for where the step is
            written into the log.
    """

    step: int
    losses: Mapping[str, float]
    gradient: float
    learning_rate: float
    seconds: float
    dead: tuple[str, ...] = ()

    @property
    def total(self) -> float:
        """What was minimised."""
        return sum(self.losses.values())

    def numbers(self) -> dict[str, float]:
        """For the log, by name."""
        return {
            "loss": self.total,
            **{f"loss/{name}": value for name, value in self.losses.items()},
            "gradient": self.gradient,
            "learning_rate": self.learning_rate,
            "seconds": self.seconds,
        }


class Trainer:
    """One run, in one of its processes.

    Attributes:
        network: what is trained.
        step: the next one.
        slots: streams of the global batch.
    """

    def __init__(
        self,
        network: Alocc,
        record: ModelRecord,
        source: SampleSource,
        config: TrainingConfig,
        output: Path,
        device: torch.device,
        world: World = SINGLE_PROCESS,
        evaluate: Callable[[Alocc], Mapping[str, float]] | None = None,
    ) -> None:
        self._config, self._output, self._device, self._world = config, output, device, world
        self._evaluate, self._record = evaluate, record
        self.slots = world.size * config.batch * config.accumulate
        self.step = 0
        self.network = network.to(device)
        self._average = moving_average(
            network, config.ema_limit, config.ema_warmup, config.ema_offset
        )
        if world.size > 1:
            self.network = synchronised(self.network, device.type)
        if config.compile:
            _compile(self.network)
        frozen = freeze(self.network, config.frozen)
        counts = _voxel_counts(source, record, config)
        balance = ClassBalance.of(counts, entropy=config.entropy_balance)
        self._inner = TrainingStep(self.network, record, balance, config).to(device).train()
        for module in frozen:
            module.eval()
        model: nn.Module = self._inner
        if world.size > 1:
            model = DistributedDataParallel(
                model,
                device_ids=[device] if device.type == "cuda" else None,
                gradient_as_bucket_view=True,
                find_unused_parameters=config.image_steps > 0 or bool(config.volumes),
                **{_BUFFERS: False},  # synchronised statistics are the same everywhere
            )
        self._model = model
        self._optimiser = torch.optim.AdamW(
            [p for p in self.network.parameters() if p.requires_grad],
            config.learning_rate,
            weight_decay=config.weight_decay,
            fused=device.type == "cuda",
        )
        self._memories: dict[int, SlotMemory | None] = {}
        variant = network.variant
        self._streams = Streams(_sequences(source, variant, config), self.slots, config.seed)
        self._preparation = Preparation(
            source,
            variant,
            record.classes,
            config.seed,
            ImageAugmentation(config.image_scale, config.image_flip, config.image_turn)
            if config.augment_images
            else None,
            config.grid_flip,
            light=config.image_light,
            bonnet=config.bonnet,
        )
        if config.crop_rows:
            check_stripes(variant)
        self._volumes: VolumeStore | None = None
        if config.volumes:
            check_frozen(network, config.frozen)
            self._open_volumes()
        self._schedule = self._learning_rates()
        epoch = config.epoch_steps or _epoch_steps(source, self.slots)
        start, end = (round(e * epoch) for e in config.flow_denoising)
        self._phases = Phases(
            round(config.temporal_start * epoch),
            round(config.depth_denoising * epoch),
            start,
            end,
            config.image_steps,
        )

    @property
    def average(self) -> Alocc:
        """What is evaluated and published: the moving average of the network."""
        return self._average.module

    def average_in_words(self) -> str:
        """What will be evaluated and published, and how much of it is not the run's own work."""
        c = self._config
        return average_in_words(c.steps, c.ema_limit, c.ema_warmup, c.ema_offset)

    def resume(self) -> None:
        """Go on from the newest checkpoint.

        Raises:
            OutputError: there is none.
            ParameterError: it is of a run with other settings.
            CheckpointError: it is damaged.
        """
        newest = checkpoint.latest(self._checkpoints)
        if newest is None:
            raise OutputError(f"{self._output}: no checkpoint to resume from")
        state = checkpoint.load_state(newest)
        before = self._check_same(state, newest)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]
        self._average.n_averaged.fill_(self.step + 1)
        self._schedule = self._learning_rates()
        if self._config.volumes:
            self._open_volumes()  # of other weights than those that the network began with
        if before.save_memories:
            mine = [s for batch in self._my_slots() for s in batch]
            self._memories = checkpoint.load_memories(newest, mine, self._device)

    def run(self, on_step: Callable[[Report], None] = lambda report: None) -> None:
        """Train to the last step; an interruption saves a checkpoint first.

        Raises:
            TrainingError: a loss or the gradient is not a number.
            KeyboardInterrupt: SIGINT or SIGTERM came.
        """
        config, first = self._config, self.step
        log = RunLog(self._output, first) if self._world.rank == 0 else None
        batches = iter(self._loader(first))
        try:
            with graceful_stop() as stop:
                while self.step < config.steps:
                    report = self._one_step(batches)
                    done = self.step == config.steps
                    if log is not None and (report.step % config.log_every == 0 or done):
                        log.write(report.step, report.numbers())
                    on_step(report)
                    stopped = any_rank(stop.requested, self._device)
                    if done or stopped or self.step % config.save_every == 0:
                        self.save()
                    if stopped:
                        raise KeyboardInterrupt
                    if done or (config.evaluate_every and self.step % config.evaluate_every == 0):
                        self._publish(log)
        finally:
            end_workers(batches)
            if log is not None:
                log.close()

    def fill_volumes(self, on_progress: Callable[[int, int], None]) -> None:
        """Make the lifted volumes that are missing, if the run learns from such; every process
        calls this and makes its share.

        Raises:
            AloccError: a key frame cannot be read, or a volume not be written.
        """
        if self._volumes is not None:
            record = self._record
            forward = TrainingForward(self.network, record.mean, record.std, record.channel_order)
            whole = replace(
                self._preparation, images=None, flip=0.0, volumes=None, light=0.0, bonnet=0.0
            )
            fill(self._volumes, whole, forward, self._device, self._world, on_progress)
        barrier()

    def save(self) -> Path:
        """Write a checkpoint now; every process calls this."""
        state = {
            "step": self.step,
            "slots": self.slots,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "config": self._config.as_dict(),
        }
        memories = self._memories if self._config.save_memories else {}
        return checkpoint.save(
            self._checkpoints, self.step, state, memories, self._world, self._config.keep
        )

    # --- one step -----------------------------------------------------------------------------

    def _one_step(self, batches: Iterator[list[TrainingFrame]]) -> Report:
        config, begin = self._config, time.perf_counter()
        rate, phase = self._schedule.get_last_lr()[0], self._phases.at(self.step)
        if self._record.lidar_depth:
            phase = replace(phase, depth_truth=1.0)  # it will be given the measured depth for ever
        seed_everything(config.seed, _DROPOUT, self.step, self._world.rank)
        self._optimiser.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        self._inner.watching = self.step % config.log_every == 0
        for part in range(config.accumulate):
            frames = [f.to(self._device) for f in raise_errors(next(batches))]
            last = part == config.accumulate - 1
            waiting = isinstance(self._model, DistributedDataParallel) and not last
            with self._model.no_sync() if waiting else nullcontext():
                losses = self._losses(frames, phase)
                (sum(losses.values()) / config.accumulate).backward()
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + loss.detach() / config.accumulate
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), config.clip)
        if not bool(norm.isfinite()):  # the same in every process
            raise TrainingError(f"step {self.step}: the gradient is {float(norm)}")
        self._optimiser.step()
        self._schedule.step()
        self._average.update_parameters(self.network)
        means = mean_over_ranks(torch.stack(list(sums.values()))).tolist()
        report = Report(
            self.step,
            dict(zip(sums, means, strict=True)),
            float(norm),
            rate,
            time.perf_counter() - begin,
            tuple(self._record.classes.names[c] for c in sorted(self._inner.dead)),
        )
        self.step += 1
        return report

    def _losses(self, frames: Sequence[TrainingFrame], phase: Any) -> dict[str, Tensor]:
        memories = [None if f.visit.start else self._memories.get(f.visit.slot) for f in frames]
        losses, kept = self._model(frames, memories, phase)
        values = {name: loss.item() for name, loss in losses.items()}
        bad = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
        if any_rank(bool(bad), self._device):
            who = "; ".join(f.name for f in frames) if bad else "another process"
            raise TrainingError(
                f"step {self.step}: loss {', '.join(bad) or 'not finite'} in the batch of {who}; "
                "the newest checkpoint is from before"
            )
        for frame, memory in zip(frames, kept, strict=True):
            self._memories[frame.visit.slot] = memory
        return losses

    def _learning_rates(self) -> LambdaLR:
        config = self._config
        return learning_rate_schedule(
            self._optimiser,
            config.learning_rate,
            config.warmup_steps,
            config.warmup_ratio,
            config.cosine,
            config.steps,
            self.step,
        )

    # --- around it ----------------------------------------------------------------------------

    @property
    def _checkpoints(self) -> Path:
        return self._output / "checkpoints"

    def _open_volumes(self) -> None:
        self._volumes = VolumeStore(Path(self._config.volumes), self.network)
        self._preparation = replace(self._preparation, volumes=self._volumes.read)

    def _my_slots(self) -> list[list[int]]:
        """Slots of this process in each batch of a step."""
        size, batch = self._world.size, self._config.batch
        return [
            [(part * size + self._world.rank) * batch + i for i in range(batch)]
            for part in range(self._config.accumulate)
        ]

    def _loader(self, first: int) -> DataLoader:
        config = self._config
        batches = VisitBatches(self._streams, self._my_slots(), first, config.steps)
        return frame_loader(self._preparation, batches, config.workers, self._device)

    def _check_same(self, state: Mapping[str, Any], where: Path) -> TrainingConfig:
        """The settings that a checkpoint was made with."""
        before = TrainingConfig(self._config.model).with_values(state["config"], str(where))
        other = [n for n in self._config.differences(before) if n not in FREE]
        if other:
            changes = ", ".join(
                f"{n} was {getattr(before, n)}, is {getattr(self._config, n)}" for n in other
            )
            raise ParameterError(
                f"{where} is of another run: {changes}. Go on with the settings of then, or begin "
                f"another run with these weights: -o NEW --weights {where} --config "
                f"{self._output}/config.yaml; at --resume only these may "
                f"change: {', '.join(sorted(FREE))}"
            )
        if state["slots"] != self.slots:
            raise ParameterError(
                f"{where} was trained with {counted(state['slots'], 'stream')} "
                f"(processes x batch x accumulate), now it would be "
                f"{self.slots}; --set batch and accumulate to match"
            )
        return before

    def _publish(self, log: RunLog | None) -> None:
        """Evaluate the average, and write it as weights."""
        scores = {} if self._evaluate is None else self._evaluate(self.average)
        if log is not None:
            if scores:
                log.write(self.step - 1, {f"score/{n}": v for n, v in scores.items()})
            words = {"model": self._config.model, "step": str(self.step)}
            words |= {n: f"{v:.4f}" for n, v in scores.items()}
            save_safetensors(self._output / "weights.safetensors", self.average.state_dict(), words)
        barrier()


def _sequences(
    source: SampleSource, variant: Variant, config: TrainingConfig
) -> list[tuple[int, ...]]:
    """Half or whole scenes; single frames for networks without history."""
    if variant.history:
        return list(map(tuple, source.scenes)) if config.whole_scenes else halves(source.scenes)
    return [(index,) for scene in source.scenes for index in scene]


def _epoch_steps(source: SampleSource, slots: int) -> int:
    frames = sum(len(scene) for scene in source.scenes)
    return max(1, int(frames // slots * _EPOCH))


def _voxel_counts(
    source: SampleSource, record: ModelRecord, config: TrainingConfig
) -> Sequence[int]:
    """Voxels of each class, as published for nuScenes or counted in some frames."""
    if not config.count_voxels:
        return format_of(record).voxel_counts
    frames = [index for scene in source.scenes for index in scene]
    chosen = torch.linspace(0, len(frames) - 1, min(config.count_voxels, len(frames)))
    counts = torch.zeros(256, dtype=torch.int64)
    for place in chosen.round().int().tolist():
        sample = source.read(frames[place])
        labels = sample.labels if sample.supervised is None else sample.labels[sample.supervised]
        counts += torch.bincount(torch.from_numpy(labels.reshape(-1)).long(), minlength=256)
    return counts[:IGNORED][: record.classes.free + 1].tolist()


def _compile(network: Alocc) -> None:
    """The parts that are convolutions from end to end."""
    backbone = network.img_backbone
    parts = [backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4, network.img_neck]
    parts += [network.img_bev_encoder_backbone, network.img_bev_encoder_neck]
    for part in parts:
        part.compile()


def inter_index_max(variant: Variant, config: TrainingConfig) -> int:
    """How far inter-object copies may land; see ``network/lifting.py``."""
    if config.inter_object_bug:
        return min(RELEASED_INTER_INDEX_MAX, variant.depth_bins - 1)
    return variant.depth_bins - 1
