# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Compare this build of the network with tensors recorded from the reference.

A golden folder holds ``manifest.json`` (generator salt, frames, input size, variants),
``procedural.py`` (makes weights and inputs out of names), a schema and an .npz a variant. The
weights are procedural, so no checkpoint is needed: what is proven is the code.
"""

from __future__ import annotations

import importlib.util
import json
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alocc_ros import records
from alocc_ros.bench.scene import ExampleFrame
from alocc_ros.bench.stages import output_stages, watching
from alocc_ros.errors import AloccError, ModelError
from alocc_ros.files import array_in
from alocc_ros.network.cameras import CameraGeometry
from alocc_ros.network.checkpoint import load_weights
from alocc_ros.network.model import Alocc
from alocc_ros.network.variants import VARIANTS, Variant
from alocc_ros.runtime.runner import inference, make_runner


@dataclass(frozen=True)
class Tolerance:
    """What a precision may cost.

    Attributes:
        stage: largest error of a stage, relative to the largest magnitude of that stage.
        labels: share of voxels with the same label.
        flow: m/s, within which the velocities of a share ``flow_share`` of voxels lie.
    """

    stage: float
    labels: float
    flow: float = 0.02
    flow_share: float = 0.999


# Float32 round-off through 60 layers stays near 1e-5; the stereo cost of flat inputs and positions
# that round to another side reach a few 1e-4. A wrong rule anywhere shows at 1e-2 or more. Labels:
# voxels whose two best classes are within round-off may flip.
# Half precision rounds each activation to 2^-11 (fp16, and the inputs of tf32) or 2^-8 (bf16) of
# itself; sixty layers make that ten times as much. The cost of depths that match equally well
# amplifies it.
TOLERANCES = {
    "fp32": Tolerance(2e-3, 0.9995),
    "tf32": Tolerance(2e-2, 0.999),
    "fp16": Tolerance(2e-2, 0.999),
    "bf16": Tolerance(0.15, 0.99, 0.05, 0.99),
    # Ranges are cut into 256 steps: 2 to 9 % of a feature, and what follows from it.
    "int8": Tolerance(0.5, 0.9, 0.5, 0.9),
}

# Stages that jump where a position crosses a node, so that two right programs differ there by much:
# the mean error counts.
_BY_THE_MEAN = frozenset({"history/motion_gradient"})

_SUBSAMPLE = 8192


@dataclass(frozen=True)
class StageResult:
    """One stage of one frame against the recorded one.

    Attributes:
        frame: position in the recorded sequence.
        stage: name in the golden file.
        max_abs: largest absolute error over the recorded subsample (the mean one of stages that
            jump).
        relative: the same over the largest magnitude of the full golden tensor.
        agreement: share of equal labels, or of velocities within tolerance; 1 for others.
        passed: within tolerance.
    """

    frame: int
    stage: str
    max_abs: float
    relative: float
    agreement: float
    passed: bool


@dataclass(frozen=True)
class Golden:
    """A golden folder, opened."""

    folder: Path
    manifest: dict[str, Any]
    generator: ModuleType

    def entry(self, variant: str) -> dict[str, Any]:
        """The manifest's entry of a variant.

        Raises:
            ModelError: the folder has no vectors of it.
        """
        entries = self.manifest["variants"]
        if variant not in entries:
            raise ModelError(
                f"{self.folder} has no vectors of {variant!r}, but {', '.join(entries)}"
            )
        return entries[variant]

    def make(self, function: str, *arguments: Any) -> Any:
        """What the folder's generator makes.

        Raises:
            AloccError: it fails.
        """
        try:
            return getattr(self.generator, function)(*arguments)
        except Exception as error:  # the folder's own code: whatever it raises is its defect
            raise AloccError(
                f"{self.folder}/procedural.py: {function}: {_reason(error)}"
            ) from error

    def frame(
        self, t: int, variant: Variant, stereo: bool
    ) -> tuple[ExampleFrame, Tensor | None, bool]:
        """Frame ``t``: what goes in, the adjacent images [N, 3, H, W], does a sequence start.

        Raises:
            AloccError: the generator fails, or leaves something out.
        """
        inputs = self.make("make_frame", t, variant.input_size, stereo)
        try:
            images, adjacent = _images(inputs, stereo)
            if images.shape[2:] != variant.input_size:
                raise ValueError(f"images of shape {tuple(images.shape)}")
            return _frame(variant, inputs, images), adjacent, bool(inputs["start_of_sequence"])
        except Exception as error:  # in as many ways as a dictionary of tensors can be wrong
            raise AloccError(
                f"{self.folder}/procedural.py: make_frame({t}) gives no usable frame: "
                f"{_reason(error)}"
            ) from error

    def known(self) -> tuple[list[str], list[str]]:
        """The entries whose network is known here, and the others."""
        names = self.manifest["variants"]
        known = [n for n in names if n in VARIANTS or n in records.load_records()]
        return known, [n for n in names if n not in known]

    def variant(self, name: str) -> Variant:
        """The network that the entry ``name`` (a variant or a model record) is about."""
        base = VARIANTS.get(name) or VARIANTS[records.find(name).variant]
        return replace(base, input_size=tuple(self.manifest["input_size"]))


class Vectors:
    """The recorded tensors of a variant; use it in a ``with`` block."""

    def __init__(self, path: Path) -> None:
        """Opens an .npz.

        Raises:
            AloccError: it is missing or damaged.
        """
        self._path = path
        try:
            self._file = np.load(path)
            self._names = frozenset(self._file.files)
        except FileNotFoundError as error:
            raise AloccError(f"{path} is named in the manifest but missing") from error
        except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
            raise AloccError(f"{path} is not a whole .npz file: {_reason(error)}") from error

    def __enter__(self) -> Vectors:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __contains__(self, key: str) -> bool:
        return key in self._names

    def get(self, key: str, count: int | None = None) -> np.ndarray:
        """A tensor, of ``count`` numbers.

        Raises:
            AloccError: it is missing, damaged, or of another size.
        """
        if key not in self._names:
            raise AloccError(f"{self._path} has no {key}")
        try:
            value = array_in(self._file, key)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise AloccError(f"{self._path}: {key} is damaged: {_reason(error)}") from error
        if count is not None and value.size != count:
            raise AloccError(f"{self._path}: {key} holds {value.size} numbers, expected {count}")
        return value


def open_golden(folder: str | Path) -> Golden:
    """Open a golden folder. Runs the folder's own generator, ``procedural.py``.

    Raises:
        AloccError: something is missing or malformed; says what.
    """
    folder = Path(folder)
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        script = folder / "procedural.py"
        spec = importlib.util.spec_from_file_location("golden_procedural", script)
        generator = importlib.util.module_from_spec(spec)
        _check_manifest(manifest, f"{folder}/manifest.json")
        spec.loader.exec_module(generator)
    except AloccError:
        raise
    except OSError as error:
        raise AloccError(f"{folder} is not a golden folder: {error}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise AloccError(f"{folder}/manifest.json is not JSON: {error}") from error
    except Exception as error:  # whatever the script trips over
        raise AloccError(f"{folder}/procedural.py cannot be run: {_reason(error)}") from error
    for name in ("make_state_dict", "make_frame"):
        if not callable(getattr(generator, name, None)):
            raise AloccError(f"{folder}/procedural.py has no function {name}")
    generator.SALT = manifest["salt"]
    return Golden(folder, manifest, generator)


def _check_manifest(manifest: Any, where: str) -> None:
    """Extra entries are somebody else's business; those we read must be what they should."""
    if not isinstance(manifest, dict):
        raise AloccError(f"{where} must hold entries, not a {type(manifest).__name__}")
    missing = {"salt", "frames", "input_size", "variants"} - manifest.keys()
    if missing:
        raise AloccError(f"{where} lacks {', '.join(sorted(missing))}")
    frames, size, variants = (manifest[k] for k in ("frames", "input_size", "variants"))
    if not isinstance(frames, list) or not frames or any(type(t) is not int for t in frames):
        raise AloccError(f"{where}: frames must be a list of whole numbers, got {frames!r}")
    if not (
        isinstance(size, list)
        and len(size) == 2
        and all(type(s) is int and s >= 64 and s % 16 == 0 for s in size)
    ):
        raise AloccError(
            f"{where}: input_size must be height and width, multiples of 16, got {size!r}"
        )
    if not isinstance(variants, dict) or not variants:
        raise AloccError(f"{where}: variants must hold entries, got {variants!r}")
    for name, entry in variants.items():
        for key, kind in (("schema", str), ("golden", str), ("stereo", bool)):
            if not isinstance(entry, dict) or not isinstance(entry.get(key), kind):
                raise AloccError(f"{where}: variants: {name} lacks {key} ({kind.__name__})")


