# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Objects as messages: vision_msgs, markers, Autoware (docs/integrations/objects.md).

A message holds what is to be seen in its result; only markers show what has just been missed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from alocc_ros.arrays import FLOW_HORIZON, MOVING_SPEED, direction_colours
from alocc_ros.labels import ClassList
from alocc_ros.messages import (
    ADD,
    LINE_LIST,
    MARKER_ARRAY,
    POINT,
    TEXT,
    VECTOR,
    Colours,
    Message,
    colour_of,
    header,
    list_marker,
    new_message,
    no_markers,
    pose_at,
    quaternion,
    vector,
)
from alocc_ros.objects.things import DetectedObject

AUTOWARE_OBJECTS = "autoware_perception_msgs/msg/DetectedObjects"
DETECTIONS = "vision_msgs/msg/Detection3DArray"

# autoware_perception_msgs/ObjectClassification; what is not here is UNKNOWN, which a planner
# takes for an obstacle that may do anything.
AUTOWARE_LABELS = MappingProxyType(
    {
        "car": 1,
        "truck": 2,
        "construction_vehicle": 2,
        "bus": 3,
        "trailer": 4,
        "motorcycle": 5,
        "bicycle": 6,
        "pedestrian": 7,
    }
)
_UNKNOWN = 0
_SIGN_UNKNOWN, _AVAILABLE = 1, 2  # autoware_perception_msgs/DetectedObjectKinematics
_BOUNDING_BOX = 0  # autoware_perception_msgs/Shape

_LINE, _ARROW, _LETTERS = 0.08, 0.15, 0.8  # m
_MISSED = np.array([0.5, 0.5, 0.5])  # colour of what has just been missed
# Corners as in ``DetectedObject.corners``, first below, then above.
_EDGES = np.array(
    [(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7)]
)


def detections(
    objects: Iterable[DetectedObject], classes: ClassList, stamp: int, frame: str
) -> Message:
    """A vision_msgs/Detection3DArray; ``stamp`` in ns, ``frame`` the TF name of the grid's frame.

    The score is the mean confidence, 1 where the network was not asked for it. Velocities have no
    place in this message.
    """
    head = header(stamp, frame)
    found = []
    for one in objects:
        if not one.visible:
            continue
        pose = _pose(one)
        hypothesis = new_message(
            "vision_msgs/msg/ObjectHypothesis",
            class_id=classes.names[one.label],
            score=_probability(one),
        )
        found.append(
            new_message(
                "vision_msgs/msg/Detection3D",
                header=head,
                results=[
                    new_message(
                        "vision_msgs/msg/ObjectHypothesisWithPose",
                        hypothesis=hypothesis,
                        pose=new_message("geometry_msgs/msg/PoseWithCovariance", pose=pose),
                    )
                ],
                bbox=new_message(
                    "vision_msgs/msg/BoundingBox3D", center=pose, size=vector(VECTOR, one.size)
                ),
                id=str(one.id) if one.id else "",
            )
        )
    return new_message(DETECTIONS, header=head, detections=found)


def autoware_objects(
    objects: Iterable[DetectedObject], classes: ClassList, stamp: int, frame: str
) -> Message:
    """An autoware_perception_msgs/DetectedObjects; arguments as of ``detections``.

    The twist is in the object's own axes, as Autoware's detectors give it; covariances are not
    known and marked so. Autoware gives ids of its own, in its tracker.
    """
    return new_message(
        AUTOWARE_OBJECTS,
        header=header(stamp, frame),
        objects=[_autoware_object(one, classes) for one in objects if one.visible],
    )


def _autoware_object(one: DetectedObject, classes: ClassList) -> Message:
    probability = _probability(one)
    classification = new_message(
        "autoware_perception_msgs/msg/ObjectClassification",
        label=AUTOWARE_LABELS.get(classes.names[one.label], _UNKNOWN),
        probability=probability,
    )
    kinematics: dict[str, Any] = {
        "pose_with_covariance": new_message(
            "geometry_msgs/msg/PoseWithCovariance", pose=_pose(one)
        ),
        "orientation_availability": _AVAILABLE if one.heading_known else _SIGN_UNKNOWN,
        "has_twist": not np.isnan(one.speed),
    }
    if kinematics["has_twist"]:
        (vx, vy), c, s = one.velocity, np.cos(one.yaw), np.sin(one.yaw)
        twist = new_message(
            "geometry_msgs/msg/Twist",
            linear=vector(VECTOR, (c * vx + s * vy, c * vy - s * vx, 0.0)),
        )
        kinematics["twist_with_covariance"] = new_message(
            "geometry_msgs/msg/TwistWithCovariance", twist=twist
        )
    return new_message(
        "autoware_perception_msgs/msg/DetectedObject",
        existence_probability=probability,
        classification=[classification],
        kinematics=new_message(
            "autoware_perception_msgs/msg/DetectedObjectKinematics", **kinematics
        ),
        shape=new_message(
            "autoware_perception_msgs/msg/Shape",
            type=_BOUNDING_BOX,
            dimensions=vector(VECTOR, one.size),
        ),
    )


