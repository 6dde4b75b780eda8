# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Presets: which topics and frames a rig or a bag converter uses, one YAML file each.

The same file configures ``alocc run`` and the node. ``config/presets/`` holds one preset for
every nuScenes converter in the wild; ``custom_example.yaml`` there explains each entry.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from alocc_ros.errors import PresetError
from alocc_ros.resources import shared_folder
from alocc_ros.types import CAMERAS

DEFAULT_PRESET = "nuscenes"


@dataclass(frozen=True)
class CameraTopics:
    """Where one camera's messages are.

    Attributes:
        image: topic of sensor_msgs/Image or CompressedImage.
        camera_info: topic of sensor_msgs/CameraInfo; empty: there is none.
        frame: TF name of the optical frame; empty: what the image's header says.
        offset_s: phase of this camera's stamps against the anchor's, seconds.
    """

    image: str
    camera_info: str = ""
    frame: str = ""
    offset_s: float = 0.0


@dataclass(frozen=True)
class Preset:
    """How to find images, calibration and ego motion.

    Attributes:
        name: of the preset, or the path of a custom file.
        description: one line for people.
        cameras: topics by camera name; None where the vehicle has no such camera.
        base_frame: TF frame of the vehicle, x forward, z up; the grid lies in it.
        world_frame: TF frame in which the vehicle moves without jumps.
        ego_pose_source: ``tf`` or ``odometry``.
        odometry_topic: nav_msgs/Odometry, for ``ego_pose_source: odometry``.
        pose_gap_s: most seconds between two ego poses to interpolate between.
        pose_extrapolation_s: how far beyond the first and last pose one is made up.
        stamp_source: ``header``, or ``receive`` for recordings whose stamps are no use.
        extrinsics: ``tf``, or ``file`` for ``base_T_camera`` out of the calibration file.
        calibration_file: rig calibration (see rig.py); None: CameraInfo has everything.
        rectified: images carry no lens distortion, whatever CameraInfo's D says.
        assume_8uc3: what ``8UC3`` images hold, ``bgr8`` or ``rgb8``.
        anchor: the camera whose stamp a set of images gets.
        max_spread_s: most seconds between two images of a set, offsets removed.
        set_timeout_s: seconds to wait for late cameras.
        min_cameras: sets with fewer images are dropped.
    """

    name: str
    cameras: Mapping[str, CameraTopics | None]
    description: str = ""
    base_frame: str = "base_link"
    world_frame: str = "map"
    ego_pose_source: str = "tf"
    odometry_topic: str = ""
    pose_gap_s: float = 1.0
    pose_extrapolation_s: float = 0.0
    stamp_source: str = "header"
    extrinsics: str = "tf"
    calibration_file: Path | None = None
    rectified: bool = True
    assume_8uc3: str = "bgr8"
    anchor: str = "cam_front"
    max_spread_s: float = 0.055
    set_timeout_s: float = 0.10
    min_cameras: int = 1

    @property
    def used_cameras(self) -> dict[str, CameraTopics]:
        """The cameras that this vehicle has, in network order."""
        return {name: topics for name, topics in self.cameras.items() if topics is not None}


_CHOICES = {
    "ego_pose_source": ("tf", "odometry"),
    "stamp_source": ("header", "receive"),
    "extrinsics": ("tf", "file"),
    "assume_8uc3": ("bgr8", "rgb8"),
    "anchor": CAMERAS,
}
# (smallest, largest): beyond these a value is a slip of the unit.
_BOUNDS = {
    "max_spread_s": (0.001, 10.0),
    "set_timeout_s": (0.001, 60.0),
    "min_cameras": (1, 6),
    "pose_gap_s": (0.001, 60.0),
    "pose_extrapolation_s": (0.0, 10.0),
}
_TYPES = {"str": str, "bool": bool, "float": float, "int": int}
_NOUN = {"str": "text", "bool": "true or false", "float": "a number", "int": "a whole number"}


def presets_folder() -> Path:
    """Where the presets of this installation are."""
    return shared_folder("config") / "presets"


def preset_names() -> list[str]:
    """Names of the presets that come with the package."""
    return sorted(p.stem for p in presets_folder().glob("*.yaml"))


def load_preset(name_or_path: str | Path) -> Preset:
    """A preset by name, or a custom one from a YAML file.

    Raises:
        PresetError: no such preset, or an entry of it is wrong; the message names the file
            and the entry.
    """
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"}:
        return _from_yaml(path, name=str(name_or_path))
    known = preset_names()
    if str(name_or_path) not in known:
        raise PresetError(
            f"no preset is called {str(name_or_path)!r}{_hint(str(name_or_path), known)}; "
            f"there are {', '.join(known)} (or give a file that ends in .yaml)"
        )
    return _from_yaml(presets_folder() / f"{name_or_path}.yaml", name=str(name_or_path))