def compare(
    golden: Golden,
    name: str,
    device: torch.device,
    backend: str = "eager",
    precision: str = "auto",
) -> Iterator[StageResult]:
    """Run the recorded frames in order, memory carried over, and compare every stage there is."""
    entry, variant = golden.entry(name), golden.variant(name)
    network = Alocc(variant).eval()
    schema = _schema(golden.folder / entry["schema"])
    weights = golden.make("make_state_dict", schema)
    try:
        load_weights(network, weights)
    except (ModelError, AttributeError, TypeError) as error:
        raise AloccError(f"{golden.folder}: weights of {entry['schema']}: {error}") from error
    runner = make_runner(network.to(device), backend, precision)
    state, previous, allowed = runner.new_state(), None, TOLERANCES[runner.precision]
    with inference(runner.precision), Vectors(golden.folder / entry["golden"]) as vectors:
        for number, t in enumerate(golden.manifest["frames"]):
            frame, adjacent, starts = golden.frame(t, variant, entry["stereo"])
            first = number == 0 or starts
            plan = frame.plan(None if first else state.ages, slot=number % 2)
            if not first and adjacent is not None and not torch.equal(adjacent, previous):
                # The recorded neighbour is not the frame before: the cached feature is not its.
                c2, _, _ = runner.core.img_backbone(adjacent.to(device, runner.core.dtype))
                state.reading(plan).stereo.copy_(c2)
            compared: dict[str, StageResult] = {}

            def recorded(stage: str, t: int = t) -> bool:
                return f"f{t}/{stage}/sub" in vectors

            def compare_one(
                stage: str, value: Tensor, t: int = t, compared: dict = compared
            ) -> None:
                compared[stage] = _compare_stage(t, stage, value, vectors, allowed.stage)

            with watching(runner.core, compare_one, recorded):
                output = runner.step(frame.images.to(device), plan, state)
            host = {"depth_net/mlp_input": plan.tensors("cpu").camera_vector[None].float()}
            if variant.stereo:
                cameras = frame.cameras.at_rest() if first else frame.cameras
                host["stereo/curr2adjsensor"] = cameras.previous_T_camera
            for stage, value in (host | output_stages(output)).items():
                if recorded(stage):
                    compare_one(stage, value)
            previous = frame.images
            if not compared:
                raise AloccError(
                    f"{entry['golden']} holds no stage of frame {t} that is known here"
                )
            yield from compared.values()
            yield _compare_labels(t, output.labels[0], vectors, allowed)
            if output.flow is not None:
                yield _compare_flow(t, output.flow[0], vectors, allowed)


