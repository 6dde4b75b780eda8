# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Weights from files into a network, checked: reading never runs code, loading never guesses.

Two steps: ``read_state_dict`` turns an official ``.pth`` or a ``.safetensors`` file into plain
tensors, ``load_weights`` copies them into a module of the same names, all or nothing.
"""

from __future__ import annotations

import functools
import json
import os
import pickle
import re
import tarfile
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from alocc_ros.errors import CheckpointError
from alocc_ros.network.variants import VARIANTS, Variant
from alocc_ros.network.weights_file import Weights, check_numbers, some, weights_in

# Below this release a crafted .pth can run code even with weights_only=True
# (CVE-2025-32434 before 2.6, CVE-2026-24747 before 2.10).
_SAFE_TORCH = (2, 10)

# One tensor in the network under two names; a file may hold either or both.
_TIED = tuple(
    (f"depth_net.depth_conv.0.downsample.{p}", f"depth_net.occ_conv.0.downsample.{p}")
    for p in ("weight", "bias")
)
# Constants that the reference keeps among its weights; here they follow from the grid.
_GRID_KEYS = ("view_transformer.dx", "view_transformer.bx", "view_transformer.nx")
# Only used by a training loss: without it inference is the same.
_TRAINING_ONLY = "alocc_head.mask_embed2."
_COUNTER = "num_batches_tracked"
# Names and shapes of the tensors, about 100 bytes each, and what training leaves beside them.
_LONGEST_PICKLE = 32 << 20


@dataclass(frozen=True)
class LoadReport:
    """What happened to the weights of a file.

    Attributes:
        loaded: number of tensors that went into the network.
        unexpected: names in the file that the network does not have; left out.
        untrained: training-only names that the file lacks; they keep their first values.
        converted: names whose number format was changed to the network's.
        constant: names of matrices that hold one number only, as if nobody had trained them.
    """

    loaded: int
    unexpected: tuple[str, ...] = ()
    untrained: tuple[str, ...] = ()
    converted: tuple[str, ...] = ()
    constant: tuple[str, ...] = ()

    def summary(self, most: int = 10) -> str:
        """One line for a log; of many names the first ``most``."""
        parts = [f"{self.loaded} tensors loaded"]
        if self.unexpected:
            parts.append(f"not used: {some(self.unexpected, most)}")
        if self.untrained:
            parts.append(f"training only, absent: {some(self.untrained, most)}")
        if self.converted:
            parts.append(f"number format changed: {some(self.converted, most)}")
        if self.constant:
            parts.append(f"of one number only: {some(self.constant, most)}")
        return "; ".join(parts)


def read_state_dict(path: Path | str) -> dict[str, Tensor]:
    """The tensors of ``read_weights``."""
    return read_weights(path).tensors


def read_weights(path: Path | str) -> Weights:
    """All weights of a checkpoint file, on the CPU, under the network's own names.

    Takes ``.safetensors`` and what ``torch.save`` writes (zip and the older format), bare or
    wrapped by a training code, averaged ones before those that were trained; prefixes such as
    ``module.`` are removed if every name has them. Nothing in the file is executed.

    Raises:
        CheckpointError: the file is not there, is damaged, holds code, or holds no weights.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    is_safetensors = path.suffix == ".safetensors" or head[8:] == b"{"
    content = _read_safetensors(path) if is_safetensors else _read_pickle(path, head)
    return weights_in(content, path.name)


def load_weights(
    module: nn.Module, state_dict: Mapping[str, Tensor], variant: Variant | None = None
) -> LoadReport:
    """Copies weights into a module; nothing is changed unless everything fits.

    Absent ``num_batches_tracked``, grid constants and training-only names are no error, and
    one of two tied names is enough. Grid constants in the file are compared with those of
    ``variant`` (default: the module's own ``variant``).

    Raises:
        CheckpointError: names are missing, shapes differ, tied weights or the grid
            contradict the network, numbers are not finite, or most matrices are constant.
    """
    variant = variant or getattr(module, "variant", None)
    wanted = module.state_dict()
    given = {k: _scalar_counter(k, v) for k, v in _with_tied(state_dict, wanted).items()}
    missing = [k for k in wanted if k not in given and not _optional(k)]
    misshaped = [k for k in wanted if k in given and given[k].shape != wanted[k].shape]
    if missing or misshaped:
        raise CheckpointError(_misfit(missing, misshaped, given, wanted, variant))
    chosen = {k: _converted(k, given[k], wanted[k].dtype) for k in wanted if k in given}
    constant = check_numbers(chosen)
    if variant is not None:
        _check_grid(state_dict, variant)
    module.load_state_dict({**wanted, **chosen})

    known = {*wanted, *_GRID_KEYS, *(name for pair in _TIED for name in pair)}
    return LoadReport(
        loaded=len(chosen),
        unexpected=tuple(k for k in state_dict if k not in known),
        untrained=tuple(k for k in wanted if k not in given and k.startswith(_TRAINING_ONLY)),
        converted=tuple(k for k in chosen if given[k].dtype != wanted[k].dtype),
        constant=tuple(constant),
    )


