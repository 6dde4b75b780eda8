# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Every way to run every network, side by side in one process, cell by cell within a budget.

What is found is written after each cell, so whatever ends the run loses one cell at most, and the
same command goes on where it ended. Without a GPU the cells of a CPU are measured; what a GPU would
need is predicted (``bench/predict.py``) and said to be.
"""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from alocc_ros.bench.kernels import KernelCheck, check_kernels
from alocc_ros.bench.predict import GPUS, Gpu, predict
from alocc_ros.bench.scene import example_frame
from alocc_ros.bench.timing import Sample, environment
from alocc_ros.errors import AloccError, DataError
from alocc_ros.files import make_folder, whole_file
from alocc_ros.network.model import Alocc, Output
from alocc_ros.network.variants import Variant
from alocc_ros.runtime.precision import check_precision
from alocc_ros.runtime.runner import Runner, make_runner

# Cells of a network on each kind of device, the most telling first.
_ON_GPU = (
    *(("graph", "fp16"), ("eager", "fp32"), ("tensorrt", "fp16"), ("compiled", "fp16")),
    *(("graph", "bf16"), ("graph", "fp32"), ("graph", "tf32"), ("eager", "fp16")),
)
_ON_CPU = (("eager", "fp32"), ("eager", "bf16"))
_AGREEING_FRAMES = 3
_LEAST_FRAMES, _MOST_FRAMES, _WARM_UP = 5, 400, 5
_FLOW_TOLERANCE = 0.02  # m/s


@dataclass
class Cell:
    """One network run one way.

    Attributes:
        variant, backend, precision: what.
        p50_ms, p95_ms: of a frame, images on the device to labels and flow on the device.
        host_p50_ms: of a frame, float32 images in main memory to labels and flow in main memory.
        fps: frames a second, one after the other.
        memory: highest bytes of the device's allocator; 0 on a CPU.
        joules: energy of a frame; None: not readable.
        roofline: share of the predicted limit that is reached; None: none is known for the device.
        start_s: from weights on the device to the first frame's end (compilation, tuning, capture).
        labels, flow: share of voxels whose label is that of eager fp32, and of those whose velocity
            is within 2 cm/s of it; flow None: the network has none.
        problem: why there are no numbers; "" if there are.
    """

    variant: str
    backend: str
    precision: str
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    host_p50_ms: float = 0.0
    fps: float = 0.0
    memory: int = 0
    joules: float | None = None
    roofline: float | None = None
    start_s: float = 0.0
    labels: float = 0.0
    flow: float | None = None
    problem: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is a cell of."""
        return self.variant, self.backend, self.precision


@dataclass
class Comparison:
    """All cells so far.

    Attributes:
        device: its name.
        environment: hardware and versions.
        load: load average of the machine when it began.
        cells: in the order in which they were measured.
        kernels: fused operators against what they stand for (``bench/kernels.py``), on a GPU.
    """

    device: str
    environment: dict[str, str]
    load: float
    cells: list[Cell] = field(default_factory=list)
    kernels: list[KernelCheck] = field(default_factory=list)


def compare(
    variants: Sequence[Variant],
    device: torch.device,
    folder: Path,
    budget: float,
    backends: Sequence[str] | None = None,
    progress: Callable[[str], None] = lambda _: None,
    seconds: float = 4.0,
) -> Comparison:
    """Measure what is not in ``folder/compare.json`` yet, for ``budget`` seconds at most;
    ``seconds`` of frames a cell, once it runs.

    Raises:
        DataError: the folder holds a comparison of another device or other versions.
    """
    end = time.monotonic() + budget
    found = _resumed(folder, device)
    done = {cell.key for cell in found.cells}
    if device.type == "cuda":
        checked = {check.variant for check in found.kernels}
        for variant in variants:
            if variant.name in checked or time.monotonic() >= end:
                continue
            progress(f"{variant.name}, kernels")
            found.kernels += _kernels(variant, device)
            _save(found, folder)
    for variant, backend, precision in _cells(variants, device, backends):
        if (variant.name, backend, precision) in done:
            continue
        if time.monotonic() >= end:
            progress("the budget is spent; the same command goes on from here")
            break
        progress(f"{variant.name}, {backend}, {precision}")
        found.cells.append(measure(variant, device, backend, precision, seconds))
        _save(found, folder)
    return found


