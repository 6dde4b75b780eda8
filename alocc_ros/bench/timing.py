# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""How fast is the network here, and where does the time go?

The reference's method: batch 1, host-to-device copies and the copy of the result back are
inside the timer, data loading is not; memory is carried from frame to frame. A frame's time is also
given in units of the six-image ResNet-50 that is timed between the frames, so that a noisy
machine does not matter.
"""

from __future__ import annotations

import copy
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval

from alocc_ros import __version__
from alocc_ros.bench.flops import count_as_written, count_prepared
from alocc_ros.bench.scene import example_frame
from alocc_ros.bench.stages import timing_parts
from alocc_ros.network.backbone import ResNet
from alocc_ros.network.model import Alocc
from alocc_ros.network.variants import Variant
from alocc_ros.ops import native
from alocc_ros.runtime.runner import inference, make_runner

# Edge of the square float32 product whose rate counts as attainable.
_PRODUCT = 3072


@dataclass
class Sample:
    """Times of one thing, seconds."""

    times: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Half of the runs were faster."""
        return statistics.median(self.times)

    @property
    def p95(self) -> float:
        """One run in twenty was slower (the slowest of fewer than twenty)."""
        ordered = sorted(self.times)
        return ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]


@dataclass
class Report:
    """What one benchmark found.

    Attributes:
        variant, device, backend, precision, threads: what was run and how.
        frame: whole frames.
        parts: by part of the network, from frames of their own (looking costs time on a GPU). None
            of a frame that is one graph.
        backbone: the six-image ResNet-50 as the network runs it.
        plain_backbone: the same weights folded and in channels-last order, one torch call a layer.
        product: a large float32 matrix product, the attainable rate.
        flops, product_flops, backbone_flops: operations behind those times.
        peak_bytes: highest memory of the process (CPU) or of the allocator (CUDA) over the
            warm-up frames.
        environment: hardware and versions.
    """

    variant: str
    device: str
    backend: str
    precision: str
    threads: int
    product_flops: float
    environment: dict[str, str]
    frame: Sample = field(default_factory=Sample)
    parts: dict[str, Sample] = field(default_factory=dict)
    backbone: Sample = field(default_factory=Sample)
    plain_backbone: Sample = field(default_factory=Sample)
    product: Sample = field(default_factory=Sample)
    flops: dict[str, float] = field(default_factory=dict)
    backbone_flops: float = 0.0
    peak_bytes: int = 0

    @property
    def ratio(self) -> float:
        """Frame time over ResNet-50 time, both measured in this run."""
        return self.frame.median / self.backbone.median


class Drive:
    """The network on one frame after the other, state carried over, with random weights."""

    def __init__(
        self, variant: Variant, device: torch.device, backend: str = "auto", precision: str = "auto"
    ) -> None:
        torch.manual_seed(0)
        self.network = Alocc(variant).eval().to(device)
        self.runner = make_runner(self.network, backend, precision)
        self.state = self.runner.new_state()
        self.frame = example_frame(variant)
        images = self.frame.images
        self.images = images.to(device)
        self._host_images = images.pin_memory() if device.type == "cuda" else images
        self._steps = 0

    def step(self) -> None:
        """From images in main memory to labels and flow in main memory."""
        images = self._host_images.to(self.runner.device, non_blocking=True)
        plan = self.frame.plan(self.state.ages if self._steps else None, slot=self._steps % 2)
        output = self.runner.step(images, plan, self.state)
        self._steps += 1
        output.labels.cpu().numpy()
        if output.flow is not None:
            output.flow.half().contiguous().cpu().numpy()