def _scalar_counter(name: str, value: Tensor) -> Tensor:
    """BatchNorm's step counter has one element, of whatever shape the writer gave it."""
    counter = name.endswith("num_batches_tracked") and value.numel() == 1
    return value.reshape(()) if counter else value


def likely_variant(state_dict: Mapping[str, Tensor]) -> tuple[str, float]:
    """The published network that the weights fit best, and which share of its names fit."""
    scores = {}
    for name in VARIANTS:
        shapes = _shapes(name)
        fits = sum(k in state_dict and state_dict[k].shape == s for k, s in shapes.items())
        # Names that the network lacks count against it: flow networks hold all of the others.
        extra = sum(k not in shapes for k in state_dict)
        scores[name] = fits / (len(shapes) + extra)
    best = max(scores, key=scores.__getitem__)
    return best, scores[best]


def save_safetensors(
    path: Path | str, state_dict: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes weights to a ``.safetensors`` file: the whole file, or none.

    Raises:
        CheckpointError: the file cannot be written.
    """
    path = Path(path)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.part")
    # The format has no notion of two names for one tensor: each gets its own copy.
    tensors = {k: v.detach().cpu().clone().contiguous() for k, v in state_dict.items()}
    try:
        scratch.unlink(missing_ok=True)  # a link would be followed
        safetensors.torch.save_file(tensors, scratch, metadata=dict(metadata or {}))
        _sort_metadata(scratch)
        os.replace(scratch, path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be written: {error}") from error
    finally:
        scratch.unlink(missing_ok=True)


def _sort_metadata(path: Path) -> None:
    """The library writes metadata in another order each time; equal weights are equal files."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        if "__metadata__" in header:
            header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) > length:
            raise OSError(f"its header became longer than the {length} bytes there are")
        file.seek(8)
        file.write(text.ljust(length))


# --- reading --------------------------------------------------------------------------


class _Discarded:
    """Stands in for the numpy scalars and arrays that training codes leave in a file.

    They sit beside the weights (best score, class colours), so their values do not matter;
    that way no numpy code has to be trusted with bytes of the file.
    """

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


_DISCARDED = [
    (_Discarded, name)
    for name in (
        "numpy.core.multiarray._reconstruct",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray._reconstruct",
        "numpy._core.multiarray.scalar",
        "numpy.dtype",
        "numpy.ndarray",
    )
]


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path, device="cpu")
    except Exception as error:  # the header is the file's, so is whatever goes wrong with it
        raise CheckpointError(
            f"{path.name}: not a whole .safetensors file ({_line(error)})"
        ) from error


def _read_pickle(path: Path, head: bytes) -> Any:
    if not head.startswith((b"PK", b"\x80")):
        raise CheckpointError(f"{path.name}: not a checkpoint (it begins with {head!r})")
    with torch.serialization.safe_globals(_DISCARDED):
        return read_torch_file(path)


def read_torch_file(path: Path) -> Any:
    """What ``torch.save`` has written, on the CPU; nothing in it is run.

    Raises:
        CheckpointError: torch is too old to do that safely, or the file is damaged, holds code,
            or would take more memory than it is long.
    """
    require_safe_torch(path)
    try:
        if tarfile.is_tarfile(path):  # torch before 0.1; the way in of CVE-2025-32434
            raise CheckpointError(f"{path.name}: an archive, not a checkpoint")
        if zipfile.is_zipfile(path):
            _check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols: no user can act on it
            return torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        # torch wraps the reason in advice to load unsafely; that is not for our users.
        reason = error.__context__ or error
        refused = re.search(r"GLOBAL (\S+)", str(reason))
        if refused is None:
            raise CheckpointError(f"{path.name}: damaged checkpoint ({_line(reason)})") from error
        raise CheckpointError(
            f"{path.name}: refused, it wants to run {refused[1]}; a checkpoint must hold only "
            "tensors and plain values"
        ) from error
    except Exception as error:  # damaged bytes lead anywhere inside torch
        raise CheckpointError(f"{path.name}: damaged checkpoint ({_line(error)})") from error


