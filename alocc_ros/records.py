# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Model records: everything about one published checkpoint that is not in its weights.

One YAML file a model in ``models/``; a checkpoint without its record means nothing, because
input size, channel order, class list and frame decide what its numbers stand for.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import yaml
from pydantic import StringConstraints
from safetensors import SafetensorError, safe_open

from alocc_ros import schema
from alocc_ros.errors import ModelError
from alocc_ros.grid import VoxelGrid
from alocc_ros.labels import CLASS_LISTS, ClassList
from alocc_ros.resources import cache_folder, shared_folder
from alocc_ros.schema import described, one_of

# Voxels that the training loss saw. Elsewhere the network was free to put anything, so a
# model trained on camera-visible voxels fills what is hidden with guesses. "visible": a camera or
# one of the benchmark's rays.
SUPERVISIONS = ("camera_visible", "ray_visible", "visible", "all")

# What a run of ``alocc train`` leaves: in its folder, and in the folder of each checkpoint.
_WEIGHTS, _STATE = "weights.safetensors", "state.pt"


@dataclass(frozen=True)
class Score:
    """One published number: ``value`` of ``metric``, read in ``source``."""

    metric: schema.Sentence
    value: schema.Number
    source: schema.Sentence


@dataclass(frozen=True)
class ModelRecord:
    """One published model.

    Attributes:
        name: unique; the YAML file's name.
        variant: network, a name out of ``alocc_ros.network.variants.VARIANTS``.
        repository, file: where the weights are on the Hugging Face hub. A file without repository
            comes with the package, beside its record. Neither: there are no weights.
        revision: the commit of the repository that is fetched, or None: its newest, of which
            nobody knows what it will be.
        sha256: of that file, or None until somebody has measured it.
        input_size: height and width of the network's input, pixels.
        crop: which rows are kept after scaling to the input's width; ``bottom``.
        mean, std: of the input, in the order of its channels, for values 0 to 255.
        channel_order: of the network's input, ``bgr`` or ``rgb``.
        classes: what the labels mean.
        grid: the output's voxels, in ``frame``.
        frame: ``ego`` (base frame, on the ground) or ``lidar``.
        history, history_interval: key frames remembered, seconds between two of them.
        recurrent: what is remembered goes back to the first frame, in ``history`` volumes.
        flow: True if the model estimates flow.
        supervision: which voxels it was trained on, one of ``SUPERVISIONS``.
        lidar_depth: True if it was trained to be given LiDAR depth.
        licence: of the weights, as far as it is stated.
        paper: where the model is described.
        scores: as published.
        note: what else one should know.
    """

    name: str
    variant: str
    repository: str | None
    file: str | None
    sha256: str | None
    input_size: tuple[int, int]
    crop: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channel_order: str
    classes: ClassList
    grid: VoxelGrid
    frame: str
    history: int
    history_interval: float
    flow: bool
    supervision: str
    lidar_depth: bool
    licence: str
    paper: str
    scores: tuple[Score, ...] = ()
    note: str = ""
    revision: str | None = None
    recurrent: bool = False


@functools.cache
def load_records() -> Mapping[str, ModelRecord]:
    """All records of ``models/`` by name, sorted by it.

    Raises:
        ModelError: a file is not a valid record, or there is none.
    """
    paths = sorted(shared_folder("models").glob("*.yaml"))
    if not paths:
        raise ModelError(f"no model records in {shared_folder('models')}")
    return MappingProxyType({path.stem: read_record(path) for path in paths})