def benchmark(
    variant: Variant,
    device: torch.device,
    backend: str = "auto",
    precision: str = "auto",
    frames: int = 10,
    warmup: int = 2,
    progress: Callable[[str], None] = lambda _: None,
) -> Report:
    """Time ``frames`` frames after ``warmup`` ones, with random weights."""
    drive = Drive(variant, device, backend, precision)
    backbone, images, step = drive.runner.core.img_backbone, drive.images, drive.step
    report = Report(
        variant=variant.name,
        device=str(device),
        backend=drive.runner.backend,
        precision=drive.runner.precision,
        threads=torch.get_num_threads(),
        product_flops=2.0 * _PRODUCT**3,
        environment=environment(device),
    )
    moments: list[tuple[str, float]] = []

    def ran(part: str) -> None:
        _synchronise(device)
        moments.append((part, time.perf_counter()))

    def timed(function: Callable[[], object], sample: Sample) -> None:
        sample.times.append(_seconds(function, device))

    with inference(report.precision):
        # The third frame is the first that allocates nothing new for the memory.
        for i in range(max(warmup, 3)):
            progress(f"warm-up {i + 1} of {max(warmup, 3)}")
            step()
        report.peak_bytes = _peak_bytes(device)  # what is compared with needs memory of its own
        plain = _plain(drive.network.img_backbone)
        plain_images = images.contiguous(memory_format=torch.channels_last)
        matrix = torch.randn(_PRODUCT, _PRODUCT, device=device)
        images = images.to(drive.runner.core.dtype)
        plain(plain_images)
        backbone(images)
        # All in turn, so that whatever else the machine does befalls them alike.
        for i in range(frames):
            progress(f"frame {i + 1} of {frames}")
            timed(step, report.frame)
            timed(lambda: backbone(images), report.backbone)
            timed(lambda: plain(plain_images), report.plain_backbone)
            timed(lambda: matrix @ matrix, report.product)
            if report.backend in ("graph", "tensorrt"):
                continue
            moments.clear()
            _synchronise(device)
            moments.append(("", time.perf_counter()))
            with timing_parts(drive.runner.core, ran):
                step()
            ran("output")
            _collect(moments, report.parts)
        progress("counting operations")
        if report.backend == "reference":
            report.flops = count_as_written(variant)
        else:
            report.flops = count_prepared(drive.network)
    report.backbone_flops = report.flops["img_backbone"]
    return report


@dataclass
class ReferenceReport:
    """Frames per second, counted as the reference's own tool counts them.

    Attributes:
        variant, device, backend, precision, threads, peak_bytes, environment: as in ``Report``.
        warmup: frames before the first that counts.
        frame: those that count.
    """

    variant: str
    device: str
    backend: str
    precision: str
    threads: int
    warmup: int
    environment: dict[str, str]
    frame: Sample = field(default_factory=Sample)
    peak_bytes: int = 0

    @property
    def fps(self) -> float:
        """As published: frames over the sum of their times, the last one's added twice."""
        times = self.frame.times
        return len(times) / (sum(times) + times[-1])

    @property
    def fps_counted_once(self) -> float:
        """Without that slip."""
        return len(self.frame.times) / sum(self.frame.times)


def benchmark_as_reference(
    variant: Variant,
    device: torch.device,
    backend: str = "auto",
    precision: str = "auto",
    frames: int = 195,
    warmup: int = 5,
    progress: Callable[[str], None] = lambda _: None,
) -> ReferenceReport:
    """Frames and nothing between them, as the published FPS were measured."""
    drive = Drive(variant, device, backend, precision)
    report = ReferenceReport(
        variant=variant.name,
        device=str(device),
        backend=drive.runner.backend,
        precision=drive.runner.precision,
        threads=torch.get_num_threads(),
        warmup=warmup,
        environment=environment(device),
    )
    with inference(report.precision):
        for i in range(warmup):
            progress(f"warm-up {i + 1} of {warmup}")
            drive.step()
        for i in range(frames):
            progress(f"frame {i + 1} of {frames}")
            report.frame.times.append(_seconds(drive.step, device))
    report.peak_bytes = _peak_bytes(device)
    return report


def _seconds(function: Callable[[], object], device: torch.device) -> float:
    _synchronise(device)
    start = time.perf_counter()
    function()
    _synchronise(device)
    return time.perf_counter() - start


def _collect(moments: list[tuple[str, float]], parts: dict[str, Sample]) -> None:
    """Time between two moments belongs to the later part; stages of one part are summed."""
    sums: dict[str, float] = {}
    for (_, before), (part, after) in zip(moments[:-1], moments[1:], strict=True):
        sums[part] = sums.get(part, 0.0) + after - before
    for part, seconds in sums.items():
        parts.setdefault(part, Sample()).times.append(seconds)


def _plain(backbone: ResNet) -> nn.Module:
    """The backbone as one would write it down: BatchNorm folded, channels last."""
    plain = copy.deepcopy(backbone)
    for module in plain.modules():
        for i in (1, 2, 3):
            if hasattr(module, f"conv{i}"):
                conv, bn = getattr(module, f"conv{i}"), getattr(module, f"bn{i}")
                setattr(module, f"conv{i}", fuse_conv_bn_eval(conv, bn))
                setattr(module, f"bn{i}", None)
        if getattr(module, "downsample", None) is not None:
            module.downsample = nn.Sequential(fuse_conv_bn_eval(*module.downsample))
    return plain.to(memory_format=torch.channels_last)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def environment(device: torch.device) -> dict[str, str]:
    """Hardware and versions that the numbers depend on."""
    found = {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "vector instructions": torch.backends.cpu.get_cpu_capability(),
        "C kernels": "yes" if native.library() is not None else "no (plain torch)",
        "alocc_ros": __version__,
    }
    if device.type == "cuda":
        found["GPU"] = torch.cuda.get_device_name(device)
        found["CUDA"] = f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    return found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
