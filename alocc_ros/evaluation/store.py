# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What is known about each scene so far: one small file each, so that a stopped run goes on."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from alocc_ros.datasets.files import read_npz
from alocc_ros.datasets.samples import Scene
from alocc_ros.errors import DataError, OutputError
from alocc_ros.files import whole_file

State = dict[str, dict[str, np.ndarray]]  # by kind of score, by name of sum


@dataclass(frozen=True)
class Rays:
    """Where the rays of a scene's predictions end, frame after frame.

    Attributes:
        counts: [frames] int64 rays of each frame.
        classes: [n] uint8.
        distance: [n] float16 m.
        flow: [n, 2] float16 m/s.
    """

    counts: np.ndarray
    classes: np.ndarray
    distance: np.ndarray
    flow: np.ndarray


def pack(state: State) -> bytes:
    """The counts of a scene as an NPZ."""
    arrays = {f"{k}/{n}": a for k, sums in state.items() for n, a in sums.items()}
    return _npz(arrays)


def unpack(content: bytes) -> State:
    """What ``pack`` packed."""
    state: State = {}
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        for key in arrays.files:
            kind, _, name = key.partition("/")
            state.setdefault(kind, {})[name] = arrays[key]
    return state


class ResultStore:
    """The folder of one evaluation; ``scenes/`` holds a file for each scene that is done.

    Attributes:
        path: of the folder.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        """Nothing is read or written yet.

        Args:
            path: of the folder.
            identity: everything that the scores depend on; anything that JSON can say.
        """
        self.path = path
        self._identity = json.loads(json.dumps(identity))
        text = json.dumps(self._identity, sort_keys=True)
        self._digest = hashlib.sha256(text.encode()).hexdigest()

    def prepare(self, restart: bool = False) -> None:
        """Makes the folder, or makes sure that it belongs to this evaluation.

        Args:
            restart: what is there may be thrown away, whatever it is.

        Raises:
            OutputError: it cannot be written to, or holds another evaluation.
        """
        notes = self.path / "evaluation.json"
        if restart:
            for file in (self.path / "scenes").glob("*.npz"):
                file.unlink(missing_ok=True)
        else:
            _check_same(notes, self._identity)
        with whole_file(notes) as scratch:
            scratch.write_text(json.dumps(self._identity, indent=1) + "\n", encoding="utf-8")

    def done(self, scene: Scene) -> bytes | None:
        """The packed counts of a scene; None if it is not done, or was with other frames."""
        content = self._read(self._file(scene, "scores"), scene, ("packed",))
        return None if content is None else content["packed"].tobytes()

    def keep(self, scene: Scene, packed: bytes, rays: Rays | None) -> None:
        """Writes down that a scene is done.

        Raises:
            OutputError: the disk is full or read-only.
        """
        if rays is not None:
            self._write(self._file(scene, "rays"), scene, vars(rays))
        self._write(self._file(scene, "scores"), scene, {"packed": np.frombuffer(packed, np.uint8)})

    def rays(self, scene: Scene) -> Rays | None:
        """The rays of a scene that is done; None if they were not kept."""
        names = tuple(Rays.__dataclass_fields__)
        content = self._read(self._file(scene, "rays"), scene, names)
        return None if content is None else Rays(**content)

    def has_rays(self, scene: Scene) -> bool:
        """Whether ``rays`` would find something."""
        return self._read(self._file(scene, "rays"), scene, ("counts",)) is not None

    def _file(self, scene: Scene, kind: str) -> Path:
        return self.path / "scenes" / f"{quote(scene.name, safe='')}.{kind}.npz"

    def _write(self, path: Path, scene: Scene, arrays: Mapping[str, np.ndarray]) -> None:
        origin = {"identity": np.array(self._digest), "tokens": np.array(_tokens(scene))}
        with whole_file(path) as scratch:
            scratch.write_bytes(_npz({**origin, **arrays}))

    def _read(
        self, path: Path, scene: Scene, names: tuple[str, ...]
    ) -> dict[str, np.ndarray] | None:
        if not path.exists():
            return None
        try:
            content = read_npz(path, ("identity", "tokens", *names))
        except DataError as error:
            raise OutputError(f"{error}; delete it, it is then made again") from error
        identity, tokens = content.pop("identity"), content.pop("tokens")
        if str(identity) != self._digest or tokens.tolist() != _tokens(scene):
            return None
        return content


def _check_same(notes: Path, identity: Mapping[str, Any]) -> None:
    if not notes.exists():
        return
    try:
        before = json.loads(notes.read_text(encoding="utf-8"))
        differences = [
            f"{key} was {before.get(key)!r}, is {identity.get(key)!r}"
            for key in dict.fromkeys((*before, *identity))
            if before.get(key) != identity.get(key)
        ]
    except (OSError, ValueError, AttributeError) as error:
        raise OutputError(f"{notes} is no evaluation's: {error}; take another folder") from error
    if differences:
        raise OutputError(
            f"{notes.parent} holds another evaluation ({'; '.join(differences)}): "
            "take another --output, or throw that away with --restart"
        )


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _tokens(scene: Scene) -> list[str]:
    return [sample.token for sample in scene.samples]