def _images(inputs: dict[str, Any], stereo: bool) -> tuple[Tensor, Tensor | None]:
    """Current and adjacent images [N, 3, H, W]; stereo inputs are interleaved per camera."""
    images = inputs["img"][0]
    if not stereo:
        return images, None
    pairs = images.unflatten(0, (-1, 2))
    return pairs[:, 0].contiguous(), pairs[:, 1].contiguous()


def _frame(variant: Variant, inputs: dict[str, Any], images: Tensor) -> ExampleFrame:
    grid_T_camera = torch.eye(4, dtype=torch.float64).repeat(len(images), 1, 1)
    grid_T_camera[:, :3, :3], grid_T_camera[:, :3, 3] = inputs["rots"][0], inputs["trans"][0]
    now = inputs["ego2globals"][0].double() @ inputs["sensor2egos"][0].double()
    before = inputs["adj_ego2globals"][0].double() @ inputs["adj_sensor2egos"][0].double()
    cameras = CameraGeometry(
        grid_T_camera,
        inputs["intrins"][0],
        inputs["post_rots"][0],
        inputs["post_trans"][0],
        torch.linalg.inv(before) @ now,
        inputs["bda"][0],
    )
    return ExampleFrame(variant, images, cameras, inputs["curr_to_prev_ego_rt"].double())