def find(name: str) -> ModelRecord:
    """The record of that name.

    Raises:
        ModelError: there is none; the message gives the nearest names and all of them.
    """
    records = load_records()
    if name in records:
        return records[name]
    near = difflib.get_close_matches(name, records, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise ModelError(f"unknown model {name!r}{hint}; there are {', '.join(records)}")


def record_of_file(path: Path, variant: str | None = None) -> ModelRecord:
    """The record that a checkpoint file belongs to.

    Told by the file's name (a record's name, or its file on the hub), else by its SHA-256,
    else by ``variant``, else by what ``alocc train`` wrote: then the record of that name, without
    its weights and scores. A given ``variant`` that contradicts the file is refused.

    Raises:
        ModelError: nothing tells.
    """
    found = published_record(path)
    trained = None if found else trained_model(path)
    if found is None and variant is None and trained is None:
        raise ModelError(
            f"{path.name}: neither its name nor its SHA-256 belongs to a model record, and its "
            "metadata name none; say which network it is with --variant"
        )
    own = found or (find(trained) if trained else None)
    # A model of the same network may be meant, one with other labels, say; not of another one.
    asked = None if variant is None or found else find(variant)
    if own is not None and variant is not None:
        wanted = asked.variant if asked else variant
        if own.variant != wanted:
            raise ModelError(f"{path.name} is {own.name}, a {own.variant} network, not {variant}")
    if found:
        return found
    record = asked or own
    return replace(record, repository=None, file=None, sha256=None, scores=(), note="")


def published_record(path: Path) -> ModelRecord | None:
    """The record that a file's name or SHA-256 belongs to, if there is one."""
    records = load_records()
    by_name = [r for r in records.values() if path.stem in (r.name, Path(r.file or "").stem)]
    found = by_name or _records_of_digest(path, records)
    return found[0] if found else None


def trained_model(path: Path) -> str | None:
    """The model that ``alocc train`` made this file of, where the file or its run says so."""
    name = None
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "numpy") as file:
                name = (file.metadata() or {}).get("model")
        except (OSError, SafetensorError):
            return None  # whoever reads the weights says what is wrong with it
    elif path.name == _STATE and len(path.parents) > 2:
        try:
            text = (path.parents[2] / "config.yaml").read_text(encoding="utf-8")
            entries = schema.load_yaml(text)
        except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError):
            return None  # a state file that was carried elsewhere: it has no run beside it
        name = entries.get("model") if isinstance(entries, dict) else None
    return name if name in load_records() else None


def resolve(model: str, variant: str | None = None) -> tuple[ModelRecord, Path | None]:
    """What ``--model NAME|FILE|FOLDER`` means: the record, and its weights if they are here.

    A name whose weights were not fetched gives None; a file must exist.

    Raises:
        ModelError: it is none of these, or a file that belongs to no record.
    """
    record, path = locate(model)
    if record is None and path is not None:
        record = record_of_file(path, variant)
    return record, path


def locate(model: str) -> tuple[ModelRecord | None, Path | None]:
    """Where the weights are that a name, a file or the folder of a run stands for.

    Returns:
        The record, of a name only; the file, None for a name whose weights are not here.

    Raises:
        ModelError: it is none of these.
    """
    if model in load_records():
        record = find(model)
        path = None if record.file is None else weights_path(record)
        return record, path if path and path.is_file() else None
    path = Path(model)
    if path.is_dir():
        return None, _weights_of_run(path)
    if path.is_file():
        return None, path
    if path.suffix or path.name != model:
        raise ModelError(f"{model}: no such file")
    return find(model), None


def weights_file(model: str) -> Path:
    """The file of weights that a name, a file or the folder of a run stands for.

    Raises:
        ModelError: it is none of these, or the weights are not here.
    """
    record, path = locate(model)
    if path is None:
        fetch = f"fetch them with `alocc models fetch {model}`, " if record and record.file else ""
        raise ModelError(f"the weights of {model} are not here: {fetch}give a file or a run")
    return path


def _weights_of_run(folder: Path) -> Path:
    """What ``alocc train`` left in the folder of a run, or in one of its checkpoints."""
    for name in (_WEIGHTS, _STATE):
        if (folder / name).is_file():
            return folder / name
    newest = max(folder.glob(f"checkpoints/step-*/{_STATE}"), default=None)
    if newest is not None:
        raise ModelError(
            f"{folder}: no {_WEIGHTS} in it yet, the run has not come to its end or an "
            f"evaluation; its newest checkpoint is {newest}"
        )
    raise ModelError(f"{folder}: a folder, but of no run: there is no {_WEIGHTS} in it")


def weights_path(record: ModelRecord, folder: Path | None = None) -> Path:
    """Where a model's weights are, or ``alocc models fetch`` puts them (they need not be there).

    Raises:
        ModelError: no weights were published for this model.
    """
    if record.file is None:
        raise ModelError(f"{record.name} has no published weights")
    if record.repository is None:
        return shared_folder("models") / record.file
    return (folder or cache_folder() / "models") / record.file


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def verified_sha256(path: Path, record: ModelRecord) -> str:
    """The digest of a model's weights, which is that of its record if that has one.

    Raises:
        ModelError: the file is not the one that the record is about.
    """
    digest = sha256(path)
    if record.sha256 in (None, digest):
        return digest
    if record.repository is None:
        remedy = "install the package anew to get it back"
    else:
        remedy = f"delete it and fetch it with `alocc models fetch {record.name}`"
    raise ModelError(
        f"{path} is damaged, or not the file of {record.name}: its SHA-256 is {digest}, the record "
        f"says {record.sha256}; {remedy}. Weights of your own need a name of their own, and "
        "their network by --variant"
    )


