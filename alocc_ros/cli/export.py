# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc export``: a network as ONNX files or as engines of TensorRT, with a manifest beside them.

The folder is there as a whole or not at all.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import alocc_ros
from alocc_ros.cli._models import add_weights_arguments, find_model, load_network
from alocc_ros.errors import OutputError, ParameterError

if TYPE_CHECKING:
    import torch

    from alocc_ros.network.model import Alocc
    from alocc_ros.runtime.export import Segment
    from alocc_ros.runtime.quantisation import Quantisation
    from alocc_ros.runtime.tensorrt import Toolkit

MANIFEST = "manifest.json"
_FORMAT = 1
_ROW = "{:<10}{:>9}{:>9}{:>12}{:>10}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    add_weights_arguments(parser)
    parser.add_argument("--backend", choices=("onnx", "tensorrt"), default="onnx")
    parser.add_argument(
        "--precision",
        choices=("fp32", "tf32", "fp16", "bf16", "int8"),
        help="of weights, inputs and outputs (default: fp32 for ONNX, fp16 for TensorRT); int8: "
        "the image segment, after `alocc calibrate`, all else in the default",
    )
    parser.add_argument("--cameras", type=int, default=6, help="of the rig (6)")
    parser.add_argument(
        "--whole", action="store_true", help="whole steps instead of segments (ONNX, fp32)"
    )
    parser.add_argument(
        "--target",
        metavar="SM",
        help="compute capability to build engines for without such a GPU, as SM89 (TensorRT-RTX)",
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("-o", "--output", type=Path, metavar="DIR", help="folder to write")
    where.add_argument(
        "--build-only",
        action="store_true",
        help="build the engines of the GPU here into the cache, so that the node starts at once",
    )


def run(args: argparse.Namespace) -> int:
    """Checks what was asked for, then builds it."""
    precision = args.precision or ("fp32" if args.backend == "onnx" else "fp16")
    _check(args, precision)
    if args.output is not None:
        args.output = args.output.resolve()
        _check_folder(args.output)
    record, weights_file = find_model(args)

    toolkit, target, device = None, "", None
    if args.backend == "tensorrt":
        toolkit, target, device = _tools(args)
    network, weights = load_network(record, weights_file, "cpu", args.seed)

    from alocc_ros.runtime.prepare import prepare

    quantisation = _quantisation(network, toolkit) if precision == "int8" else None
    core = prepare(network)
    about = {
        "model": record.name,
        "variant": record.variant,
        "weights": weights,
        "precision": precision,
        "cameras": args.cameras,
    }
    print(f"{record.name}, {precision}, weights {weights}" + (f", {toolkit}" if toolkit else ""))
    if args.build_only:
        found = segments_of(core, args, precision, quantisation)
        _fill_cache(found, network, toolkit, target, device)
        return 0
    with _whole_folder(args.output) as folder:
        if args.whole:
            about["steps"] = _write_steps(core, args.cameras, folder)
        else:
            found = segments_of(core, args, precision, quantisation)
            about["segments"] = write_segments(found, folder, toolkit, target)
        about |= {"format": _FORMAT, "versions": _versions(toolkit, quantisation is not None)}
        text = json.dumps(about, indent=2) + "\n"
        (folder / MANIFEST).write_text(text, encoding="utf-8")
    print(f"{args.output}: {MANIFEST} says what is what")
    return 0


def _check(args: argparse.Namespace, precision: str) -> None:
    if not 1 <= args.cameras <= 64:
        raise ParameterError(f"--cameras {args.cameras}: 1 to 64")
    if args.whole and (args.backend != "onnx" or precision != "fp32"):
        raise ParameterError(
            "--whole is for --backend onnx --precision fp32: TensorRT parses no scatter, and "
            "the geometry is in double precision"
        )
    if args.backend != "tensorrt":
        if precision == "tf32":
            raise ParameterError(
                "--precision tf32 is for --backend tensorrt, files have no such type"
            )
        for name in ("target", "build_only"):
            if getattr(args, name):
                raise ParameterError(f"--{name.replace('_', '-')} is for --backend tensorrt")
    if args.build_only and args.target:
        raise ParameterError(
            "--build-only is for the GPU that is here: give --target with -o DIR instead"
        )


def _tools(args: argparse.Namespace) -> tuple[Toolkit, str, torch.device | None]:
    """What builds, for which target, and the GPU if it is here."""
    import torch

    from alocc_ros.runtime.device import resolve_device
    from alocc_ros.runtime.tensorrt import find_toolkit

    if args.target:
        toolkit = find_toolkit(("tensorrt_rtx",))
        toolkit.check_target(args.target)
        return toolkit, args.target, None
    toolkit, device = find_toolkit(), resolve_device(args.device)
    if device.type != "cuda":
        targets = ", ".join(toolkit.targets)
        hint = f": name one with --target ({targets})" if targets else ""
        raise ParameterError(f"there is no GPU to build engines for{hint}")
    target = toolkit.target_of(device)
    torch.cuda.set_device(device)  # TensorRT builds for the current one
    return toolkit, target, device


def _quantisation(network: Alocc, toolkit: Toolkit | None) -> Quantisation:
    """For what runs the files: onnxruntime on a CPU, or TensorRT."""
    from alocc_ros.runtime.calibration import find_ranges
    from alocc_ros.runtime.quantisation import CPU, TENSORRT, Quantisation

    return Quantisation(find_ranges(network), CPU if toolkit is None else TENSORRT)


def segments_of(
    core: Alocc, args: argparse.Namespace, precision: str, quantisation: Quantisation | None
) -> list[Segment]:
    """What the options ask for, of a prepared network."""
    from alocc_ros.runtime.export import segments
    from alocc_ros.runtime.precision import beside_int8

    return segments(core, args.cameras, beside_int8(precision, args.backend), quantisation)


def _fill_cache(
    segments: list[Segment], network: Alocc, toolkit: Toolkit, target: str, device: torch.device
) -> None:
    from alocc_ros.runtime.cache import Cache, hardware
    from alocc_ros.runtime.engines import built, identity_of

    cache, identity = Cache(), identity_of(network)
    for segment in segments:
        if segment.dense:
            start = time.perf_counter()
            _, engine = built(segment, identity, toolkit, target, hardware(device), cache)
            seconds = time.perf_counter() - start
            print(f"{segment.name:<10}{len(engine) / 1e6:9.1f} MB{seconds:9.1f} s", flush=True)
    print(f"in {cache.folder}")


def write_segments(
    segments: list[Segment], folder: Path, toolkit: Toolkit | None, target: str
) -> list[dict[str, Any]]:
    """Segments as files, with engines where there is a toolkit; what the manifest says of them."""
    from alocc_ros.runtime.export import to_onnx

    print(_ROW.format("SEGMENT", "ONNX MB", "s", "ENGINE MB", "s"))
    entries = []
    for segment in segments:
        start = time.perf_counter()
        graph = to_onnx(segment)
        entry = _entry(segment, f"{segment.name}.onnx", graph)
        cells = [f"{len(graph) / 1e6:.1f}", f"{time.perf_counter() - start:.1f}", "-", "-"]
        (folder / entry["onnx"]).write_bytes(graph)
        if toolkit is not None and segment.dense:
            start = time.perf_counter()
            engine = toolkit.build(graph, target, tf32=segment.precision == "tf32")
            cells[2:] = f"{len(engine) / 1e6:.1f}", f"{time.perf_counter() - start:.1f}"
            name = f"{segment.name}.{target.lower()}.engine"
            (folder / name).write_bytes(engine)
            entry["engine"] = {"file": name, "target": target, "sha256": _sha256(engine)}
        entries.append(entry)
        print(_ROW.format(segment.name, *cells), flush=True)
    return entries


def _write_steps(core: Alocc, cameras: int, folder: Path) -> list[dict[str, Any]]:
    from alocc_ros.runtime.export import Step, to_onnx

    print(_ROW.format("STEP", "ONNX MB", "s", "", "").rstrip())
    entries = []
    for name in ("first", "step"):
        step = Step(core, cameras, first=name == "first")
        start = time.perf_counter()
        graph = to_onnx(step)
        seconds = time.perf_counter() - start
        (folder / f"{name}.onnx").write_bytes(graph)
        examples = zip(step.inputs, step.example(), strict=True)
        inputs = [_tensor(n, x.shape, str(x.dtype)) for n, x in examples]
        entry = {"name": name, "onnx": f"{name}.onnx", "sha256": _sha256(graph), "inputs": inputs}
        entries.append(entry | {"outputs": list(step.outputs)})
        row = _ROW.format(name, f"{len(graph) / 1e6:.1f}", f"{seconds:.1f}", "", "")
        print(row.rstrip(), flush=True)
    return entries


def _entry(segment: Segment, file: str, graph: bytes) -> dict[str, Any]:
    examples = zip(segment.inputs.items(), segment.example("meta"), strict=True)
    how = segment.quantisation
    return {
        "name": segment.name,
        "onnx": file,
        "sha256": _sha256(graph),
        "inputs": [_tensor(name, shape, str(x.dtype)) for (name, shape), x in examples],
        "outputs": list(segment.outputs),
    } | ({} if how is None else {"int8": how.target.name, "calibration": how.ranges.digest})


def _tensor(name: str, shape: Sequence[int], kind: str) -> dict[str, Any]:
    return {"name": name, "shape": list(shape), "type": kind.removeprefix("torch.")}


def _versions(toolkit: Toolkit | None, quantised: bool) -> dict[str, str]:
    import torch

    from alocc_ros.runtime.cache import package_version
    from alocc_ros.runtime.export import OPSET

    found = {"alocc": alocc_ros.__version__, "torch": torch.__version__, "opset": str(OPSET)}
    found |= {name: package_version(name) for name in ("onnx", "onnxscript")}
    if quantised:
        found["onnxruntime"] = package_version("onnxruntime")
    return found if toolkit is None else found | {toolkit.name: toolkit.version}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _check_folder(path: Path) -> None:
    """Whether a folder may be written, before minutes are spent on what goes into it."""
    try:
        if path.exists() and (not path.is_dir() or (any(path.iterdir()) and not _is_export(path))):
            raise OutputError(f"{path} is there and is no export: give an empty or a new folder")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def _is_export(path: Path) -> bool:
    try:
        entries = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        return entries["format"] == _FORMAT and "precision" in entries
    except (OSError, ValueError, KeyError, TypeError):
        return False


@contextlib.contextmanager
def _whole_folder(path: Path) -> Iterator[Path]:
    """A folder to write to, which takes the place of ``path`` if all goes well."""
    scratch, old = (path.with_name(path.name + end) for end in (".partial", ".replaced"))
    try:
        for left in (scratch, old):  # of a run that was killed
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
        scratch.mkdir(parents=True)
        yield scratch
        if path.is_dir():
            os.rename(path, old)
        try:
            os.rename(scratch, path)
        except OSError:
            if old.is_dir():
                os.rename(old, path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except BaseException as error:
        shutil.rmtree(scratch, ignore_errors=True)
        if isinstance(error, OSError):
            reason = error.strerror or error
            raise OutputError(f"cannot write {path}: {reason}") from error
        raise
