# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""A preset written from what a recording holds: topics, frames, and which camera looks where.

The network has six places, called by where nuScenes' cameras look. A camera takes the place whose
direction is nearest to its own, as it is mounted; without a mounting on TF, the words in its topic
decide.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from alocc_ros.bags.reader import CAMERA_INFO_TYPE, POSE_TYPES, TF_TYPE, Bag, camera_types
from alocc_ros.errors import AloccError, BagError
from alocc_ros.stream import conversions
from alocc_ros.stream.pose_limits import PoseLimits
from alocc_ros.stream.preset import says_rectified
from alocc_ros.stream.transforms import TransformTree
from alocc_ros.types import CAMERAS

# Degrees to the left of ahead.
YAWS = {
    "cam_front_left": 55,
    "cam_front": 0,
    "cam_front_right": -55,
    "cam_back_left": 110,
    "cam_back": 180,
    "cam_back_right": -110,
}
_ENOUGH, _MOST = 8, 60  # images of a camera that tell its period
_FAR = 70  # degrees; a camera that looks elsewhere than a place is not proposed for it
_BASES = ("base_link", "base_footprint", "ego_vehicle", "vehicle")
_WORLDS = ("map", "odom", "world")
_WORDS = {"front": 0, "forward": 0, "back": 180, "rear": 180, "left": 90, "right": -90}
_NOT_FOR_US = re.compile(r"depth|mask|segment|infra|ir_|overlay|debug|thumbnail")


@dataclass(frozen=True)
class FoundCamera:
    """A camera of a recording.

    Attributes:
        image, camera_info: topics; the latter "" if there is none.
        frame: of its images.
        yaw: degrees to the left of ahead; None: unknown.
        how: where the yaw comes from.
    """

    image: str
    camera_info: str
    frame: str
    yaw: float | None
    how: str


def preset_text(bag: Bag) -> str:
    """The YAML of a preset for a recording, with remarks.

    Raises:
        BagError: it has no images.
    """
    tree, frames = _read_mountings(bag)
    base = next((b for b in _BASES if b in frames), "base_link")
    world = next((w for w in _WORLDS if w in frames and w != base), "map")
    cameras = _cameras(bag, tree, base)
    places = assign(cameras)
    lines = [
        f"# Written from {bag.path.name}; what is behind a # is to be checked or filled in.",
        "# config/presets/custom_example.yaml explains every entry.",
        f'description: "as in {bag.path.name}"',
        "cameras:",
    ]
    for place in CAMERAS:
        camera = places.get(place)
        if camera is None:
            lines.append(f"  {place}: none")
            continue
        looks = (
            "looks where nobody says" if camera.yaw is None else f"looks {camera.yaw:.0f} degrees"
        )
        lines += [
            f"  {place}:  # {looks}{' to the left' * (camera.yaw is not None)} ({camera.how})",
            f"    image: {camera.image}",
        ]
        if camera.camera_info:
            lines.append(f"    camera_info: {camera.camera_info}")
        else:
            lines.append("    # no CameraInfo was recorded: give a calibration_file")
        if not camera.frame:
            lines.append(
                "    # frame: its images name none; write the TF frame of its optical axes"
            )
        lines.append(f"    rectified: {str(says_rectified(camera.image)).lower()}  # check it")
    left = [c for c in cameras if c not in places.values()]
    if left:
        lines.append(
            "# The network has six places. Left out, because others look more like nuScenes' "
            f"cameras do: {', '.join(c.image for c in left)}"
        )
    lines += [f"base_frame: {base}", f"world_frame: {world}", *_motion(bag, frames, base, world)]
    if places and "cam_front" not in places:
        lines.append(f"anchor: {next(iter(sorted(places)))}  # nothing looks ahead")
    lines += _spread(bag, [camera.image for camera in places.values()])
    return "\n".join(lines) + "\n"


def assign(cameras: Sequence[FoundCamera]) -> dict[str, FoundCamera]:
    """By place: the cameras that look most like it."""
    known = [c for c in cameras if c.yaw is not None]
    if not known:
        return dict(zip(CAMERAS, cameras, strict=False))
    cost = np.array([[_apart(c.yaw, yaw) for yaw in YAWS.values()] for c in known])
    # A place that nothing looks at is better than a camera that looks elsewhere.
    rows, columns = linear_sum_assignment(np.minimum(cost, _FAR) ** 2)
    names = list(YAWS)
    pairs = [(r, c) for r, c in zip(rows, columns, strict=True) if cost[r, c] <= _FAR]
    return {names[c]: known[r] for r, c in pairs}


def _apart(a: float, b: float) -> float:
    return abs((a - b + 180) % 360 - 180)