def _compare_stage(
    t: int, stage: str, value: Tensor, vectors: Vectors, tolerance: float
) -> StageResult:
    key = f"f{t}/{stage}"
    shape = tuple(vectors.get(f"{key}/shape").tolist())
    value = value.detach().cpu()
    if value.numel() != np.prod(shape) or tuple(s for s in value.shape if s > 1) != tuple(
        s for s in shape if s > 1
    ):
        return StageResult(t, stage, np.inf, np.inf, 0.0, False)
    ours = value.reshape(-1)[torch.from_numpy(_subsample(value.numel()))].double().numpy()
    error = np.abs(ours - vectors.get(f"{key}/sub", ours.size).astype(np.float64).ravel())
    if stage in _BY_THE_MEAN:
        error = error.mean(keepdims=True)
    low, high = vectors.get(f"{key}/stats", 4)[2:]
    relative = float(error.max() / max(abs(low), abs(high), 1e-30))
    # Not "> tolerance": NaN must fail.
    return StageResult(t, stage, float(error.max()), relative, 1.0, bool(relative <= tolerance))


def _compare_labels(t: int, labels: Tensor, vectors: Vectors, tolerance: Tolerance) -> StageResult:
    ours = labels.cpu().numpy()
    golden = vectors.get(f"f{t}/final/occ_argmax", ours.size).reshape(ours.shape)
    agreement = float((ours == golden).mean())
    passed = agreement >= tolerance.labels
    return StageResult(t, "labels", float(1 - agreement), float(1 - agreement), agreement, passed)


def _compare_flow(t: int, flow: Tensor, vectors: Vectors, tolerance: Tolerance) -> StageResult:
    # A view transposed twice has no single stride: reshape copies, as intended.
    ours = flow.cpu().reshape(-1).double().numpy()[_subsample(flow.numel())]
    golden = vectors.get(f"f{t}/final/flow_fp32/sub", ours.size).astype(np.float64).ravel()
    error = np.abs(ours - golden)
    agreement = float((error <= tolerance.flow).mean())
    peak = float(np.abs(vectors.get(f"f{t}/final/flow_fp32/stats", 4)[2:]).max())
    relative, passed = float(error.max() / peak), agreement >= tolerance.flow_share
    return StageResult(t, "flow", float(error.max()), relative, agreement, passed)


def _subsample(count: int) -> np.ndarray:
    """Indices that the golden files keep: an odd stride over the flattened tensor."""
    if count <= _SUBSAMPLE:
        return np.arange(count)
    stride = count // _SUBSAMPLE
    return np.arange(_SUBSAMPLE) * max(stride - (stride % 2 == 0), 1)


def _schema(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise AloccError(f"{path} is named in the manifest but missing") from error
    except (OSError, ValueError) as error:
        raise AloccError(f"{path} is not a schema: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def summary(results: list[StageResult]) -> dict[str, StageResult]:
    """The worst frame of each stage, in the order of first appearance."""
    worst: dict[str, StageResult] = {}
    for result in results:
        held = worst.get(result.stage)
        if held is None or (not result.passed, result.relative) > (not held.passed, held.relative):
            worst[result.stage] = result
    return worst


def as_json(results: list[StageResult]) -> list[dict[str, Any]]:
    """Plain values for ``--json``."""
    return [asdict(r) for r in results]