def _from_yaml(path: Path, name: str) -> Preset:
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PresetError(f"cannot read preset {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PresetError(f"preset {path} is no YAML: {' '.join(str(error).split())}") from error
    return parse_preset(entries, name=name, where=str(path), folder=path.parent)


def parse_preset(entries: Any, *, name: str, where: str, folder: Path) -> Preset:
    """A preset out of the entries of a YAML file.

    Args:
        entries: what the file holds.
        name: of the preset.
        where: what error messages call the source.
        folder: what ``calibration_file`` is relative to.

    Raises:
        PresetError: an entry is unknown, missing, or of the wrong kind.
    """
    types = {f.name: str(f.type) for f in fields(Preset) if f.name != "name"}
    values = _checked_entries(entries, types, required=("cameras",), where=where)
    values["cameras"] = _cameras(values["cameras"], where)
    for key, choices in _CHOICES.items():
        if key in values and values[key] not in choices:
            raise PresetError(
                f"{where}: {key} is {values[key]!r}{_hint(values[key], choices)}; "
                f"it must be one of {', '.join(choices)}"
            )
    for key, (low, high) in _BOUNDS.items():
        if key in values and not low <= values[key] <= high:
            raise PresetError(f"{where}: {key} is {values[key]}; it must be {low} to {high}")
    if values.get("calibration_file") is not None:
        values["calibration_file"] = folder / Path(values["calibration_file"]).expanduser()
    preset = Preset(name=name, **values)
    _check_together(preset, where)
    return preset


def _cameras(entries: Any, where: str) -> dict[str, CameraTopics | None]:
    if not isinstance(entries, dict):
        raise PresetError(f"{where}: cameras must map camera names to their topics")
    if missing := [c for c in CAMERAS if c not in entries]:
        raise PresetError(
            f"{where}: cameras lacks {', '.join(missing)}; "
            "write `none` behind the name of a camera that the vehicle does not have"
        )
    types = {f.name: str(f.type) for f in fields(CameraTopics)}
    cameras: dict[str, CameraTopics | None] = {}
    for camera, topics in entries.items():
        if camera not in CAMERAS:
            raise PresetError(
                f"{where}: cameras has unknown camera {camera!r}{_hint(camera, CAMERAS)}; "
                f"there are {', '.join(CAMERAS)}"
            )
        if topics in (None, "none"):
            cameras[camera] = None
            continue
        here = f"{where}: cameras: {camera}"
        cameras[camera] = CameraTopics(**_checked_entries(topics, types, ("image",), here))
    return {camera: cameras[camera] for camera in CAMERAS}


def _check_together(preset: Preset, where: str) -> None:
    """Entries that are right each alone but contradict each other."""
    used = preset.used_cameras
    if not used:
        raise PresetError(f"{where}: every camera is none; at least one is needed")
    if preset.anchor not in used:
        raise PresetError(f"{where}: anchor is {preset.anchor}, a camera that is none")
    if used[preset.anchor].offset_s:
        raise PresetError(f"{where}: offset_s of the anchor {preset.anchor} must be 0")
    if preset.min_cameras > len(used):
        raise PresetError(
            f"{where}: min_cameras is {preset.min_cameras} but there are {len(used)} cameras"
        )
    if preset.ego_pose_source == "odometry" and not preset.odometry_topic:
        raise PresetError(f"{where}: ego_pose_source odometry needs odometry_topic")
    if preset.base_frame == preset.world_frame:
        raise PresetError(f"{where}: base_frame and world_frame are both {preset.base_frame!r}")
    topics: dict[str, str] = {}
    for camera, entry in used.items():
        for topic in filter(None, (entry.image, entry.camera_info)):
            if topic in topics:
                raise PresetError(f"{where}: {topics[topic]} and {camera} share the topic {topic}")
            topics[topic] = camera


def _checked_entries(
    entries: Any, types: Mapping[str, str], required: Collection[str], where: str
) -> dict[str, Any]:
    """``entries`` if each is known and of its type; the types are those of a dataclass."""
    if not isinstance(entries, dict):
        raise PresetError(f"{where}: expected `name: value` entries, got {_shown(entries)}")
    values = {}
    for key, value in entries.items():
        if key not in types:
            raise PresetError(
                f"{where}: unknown entry {key!r}{_hint(str(key), types)}; "
                f"there are {', '.join(types)}"
            )
        values[key] = _typed(value, types[key], f"{where}: {key}")
    if missing := [key for key in required if not values.get(key)]:
        raise PresetError(f"{where}: {', '.join(missing)} is missing")
    return values


def _typed(value: Any, type_name: str, where: str) -> Any:
    if type_name == "str" and value is None:
        return ""
    if type_name == "Path | None" and (value is None or isinstance(value, str)):
        return value or None
    if type_name == "float" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    expected = _TYPES.get(type_name)
    if expected is not None and type(value) is not expected:
        raise PresetError(f"{where} must be {_NOUN[type_name]}, got {_shown(value)}")
    if type_name == "Path | None":
        raise PresetError(f"{where} must be a file name, got {_shown(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise PresetError(f"{where} must be a finite number, got {value}")
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _hint(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
