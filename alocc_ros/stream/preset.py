# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Presets: which topics and frames a rig or a bag converter uses, one YAML file each.

The same file configures ``alocc run`` and the node. ``config/presets/`` holds one preset for
every nuScenes converter in the wild; ``custom_example.yaml`` there explains each entry.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, Strict

from alocc_ros import schema
from alocc_ros.errors import PresetError
from alocc_ros.resources import shared_folder
from alocc_ros.schema import (
    EmptyText,
    Number,
    Text,
    Whole,
    between,
    described,
    nearest,
    one_of,
    said,
    unknown_name,
)
from alocc_ros.types import CAMERAS

DEFAULT_PRESET = "nuscenes"
AUTO = "auto"
LOWEST = "lowest"


def _crop(entry: Any) -> Any:
    """A word, or left, top and width."""
    known = isinstance(entry, list) and len(entry) == 3
    if entry not in (AUTO, LOWEST) and not (
        known and all(type(n) is int and n >= 0 for n in entry) and entry[2] > 0
    ):
        raise said("must be auto, lowest, or [left, top, width] in whole pixels of the image")
    return tuple(entry) if known else entry


Crop = Annotated[str | tuple[int, int, int], BeforeValidator(_crop)]
Rectified = Annotated[Annotated[bool, Strict()] | Literal["auto"], described("true, false or auto")]


@dataclass(frozen=True)
class CameraTopics:
    """Where one camera's messages are.

    Attributes:
        image: topic of sensor_msgs/Image or CompressedImage.
        camera_info: topic of sensor_msgs/CameraInfo; empty: there is none.
        frame: TF name of the optical frame; empty: what the image's header says.
        offset_s: phase of this camera's stamps against the anchor's, seconds.
        rectified: as of the preset, for this camera; None: the preset's.
        crop: likewise, or left, top and width (px of the image) of what the network gets; the
            height follows from the shape of its input.
    """

    image: Annotated[EmptyText, Field(min_length=1), described("a topic")]
    camera_info: EmptyText = ""
    frame: EmptyText = ""
    offset_s: Number = 0.0
    rectified: Rectified | None = None
    crop: Crop | None = None


_WHERE = (
    "in degrees to the left of ahead the names say front 0, front_left 55, front_right -55, "
    "back_left 110, back_right -110, back 180; take the nearest"
)


def _cameras(entries: Any) -> dict[str, Any]:
    """The entry ``cameras`` with every camera in network order; None: the vehicle has none."""
    if not isinstance(entries, dict):
        raise said("must map camera names to their topics")
    for camera in entries:
        if camera not in CAMERAS:
            raise said(f"{unknown_name('camera', camera, CAMERAS)} ({_WHERE})")
    if missing := [c for c in CAMERAS if c not in entries]:
        raise said(
            f"lacks {', '.join(missing)}; "
            f"write `none` behind the name of a camera that the vehicle does not have ({_WHERE})"
        )
    return {c: None if entries[c] == "none" else entries[c] for c in CAMERAS}


def _topics(entries: Any) -> Any:
    """One topic, or several."""
    return [entries] if isinstance(entries, str) else entries