def _cameras(bag: Bag, tree: TransformTree, base: str) -> list[FoundCamera]:
    topics = sorted(t for t, kind in bag.types.items() if kind in camera_types())
    topics = [t for t in topics if not _NOT_FOR_US.search(t.lower())]
    found: dict[str, FoundCamera] = {}
    for topic in topics:
        parent = topic.removesuffix("/compressed").removesuffix("/ffmpeg").rsplit("/", 1)[0]
        info = next(
            (
                t
                for t, kind in bag.types.items()
                if kind == CAMERA_INFO_TYPE and t.rsplit("/", 1)[0] in (parent, topic)
            ),
            "",
        )
        frame = _frame(bag, topic)
        camera = FoundCamera(topic, info, frame, *_yaw(tree, base, frame, topic))
        # Of several topics of one camera the rectified one, and the compressed one.
        key = info or parent
        if key not in found or _rank(camera) > _rank(found[key]):
            found[key] = camera
    if not found:
        raise BagError(f"bag {bag.path} has no images to write a preset for")
    return list(found.values())


def _rank(camera: FoundCamera) -> tuple[bool, bool]:
    return says_rectified(camera.image), camera.image.endswith("compressed")


def _frame(bag: Bag, topic: str) -> str:
    for record in bag.messages([topic]):
        try:
            return conversions.frame_name(conversions.header(bag.decode(record)).frame_id)
        except BagError:
            continue
    return ""


def _yaw(tree: TransformTree, base: str, frame: str, topic: str) -> tuple[float | None, str]:
    if frame:
        try:
            ahead = tree.lookup(base, frame, None)[:3, 2]
        except AloccError:
            pass
        else:
            if np.hypot(*ahead[:2]) > 0.3:
                return float(np.degrees(np.arctan2(ahead[1], ahead[0]))), f"{frame} on TF"
    words = [w for w in _WORDS if w in topic.lower()]
    if not words:
        return None, "no mounting on TF, and no word in its topic"
    side = next((_WORDS[w] for w in words if abs(_WORDS[w]) == 90), None)
    along = next((_WORDS[w] for w in words if abs(_WORDS[w]) != 90), None)
    if side is None or along is None:
        yaw = along if side is None else side
    else:
        yaw = np.sign(side) * (55 if along == 0 else 110)
    return float(yaw), f"by the word{'s' * (len(words) > 1)} {', '.join(words)} in its topic"


def _read_mountings(bag: Bag) -> tuple[TransformTree, set[str]]:
    tree = TransformTree(history_ns=None, limits=PoseLimits())
    frames: set[str] = set()
    topics = [t for t, kind in bag.types.items() if kind == TF_TYPE]
    for record in bag.messages(topics):
        try:
            entries = bag.decode(record).transforms
        except BagError:
            continue
        for entry in entries:
            try:
                stamp, parent, child, pose = conversions.transform(entry)
                frames |= {parent, child}
                # Where things are mounted is asked for without a stamp: the first one tells.
                if not tree.knows(parent, child):
                    tree.add_static(parent, child, pose)
            except AloccError:
                continue
    return tree, frames


def _spread(bag: Bag, topics: Sequence[str]) -> list[str]:
    """How far images of a set may be apart: by the phases of the cameras, where they hold still."""
    stamps = [_first_stamps(bag, topic) for topic in topics]
    if not stamps or min(len(s) for s in stamps) < _ENOUGH:
        return ["max_spread_s: 0.055  # of cameras that run free: one period (0.067 at 15 Hz)"]
    anchor = max(stamps, key=len)
    period = float(np.median(np.diff(anchor)))
    phases = [[float((t - anchor[0] + period / 2) % period) for t in s] for s in stamps]
    # A phase that wanders through a quarter of a period has no trigger behind it.
    if max(np.ptp(p) for p in phases) < period / 4:
        return ["max_spread_s: 0.055"]
    spread = min(max(period / 1e9, 0.055), 10.0)
    return [f"max_spread_s: {spread:.3f}  # one period, because the cameras run free"]


def _first_stamps(bag: Bag, topic: str) -> np.ndarray:  # ns
    found = []
    for record in bag.messages([topic]):
        with contextlib.suppress(AloccError):
            found.append(conversions.stamp_ns(conversions.header(bag.decode(record)).stamp))
        if len(found) == _MOST:
            break
    return np.sort(np.array(found, dtype=np.int64))


def _motion(bag: Bag, frames: set[str], base: str, world: str) -> list[str]:
    """Where the ego motion may come from."""
    transforms = sorted(t for t, kind in bag.types.items() if kind == TF_TYPE)
    odometry = sorted(t for t, kind in bag.types.items() if kind in POSE_TYPES)
    lines = []
    moving = [t for t in transforms if not t.endswith("static")]
    static = [t for t in transforms if t.endswith("static")]
    if moving and moving != ["/tf"]:
        lines.append(f"tf_topics: [{', '.join(moving)}]")
    if static and static != ["/tf_static"]:
        lines.append(f"tf_static_topics: [{', '.join(static)}]")
    if world in frames and base in frames:
        lines.append("ego_pose_source: tf")
    elif odometry:
        lines += ["ego_pose_source: odometry", f"odometry_topic: {odometry[0]}  # of {base}"]
        lines += [f"#   or {topic}" for topic in odometry[1:]]
    else:
        lines.append("# there is neither a transform of the base in a world frame nor odometry")
    if not transforms:
        lines += ["extrinsics: file", "# calibration_file: my_rig.yaml  # `alocc rig example`"]
    return lines
