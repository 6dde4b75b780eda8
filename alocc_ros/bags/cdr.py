# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Messages to and from CDR, the bytes of recordings; no ROS installation is needed.

``rosbags`` knows the types of ROS 2 Humble, whose layout later releases kept for all that are
used here; those of this package (``msg/``), which are not installed with its Python side, are
written out below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from alocc_ros.messages import (
    COLOUR,
    FRAME_STATUS,
    FRAME_STATUS_STAMPED,
    GRID_GEOMETRY,
    GRID_INFO,
    POINT,
    SEMANTIC_CLASS,
    SEMANTIC_GRID,
    Colours,
    Message,
    Points,
)
from alocc_ros.objects.encoding import AUTOWARE_OBJECTS, DETECTIONS
from alocc_ros.stream.video import COMPRESSED_VIDEO, FFMPEG_PACKET

# Field by field as in the .msg files.
OWN_TYPES = {
    FRAME_STATUS: """
        uint8 flags
        string degraded
        string reset
        string[] missing_cameras""",
    FRAME_STATUS_STAMPED: """
        std_msgs/Header header
        FrameStatus status""",
    GRID_GEOMETRY: """
        geometry_msgs/Point origin
        float64 resolution
        uint32 size_x
        uint32 size_y
        uint32 size_z""",
    SEMANTIC_CLASS: """
        string name
        std_msgs/ColorRGBA colour
        bool is_free
        bool is_ground
        bool is_obstacle
        bool can_move""",
    GRID_INFO: """
        std_msgs/Header header
        GridGeometry geometry
        SemanticClass[] classes
        string class_list
        bool has_flow
        string model
        string weights_sha256
        bool random_weights
        string version""",
    SEMANTIC_GRID: """
        std_msgs/Header header
        FrameStatus status
        GridGeometry geometry
        bool has_flow
        uint32[] flow_cells
        float32[] flow
        uint8[] confidence
        uint8[] labels""",
}

# Of packages that are seldom installed, as of ROS 2 Humble and later.
_OTHER_TYPES = {
    FFMPEG_PACKET: """
        std_msgs/Header header
        int32 width
        int32 height
        string encoding
        uint64 pts
        uint8 flags
        bool is_bigendian
        uint8[] data""",
    COMPRESSED_VIDEO: """
        builtin_interfaces/Time timestamp
        string frame_id
        uint8[] data
        string format""",
    "vision_msgs/msg/ObjectHypothesis": """
        string class_id
        float64 score""",
    "vision_msgs/msg/ObjectHypothesisWithPose": """
        ObjectHypothesis hypothesis
        geometry_msgs/PoseWithCovariance pose""",
    "vision_msgs/msg/BoundingBox3D": """
        geometry_msgs/Pose center
        geometry_msgs/Vector3 size""",
    "vision_msgs/msg/Detection3D": """
        std_msgs/Header header
        ObjectHypothesisWithPose[] results
        BoundingBox3D bbox
        string id""",
    DETECTIONS: """
        std_msgs/Header header
        Detection3D[] detections""",
    "autoware_perception_msgs/msg/ObjectClassification": """
        uint8 label
        float32 probability""",
    "autoware_perception_msgs/msg/DetectedObjectKinematics": """
        geometry_msgs/PoseWithCovariance pose_with_covariance
        bool has_position_covariance
        uint8 orientation_availability
        geometry_msgs/TwistWithCovariance twist_with_covariance
        bool has_twist
        bool has_twist_covariance""",
    "autoware_perception_msgs/msg/Shape": """
        uint8 type
        geometry_msgs/Polygon footprint
        geometry_msgs/Vector3 dimensions""",
    "autoware_perception_msgs/msg/DetectedObject": """
        float32 existence_probability
        ObjectClassification[] classification
        DetectedObjectKinematics kinematics
        Shape shape""",
    AUTOWARE_OBJECTS: """
        std_msgs/Header header
        DetectedObject[] objects""",
}

TYPESTORE = get_typestore(Stores.ROS2_HUMBLE)
for _name, _definition in (OWN_TYPES | _OTHER_TYPES).items():
    TYPESTORE.register(get_types_from_msg(_definition, _name))


def encode(message: Message) -> bytes:
    """The message as CDR."""
    return bytes(TYPESTORE.serialize_cdr(instance(message), message.type))


def definition(type_name: str) -> str:
    """The text of a type and of all that it is made of (``ros2msg``), as recordings carry it."""
    text, _ = TYPESTORE.generate_msgdef(type_name, ros_version=2)
    return text


def instance(message: Message) -> Any:
    """The message as ``rosbags`` has it."""
    defaults = _defaults(message.type)
    given = {name: _value(value) for name, value in message.fields.items()}
    zeros = {name: zero() for name, zero in defaults.items() if name not in given}
    return TYPESTORE.types[message.type](**given, **zeros)


def _value(value: Any) -> Any:
    if isinstance(value, Message):
        return instance(value)
    if isinstance(value, Points):
        point = TYPESTORE.types[POINT]
        return [point(x=x, y=y, z=z) for x, y, z in value.xyz.tolist()]
    if isinstance(value, Colours):
        colour = TYPESTORE.types[COLOUR]
        palette = [colour(r=r, g=g, b=b, a=1.0) for r, g, b in value.palette.tolist()]
        return [palette[i] for i in value.index.tolist()]
    if isinstance(value, list | tuple):
        return [_value(element) for element in value]
    return value


@cache
def _defaults(type_name: str) -> Mapping[str, Callable[[], Any]]:
    """What makes the zero of each field."""
    _, fields = TYPESTORE.fielddefs[type_name]
    return {name: _zero(*kind) for name, kind in fields}


def _zero(node: Nodetype, content: Any) -> Callable[[], Any]:
    if node is Nodetype.NAME:
        return lambda: instance(Message(content, {}))
    if node is Nodetype.BASE:
        zero = {"string": "", "wstring": "", "bool": False}.get(content[0])
        zero = 0.0 if content[0].startswith("float") else 0 if zero is None else zero
        return lambda: zero
    (element, kind), length = content
    if element is Nodetype.NAME or kind[0] in ("string", "wstring"):
        count = length if node is Nodetype.ARRAY else 0
        return lambda: [_zero(element, kind)() for _ in range(count)]
    size = length if node is Nodetype.ARRAY else 0
    dtype = {"bool": np.bool_, "byte": np.uint8, "char": np.uint8}.get(kind[0], kind[0])
    return lambda: np.zeros(size, dtype)
