# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Model records: everything about one published checkpoint that is not in its weights.

One YAML file a model in ``models/``; a checkpoint without its record means nothing, because
input size, channel order, class list and frame decide what its numbers stand for.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from alocc_ros.errors import ModelError
from alocc_ros.grid import VoxelGrid
from alocc_ros.labels import CLASS_LISTS, ClassList
from alocc_ros.resources import cache_folder, shared_folder

# Voxels that the training loss saw. Elsewhere the network was free to put anything, so a
# model trained on camera-visible voxels fills what is hidden with guesses. "visible": a camera or
# one of the benchmark's rays.
SUPERVISIONS = ("camera_visible", "ray_visible", "visible", "all")


@dataclass(frozen=True)
class Score:
    """One published number: ``value`` of ``metric``, read in ``source``."""

    metric: str
    value: float
    source: str


@dataclass(frozen=True)
class ModelRecord:
    """One published model.

    Attributes:
        name: unique; the YAML file's name.
        variant: network, a name out of ``alocc_ros.network.variants.VARIANTS``.
        repository, file: where the weights are on the Hugging Face hub. A file without repository
            comes with the package, beside its record. Neither: there are no weights.
        sha256: of that file, or None until somebody has measured it.
        input_size: height and width of the network's input, pixels.
        crop: which rows are kept after scaling to the input's width; ``bottom``.
        mean, std: of the input, in the order of its channels, for values 0 to 255.
        channel_order: of the network's input, ``bgr`` or ``rgb``.
        classes: what the labels mean.
        grid: the output's voxels, in ``frame``.
        frame: ``ego`` (base frame, on the ground) or ``lidar``.
        history, history_interval: key frames remembered, seconds between two of them.
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
    else by ``variant``: then the record of that name, without its weights and scores. A
    given ``variant`` that contradicts the file's own record is refused.

    Raises:
        ModelError: nothing tells.
    """
    records = load_records()
    by_name = [r for r in records.values() if path.stem in (r.name, Path(r.file or "").stem)]
    found = by_name or _records_of_digest(path, records)
    if not found:
        if variant is None:
            raise ModelError(
                f"{path.name}: neither its name nor its SHA-256 belongs to a model record; "
                "say which network it is with --variant"
            )
        return replace(find(variant), repository=None, file=None, sha256=None, scores=(), note="")
    if variant is not None and found[0].variant != variant:
        raise ModelError(
            f"{path.name} is {found[0].name}, a {found[0].variant} network, not {variant}"
        )
    return found[0]


def resolve(model: str, variant: str | None = None) -> tuple[ModelRecord, Path | None]:
    """What ``--model NAME|FILE`` means: the record, and its weights if they are here.

    A name whose weights were not fetched gives None; a file must exist.

    Raises:
        ModelError: it is neither, or a file that belongs to no record.
    """
    if model in load_records():
        record = find(model)
        path = weights_path(record)
        return record, path if path.is_file() else None
    path = Path(model)
    if path.is_file():
        return record_of_file(path, variant), path
    if path.suffix or path.name != model:
        raise ModelError(f"{model}: no such file")
    return find(model), None


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
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{path.name}: not a readable YAML file: {reason}") from error
    top = _Section(path.name, data)
    weights = top.section("weights")
    image = top.section("input")
    grid = top.section("grid")
    history = top.section("history")
    record = ModelRecord(
        name=top.take("name", _text),
        variant=top.take("variant", _text),
        repository=weights.take("repository", _optional(_repository)),
        file=weights.take("file", _optional(_text)),
        sha256=weights.take("sha256", _optional(_digest)),
        input_size=image.take("size", _several(2, _count)),
        crop=image.take("crop", _one_of("bottom")),
        mean=image.take("mean", _several(3, _number)),
        std=image.take("std", _several(3, _positive)),
        channel_order=image.take("channel_order", _one_of("bgr", "rgb")),
        classes=CLASS_LISTS[top.take("classes", _one_of(*CLASS_LISTS))],
        grid=VoxelGrid(
            lower=grid.take("lower", _several(3, _number)),
            shape=grid.take("shape", _several(3, _count)),
            resolution=grid.take("resolution", _positive),
        ),
        frame=top.take("frame", _one_of("ego", "lidar")),
        history=history.take("length", _count_or_zero),
        history_interval=history.take("interval", _positive),
        flow=top.take("flow", _flag),
        supervision=top.take("supervision", _one_of(*SUPERVISIONS)),
        lidar_depth=top.take("lidar_depth", _flag),
        licence=top.take("licence", _text),
        paper=top.take("paper", _text),
        scores=tuple(_score(s) for s in top.sections("scores")),
        note=top.take("note", _text) if top.has("note") else "",
    )
    for section in (weights, image, grid, history, top):
        section.finish()
    if record.name != path.stem:
        raise ModelError(f"{path.name}: name is {record.name!r}, but must be the file's name")
    if record.file is None and record.repository is not None:
        raise ModelError(f"{path.name}: weights: a repository needs a file")
    return record


def _score(section: _Section) -> Score:
    score = Score(
        metric=section.take("metric", _text),
        value=section.take("value", _number),
        source=section.take("source", _text),
    )
    section.finish()
    return score


class _Section:
    """A mapping of the file, whose every entry must be asked for; ``where`` leads messages."""

    def __init__(self, where: str, data: Any) -> None:
        if not isinstance(data, dict):
            raise ModelError(f"{where}: expected entries, got {data!r}")
        self._where = where
        self._left = dict(data)

    def has(self, key: str) -> bool:
        return key in self._left

    def take(self, key: str, check: Callable[[Any], Any]) -> Any:
        if key not in self._left:
            raise ModelError(f"{self._where}: {key} is missing")
        value = self._left.pop(key)
        try:
            return check(value)
        except ValueError as error:
            raise ModelError(f"{self._where}: {key} must be {error}, got {value!r}") from None

    def section(self, key: str) -> _Section:
        return _Section(f"{self._where}: {key}", self.take(key, lambda value: value))

    def sections(self, key: str) -> list[_Section]:
        values = self.take(key, _list)
        return [_Section(f"{self._where}: {key}[{i}]", v) for i, v in enumerate(values)]

    def finish(self) -> None:
        if self._left:
            names = ", ".join(str(key) for key in self._left)
            raise ModelError(f"{self._where}: unknown: {names}")


# Checks: the value as it goes into the record, or a ValueError that says what it must be.


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a text")
    return " ".join(value.split())


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("a number")
    return float(value)


def _positive(value: Any) -> float:
    if _number(value) <= 0:
        raise ValueError("a number above 0")
    return float(value)


def _count_or_zero(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("a whole number, 0 or more")
    return value


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise ValueError("a whole number above 0")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("a list")
    return value


def _repository(value: Any) -> str:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", _text(value)):
        raise ValueError("owner/name of a Hugging Face repository")
    return value


def _digest(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{64}", value):
        raise ValueError("64 lower-case hexadecimal digits (in quotes)")
    return value


def _optional(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else check(value)


def _one_of(*choices: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in choices:
            raise ValueError("one of " + ", ".join(choices))
        return value

    return check


def _several(count: int, check: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    def checked(value: Any) -> tuple[Any, ...]:
        if len(_list(value)) != count:
            raise ValueError(f"a list of {count}")
        return tuple(check(v) for v in value)

    return checked


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