Topics = Annotated[
    tuple[Annotated[str, Strict(), Field(min_length=1)], ...],
    BeforeValidator(_topics),
    described("a topic or a list of topics"),
]
FileName = Annotated[
    Path | None, BeforeValidator(lambda value: value or None), described("a file name")
]


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
        tf_topics, tf_static_topics: where transforms come from, as tf2_msgs/TFMessage.
        pose_gap_s: most seconds between two ego poses to interpolate between.
        pose_extrapolation_s: how far beyond the first and last pose one is made up.
        pose_hold_s: how long the last transform of a slow link of the chain from world to base
            is held, where a faster one tells the motion in between (map to odom of a localisation
            that speaks every few seconds).
        stamp_source: ``header``, or ``receive`` for recordings whose stamps are no use.
        extrinsics: ``tf``, or ``file`` for ``base_T_camera`` out of the calibration file.
        calibration_file: rig calibration (see rig.py); None: CameraInfo has everything.
        rectified: images carry no lens distortion, whatever CameraInfo's D says; ``auto``: those
            whose topic has "rect" in its name, as image_proc and converters write it.
        crop: which part of an image the network gets: ``auto``, as the camera looks, or the
            ``lowest`` rows as of nuScenes (``crop_placement.py``).
        assume_8uc3: what ``8UC3`` images hold, ``bgr8`` or ``rgb8``.
        anchor: the camera whose stamp a set of images gets.
        max_spread_s: most seconds between two images of a set, offsets removed.
        set_timeout_s: seconds to wait for late cameras.
        min_cameras: sets with fewer images are dropped.
        required_cameras: sets without an image of each of these are dropped; None: see
            ``must_have``.
    """

    # Beyond the bounds a value is a slip of the unit.
    name: Text
    cameras: Annotated[Mapping[str, CameraTopics | None], BeforeValidator(_cameras)]
    description: EmptyText = ""
    base_frame: EmptyText = "base_link"
    world_frame: EmptyText = "map"
    ego_pose_source: Annotated[str, one_of("tf", "odometry")] = "tf"
    odometry_topic: EmptyText = ""
    tf_topics: Topics = ("/tf",)
    tf_static_topics: Topics = ("/tf_static",)
    pose_gap_s: Annotated[Number, between(0.001, 60.0)] = 1.0
    pose_extrapolation_s: Annotated[Number, between(0.0, 10.0)] = 0.0
    pose_hold_s: Annotated[Number, between(0.0, 3600.0)] = 10.0
    stamp_source: Annotated[str, one_of("header", "receive")] = "header"
    extrinsics: Annotated[str, one_of("tf", "file")] = "tf"
    calibration_file: FileName = None
    rectified: Rectified = True
    crop: Annotated[str, one_of(AUTO, LOWEST)] = AUTO
    assume_8uc3: Annotated[str, one_of("bgr8", "rgb8")] = "bgr8"
    anchor: Annotated[str, one_of(*CAMERAS)] = "cam_front"
    max_spread_s: Annotated[Number, between(0.001, 10.0)] = 0.055
    set_timeout_s: Annotated[Number, between(0.001, 60.0)] = 0.10
    min_cameras: Annotated[Whole, between(1, 6, "a whole number")] = 1
    required_cameras: Annotated[
        tuple[Annotated[str, one_of(*CAMERAS)], ...] | None,
        BeforeValidator(_topics),
        described("a list of cameras"),
    ] = None

    @property
    def used_cameras(self) -> dict[str, CameraTopics]:
        """The cameras that this vehicle has, in network order."""
        return {name: topics for name, topics in self.cameras.items() if topics is not None}

    @property
    def must_have(self) -> tuple[str, ...]:
        """Cameras without which there is no set.

        Of a vehicle with fewer than six, by default, the anchor: what one side camera sees alone
        is hardly a picture of the scene. Of six, others stand in for an anchor that fails.
        """
        if self.required_cameras is not None:
            return self.required_cameras
        return (self.anchor,) if len(self.used_cameras) < len(CAMERAS) else ()

    def crop_of(self, camera: str) -> str | tuple[int, int, int]:
        """Which part of a camera's images the network gets; see ``Calibration.crop``."""
        topics = self.cameras[camera]
        return self.crop if topics is None or topics.crop is None else topics.crop

    def is_rectified(self, camera: str) -> bool:
        """Whether the images of a camera carry no lens distortion."""
        topics = self.cameras[camera]
        if topics is None:
            return True
        flag = self.rectified if topics.rectified is None else topics.rectified
        return says_rectified(topics.image) if flag == AUTO else flag


def says_rectified(topic: str) -> bool:
    """Whether the name of a topic of images says that they are free of lens distortion."""
    return "rect" in topic.rsplit("/", 1)[-1] or any(
        part.startswith("image_rect") for part in topic.split("/")
    )


def distortion_remark(preset: Preset, camera: str, topic: str, d: Any) -> str:
    """What to say where a CameraInfo on ``topic`` has distortion that is left out, or ""."""
    topics = preset.used_cameras[camera]
    if not any(d) or not preset.is_rectified(camera) or says_rectified(topics.image):
        return ""
    return (
        f"{topic}: d is not zero and is left out, because preset {preset.name} says that the "
        f"images of {camera} are rectified; if they are not: `rectified: false` for this camera"
    )


def other_transforms(preset: Preset, there: Collection[str], resolved: Callable[[str], str]) -> str:
    """Which of the topics of transforms ``there`` the preset does not read, and how to name them.

    ``resolved`` makes a name of the preset one of those.
    """
    known = {resolved(t) for t in (*preset.tf_topics, *preset.tf_static_topics)}
    if not (others := sorted(set(there) - known)):
        return ""
    static = [t for t in others if t.endswith("static")]
    moving = [t for t in others if t not in static]
    entries = {"tf_topics": moving, "tf_static_topics": static}
    said = ", ".join(f"{k}: [{', '.join(v)}]" for k, v in entries.items() if v)
    return (
        f"; preset {preset.name} reads {', '.join(sorted(known))}, and there are transforms on "
        f"{', '.join(others)} as well: {said} in a preset of your own"
    )


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
            f"no preset is called {str(name_or_path)!r}{nearest(name_or_path, known)}; "
            f"there are {', '.join(known)} (or give a file that ends in .yaml)"
        )
    return _from_yaml(presets_folder() / f"{name_or_path}.yaml", name=str(name_or_path))


def _from_yaml(path: Path, name: str) -> Preset:
    try:
        entries = schema.load_yaml(path.read_text(encoding="utf-8"))
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
    preset = schema.parse(Preset, entries, where, PresetError, name=name)
    if preset.calibration_file is not None:
        preset = replace(preset, calibration_file=folder / preset.calibration_file.expanduser())
    _check_consistent(preset, where)
    return preset


def _check_consistent(preset: Preset, where: str) -> None:
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
    if lacking := [c for c in preset.must_have if c not in used]:
        raise PresetError(f"{where}: required_cameras names {lacking[0]}, a camera that is none")
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