def measure(
    variant: Variant, device: torch.device, backend: str, precision: str, seconds: float = 4.0
) -> Cell:
    """One cell; what fails in it is told in it."""
    cell = Cell(variant.name, backend, precision)
    try:
        check_precision(precision, backend, device)
        _measure(cell, variant, device, seconds)
    except (AloccError, RuntimeError, ImportError, OSError) as error:
        cell.problem = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return cell


def _measure(cell: Cell, variant: Variant, device: torch.device, seconds: float) -> None:
    torch.manual_seed(0)
    network = Alocc(variant).eval().to(device)
    expected = _answers(make_runner(network, "eager", "fp32"), variant)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    began = time.perf_counter()
    runner = make_runner(network, cell.backend, cell.precision)
    drive = _Drive(runner, variant)
    drive.step(on_host=True)
    cell.start_s = time.perf_counter() - began
    if runner.reason:
        cell.problem = runner.reason
    for _ in range(_WARM_UP):
        drive.step(on_host=False)
    device_times, host_times = Sample(), Sample()
    before, began = _joules(device), time.perf_counter()
    while len(device_times.times) < _LEAST_FRAMES or (
        time.perf_counter() - began < seconds and len(device_times.times) < _MOST_FRAMES
    ):
        device_times.times.append(drive.step(on_host=False))
    spent = time.perf_counter() - began
    if before is not None and (after := _joules(device)) is not None:
        cell.joules = (after - before) / len(device_times.times)
    for _ in range(max(_LEAST_FRAMES, len(device_times.times) // 4)):
        host_times.times.append(drive.step(on_host=True))
    cell.p50_ms, cell.p95_ms = 1e3 * device_times.median, 1e3 * device_times.p95
    cell.host_p50_ms, cell.fps = 1e3 * host_times.median, len(device_times.times) / spent
    if device.type == "cuda":
        cell.memory = torch.cuda.max_memory_allocated(device)
        if (gpu := _rates(device)) is not None:
            cell.roofline = predict(variant).seconds(gpu) / device_times.median
    answers = _answers(runner, variant)
    pairs = list(zip(answers, expected, strict=True))
    cell.labels = _mean((a.labels == b.labels).float().mean() for a, b in pairs)
    if expected[0].flow is not None:
        cell.flow = _mean(
            ((a.flow.float() - b.flow).abs() <= _FLOW_TOLERANCE).float().mean() for a, b in pairs
        )


def _kernels(variant: Variant, device: torch.device) -> list[KernelCheck]:
    try:
        return check_kernels(variant, device)
    except (AloccError, RuntimeError, ImportError, OSError) as error:
        words = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return [KernelCheck(words, variant.name, passed=False)]


class _Drive:
    """Frames with a state, with images on the device or in main memory."""

    def __init__(self, runner: Runner, variant: Variant) -> None:
        self._runner, self._state = runner, runner.new_state()
        self._frame = example_frame(variant)
        host, cuda = self._frame.images, runner.device.type == "cuda"
        self._on_host = host.pin_memory() if cuda else host
        self._on_device = host.to(runner.device)
        self._steps = 0

    def step(self, on_host: bool) -> float:
        """Seconds of one frame."""
        slot = self._steps % 2
        plan = self._frame.plan(self._state.ages if self._steps else None, slot=slot)
        self._steps += 1
        _synchronise(self._runner.device)
        began = time.perf_counter()
        images = self._on_device
        if on_host:
            images = self._on_host.to(self._runner.device, non_blocking=True)
        output = self._runner.step(images, plan, self._state)
        if on_host:
            output.labels.cpu()
            if output.flow is not None:
                output.flow.half().cpu()
        _synchronise(self._runner.device)
        return time.perf_counter() - began


def _answers(runner: Runner, variant: Variant) -> list[Output]:
    """Of some frames in a row, in main memory."""
    state, answers = runner.new_state(), []
    for t in range(_AGREEING_FRAMES):
        frame = example_frame(variant, seed=t)
        plan = frame.plan(state.ages if t else None, slot=t % 2)
        output = runner.step(frame.images.to(runner.device), plan, state)
        flow = None if output.flow is None else output.flow.float().cpu()
        answers.append(Output(output.labels.cpu(), torch.empty(0), flow, None))
    return answers


def _cells(
    variants: Sequence[Variant], device: torch.device, backends: Sequence[str] | None
) -> Iterator[tuple[Variant, str, str]]:
    """Way by way, so that what is cut off is the least telling."""
    for backend, precision in _ON_GPU if device.type == "cuda" else _ON_CPU:
        if backends is None or backend in backends:
            for variant in variants:
                yield variant, backend, precision


def _resumed(folder: Path, device: torch.device) -> Comparison:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    fresh = Comparison(name, environment(device), os.getloadavg()[0])
    path = folder / "compare.json"
    if not path.exists():
        make_folder(folder)
        return fresh
    try:
        held = json.loads(path.read_text())
        cells = [Cell(**cell) for cell in held["cells"]]
        same = held["device"] == name and held["environment"] == fresh.environment
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a comparison: {error}; take another folder") from error
    if not same:
        raise DataError(f"{path} is of {held['device']} or other versions; take another folder")
    kernels = [KernelCheck(**check) for check in held["kernels"]]
    return Comparison(name, fresh.environment, held["load"], cells, kernels)


def _save(found: Comparison, folder: Path) -> None:
    for name, text in (
        ("compare.json", json.dumps(asdict(found), indent=1)),
        ("compare.md", as_markdown(found)),
    ):
        with whole_file(folder / name) as scratch:
            scratch.write_text(text)


def as_markdown(found: Comparison) -> str:
    """The page for ``docs/benchmarks``."""
    lines = [f"# {found.device}: every network, every way", ""]
    lines += [", ".join(f"{k} {v}" for k, v in found.environment.items()) + ".", ""]
    lines += [f"Load of the machine at the start: {found.load:.1f}. Random weights, batch 1.", ""]
    lines += [
        "| network | backend | precision | p50 ms | p95 ms | FPS | host p50 ms | GiB | J/frame | "
        "of roofline | labels | flow | start s |",
        "|---|---|---|" + "---:|" * 10,
    ]
    for c in found.cells:
        if not c.p50_ms:
            lines.append(f"| {c.variant} | {c.backend} | {c.precision} | {c.problem} |")
            continue
        optional = [
            f"{c.memory / 2**30:.2f}" if c.memory else "",
            "" if c.joules is None else f"{c.joules:.2f}",
            "" if c.roofline is None else f"{c.roofline:.0%}",
            f"{c.labels:.3%}",
            "" if c.flow is None else f"{c.flow:.3%}",
        ]
        numbers = [c.p50_ms, c.p95_ms, c.fps, c.host_p50_ms]
        row = [c.variant, c.backend, c.precision, *(f"{n:.2f}" for n in numbers), *optional]
        lines.append("| " + " | ".join([*row, f"{c.start_s:.0f}"]) + " |")
        if c.problem:
            lines.append(f"| | | | {c.problem} |")
    if found.kernels:
        lines += ["", "| kernel | network | calls | us | plain us | error | strays | |"]
        lines.append("|---|---|" + "---:|" * 5 + "---|")
    for k in found.kernels:
        row = [k.operator, k.variant, str(k.calls), f"{k.kernel_us:.0f}", f"{k.plain_us:.0f}"]
        row += [f"{k.error:.1e}", f"{k.strays:.1e}", "" if k.passed else "FAIL"]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def _rates(device: torch.device) -> Gpu | None:
    major, minor = torch.cuda.get_device_capability(device)
    return GPUS.get(f"sm_{major}{minor}")


def _joules(device: torch.device) -> float | None:
    """Energy counter of the GPU; None: it has none, or nothing that reads it."""
    if device.type != "cuda":
        return None
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(device.index or 0)
        return pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) * 1e-3
    except Exception:  # of a library that need not be here, on drivers that need not tell
        return None


def _mean(values: Iterator[torch.Tensor]) -> float:
    return float(torch.stack([v.double() for v in values]).mean())


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