def require_safe_torch(path: Path) -> None:
    """The one rule for everything that ``torch.save`` wrote, published weights or our own state.

    Raises:
        CheckpointError: this torch could be made to run what is in the file.
    """
    version = tuple(int(n) for n in re.findall(r"\d+", torch.__version__)[:2])
    if version < _SAFE_TORCH:
        raise CheckpointError(
            f"{path.name}: torch {torch.__version__} cannot read files of torch.save safely; "
            f"update torch to {'.'.join(map(str, _SAFE_TORCH))} or newer, or use a .safetensors "
            "file"
        )


def _check_archive(path: Path) -> None:
    """Compares the checksums inside, which torch's own reader passes over, and lengths.

    Raises:
        CheckpointError: a part of the file has changed since it was written, or would become
            longer than it is.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(m.compress_type != zipfile.ZIP_STORED for m in members):
            raise CheckpointError(f"{path.name}: refused, it is compressed, as torch never does")
        if sum(m.file_size for m in members) > path.stat().st_size:
            raise CheckpointError(f"{path.name}: refused, its parts overlap")
        for member in members:
            if member.filename.endswith("data.pkl") and member.file_size > _LONGEST_PICKLE:
                raise CheckpointError(
                    f"{path.name}: refused, it has {member.file_size / 1e6:.0f} MB beside its "
                    f"tensors; at most {_LONGEST_PICKLE / 1e6:.0f} MB are read"
                )
            with archive.open(member) as stream:
                try:
                    while stream.read(1 << 20):
                        pass
                except zipfile.BadZipFile as error:  # of the checksum, at the end
                    raise CheckpointError(
                        f"{path.name}: damaged: the checksum of {member.filename} is wrong; "
                        "get the file again"
                    ) from error


# --- loading --------------------------------------------------------------------------


def _optional(name: str) -> bool:
    return name in _GRID_KEYS or name.startswith(_TRAINING_ONLY) or name.endswith(_COUNTER)


def _with_tied(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights, with the absent one of two tied names filled in where it is wanted."""
    given = dict(state)
    for pair in _TIED:
        here = [name for name in pair if name in state]
        if len(here) == 2 and not torch.equal(state[pair[0]], state[pair[1]]):
            raise CheckpointError(f"{pair[0]} and {pair[1]} are one tensor, but differ in the file")
        if here:
            given.update({name: state[here[0]] for name in pair if name in wanted})
    return given


def _check_grid(state: Mapping[str, Tensor], variant: Variant) -> None:
    """Compares the reference's grid constants (cell size, first centre, cells) with ours."""
    step = torch.tensor(variant.lift_step)
    first_centre = torch.tensor(variant.lift_lower) + step / 2
    cells = torch.tensor(variant.lift_cells, dtype=torch.float32)
    for name, expected in zip(_GRID_KEYS, (step, first_centre, cells), strict=True):
        if name not in state:
            continue
        found = state[name].detach().float()
        if found.shape != (3,) or not torch.allclose(found, expected, atol=1e-4):
            raise CheckpointError(
                f"made for another voxel grid: {name} is {_rounded(found)}, "
                f"{variant.name} has {_rounded(expected)}"
            )


def _converted(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if tensor.dtype == dtype:
        return tensor
    if tensor.is_floating_point() != dtype.is_floating_point or tensor.is_complex():
        raise CheckpointError(f"{name} holds {tensor.dtype}, the network has {dtype}")
    return tensor.to(dtype)


def _misfit(
    missing: list[str],
    misshaped: list[str],
    given: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    variant: Variant | None,
) -> str:
    parts = []
    if missing:
        parts.append(f"missing: {some(missing)}")
    if misshaped:
        shapes = [f"{k} {_shape(given[k])} instead of {_shape(wanted[k])}" for k in misshaped]
        parts.append(f"wrong shape: {some(shapes)}")
    title = "the weights do not fit" + (f" {variant.name}" if variant else "")
    best, share = likely_variant(given)
    if (variant is None or best != variant.name) and share > 0.5:
        parts.append(f"this looks like {best} ({share:.0%} of its weights fit)")
    return f"{title}: {'; '.join(parts)}"


@functools.cache
def _shapes(variant: str) -> dict[str, torch.Size]:
    """Names and shapes of a network's weights, without making the weights."""
    from alocc_ros.network.model import Alocc

    with torch.device("meta"):
        return {k: v.shape for k, v in Alocc(VARIANTS[variant]).state_dict().items()}


# --- words ----------------------------------------------------------------------------


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _rounded(tensor: Tensor) -> list[float]:
    return [round(float(x), 4) for x in tensor.flatten()[:3]]


def _line(error: BaseException) -> str:
    words = " ".join(str(error).split())
    if isinstance(error, pickle.UnpicklingError | SafetensorError):
        return words[:200]
    return f"{type(error).__name__}: {words[:200]}"