def _records_of_digest(path: Path, records: Mapping[str, ModelRecord]) -> list[ModelRecord]:
    known = [r for r in records.values() if r.sha256]
    if not known or not path.is_file():
        return []  # hashing half a gigabyte would tell nothing
    digest = sha256(path)
    return [r for r in known if r.sha256 == digest]


def read_record(path: Path) -> ModelRecord:
    """One record out of its YAML file.

    Raises:
        ModelError: with the file, the entry and what it should be.
    """
    try:
        data = schema.load_yaml(path.read_text(encoding="utf-8"), _UniqueKeyLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{path.name}: not a readable YAML file: {reason}") from error
    file = schema.parse(_RecordFile, data, path.name, ModelError)
    if file.name != path.stem:
        raise ModelError(f"{path.name}: name is {file.name!r}, but must be the file's name")
    if file.weights.revision is not None and file.weights.repository is None:
        raise ModelError(f"{path.name}: weights: a revision needs a repository")
    if file.weights.file is None and file.weights.repository is not None:
        raise ModelError(f"{path.name}: weights: a repository needs a file")
    same = {f.name for f in fields(ModelRecord)} & vars(file).keys()
    return ModelRecord(
        **{name: getattr(file, name) for name in same - {"classes", "grid", "history"}},
        **vars(file.weights),
        input_size=file.input.size,
        crop=file.input.crop,
        mean=file.input.mean,
        std=file.input.std,
        channel_order=file.input.channel_order,
        classes=CLASS_LISTS[file.classes],
        grid=VoxelGrid(**vars(file.grid)),
        history=file.history.length,
        history_interval=file.history.interval,
        recurrent=file.history.recurrent,
    )


# The layout of the file, with what is allowed in it.


@dataclass(frozen=True)
class _Weights:
    repository: (
        Annotated[
            str,
            StringConstraints(strict=True, pattern=r"^[\w.-]+/[\w.-]+$"),
            described("owner/name of a Hugging Face repository"),
        ]
        | None
    )
    file: schema.Sentence | None
    sha256: (
        Annotated[
            str,
            StringConstraints(strict=True, pattern="^[0-9a-f]{64}$"),
            described("64 lower-case hexadecimal digits (in quotes)"),
        ]
        | None
    )
    revision: (
        Annotated[
            str,
            StringConstraints(strict=True, pattern="^[0-9a-f]{40}$"),
            described("40 lower-case hexadecimal digits (in quotes): a commit"),
        ]
        | None
    ) = None


@dataclass(frozen=True)
class _Input:
    size: Annotated[
        tuple[schema.Count, schema.Count], described("a list of 2 whole numbers above 0")
    ]
    crop: Annotated[str, one_of("bottom")]
    mean: schema.Numbers3
    std: Annotated[
        tuple[schema.Positive, schema.Positive, schema.Positive],
        described("a list of 3 numbers above 0"),
    ]
    channel_order: Annotated[str, one_of("bgr", "rgb")]


@dataclass(frozen=True)
class _Grid:
    lower: schema.Numbers3
    shape: Annotated[
        tuple[schema.Count, schema.Count, schema.Count],
        described("a list of 3 whole numbers above 0"),
    ]
    resolution: schema.Positive


@dataclass(frozen=True)
class _History:
    length: schema.CountOrZero
    interval: schema.Positive
    recurrent: schema.Flag = False


@dataclass(frozen=True)
class _RecordFile:
    name: schema.Sentence
    variant: schema.Sentence
    weights: _Weights
    input: _Input
    classes: Annotated[str, one_of(*CLASS_LISTS)]
    grid: _Grid
    frame: Annotated[str, one_of("ego", "lidar")]
    history: _History
    flow: schema.Flag
    supervision: Annotated[str, one_of(*SUPERVISIONS)]
    lidar_depth: schema.Flag
    licence: schema.Sentence
    paper: schema.Sentence
    scores: tuple[Score, ...]
    note: schema.Sentence = ""


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys without a word; here that is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise ValueError(f"{key} stands twice, line {key_node.start_mark.line + 1}")
            seen.add(key if isinstance(key, str) else id(key_node))
        return super().construct_mapping(node, deep)