def object_markers(
    objects: Sequence[DetectedObject], classes: ClassList, stamp: int, frame: str
) -> Message:
    """A visualization_msgs/MarkerArray; arguments as of ``detections``.

    Boxes in the colours of their classes (gray: just missed), arrows to where what moves will be
    in 1 s, and above each class, id and speed. Each message first deletes what the one before it
    has drawn, so nothing stays of objects that are gone.
    """
    markers = list(no_markers(stamp, frame)["markers"])
    if not objects:
        return new_message(MARKER_ARRAY, markers=markers)
    palette = np.array(
        [classes.colours[one.label] / 255 if one.visible else _MISSED for one in objects]
    )
    ends = np.concatenate([_edges(one) for one in objects])
    colours = Colours(palette, np.arange(len(objects)).repeat(2 * len(_EDGES)))
    width = (_LINE, 0.0, 0.0)
    markers.append(list_marker("boxes", LINE_LIST, width, stamp, frame, ends, colours))
    moving = [one for one in objects if one.speed > MOVING_SPEED]
    if moving:
        arrows = np.stack([_arrow(one) for one in moving])
        directions = np.arctan2(*np.stack([one.velocity for one in moving]).T[::-1])
        colours = Colours(
            direction_colours(directions), np.arange(len(moving)).repeat(arrows.shape[1])
        )
        width, ends = (_ARROW, 0.0, 0.0), arrows.reshape(-1, 3)
        markers.append(list_marker("velocity", LINE_LIST, width, stamp, frame, ends, colours))
    head, size = header(stamp, frame), vector(VECTOR, (0.0, 0.0, _LETTERS))
    for number, (one, rgb) in enumerate(zip(objects, palette, strict=True)):
        above = one.centre + (0.0, 0.0, one.size[2] / 2 + _LETTERS)
        markers.append(
            new_message(
                "visualization_msgs/msg/Marker",
                header=head,
                ns="names",
                id=number,
                type=TEXT,
                action=ADD,
                pose=pose_at(above),
                scale=size,
                color=colour_of(rgb),
                text=_text(one, classes),
            )
        )
    return new_message(MARKER_ARRAY, markers=markers)


def _text(one: DetectedObject, classes: ClassList) -> str:
    name = classes.names[one.label]
    name += f" {one.id}" if one.id else ""
    return f"{name}  {one.speed:.1f} m/s" if one.speed > MOVING_SPEED else name


def _edges(one: DetectedObject) -> np.ndarray:  # [24, 3] m
    corners = np.empty((8, 3))
    corners[:4, :2] = corners[4:, :2] = one.corners()
    corners[:4, 2] = one.centre[2] - one.size[2] / 2
    corners[4:, 2] = one.centre[2] + one.size[2] / 2
    return corners[_EDGES].reshape(-1, 3)


def _arrow(one: DetectedObject) -> np.ndarray:  # [6, 3] m
    """A shaft, and two strokes for its head."""
    step = one.velocity * FLOW_HORIZON
    side = np.array([-step[1], step[0]])
    tip = one.centre[:2] + step
    ends = [one.centre[:2], tip, tip, tip - 0.25 * step + 0.12 * side]
    ends += [tip, tip - 0.25 * step - 0.12 * side]
    return np.column_stack([np.stack(ends), np.full(6, one.centre[2])])


def _pose(one: DetectedObject) -> Message:
    turn = quaternion((0.0, 0.0, np.sin(one.yaw / 2), np.cos(one.yaw / 2)))
    return new_message(
        "geometry_msgs/msg/Pose", position=vector(POINT, one.centre), orientation=turn
    )


def _probability(one: DetectedObject) -> float:
    return 1.0 if np.isnan(one.confidence) else one.confidence
