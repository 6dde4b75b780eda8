# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The two encoders make the same of a message: objects of rclpy for topics, CDR for recordings."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS is not installed (make setup)")
pytest.importorskip("alocc_ros.msg", reason="alocc_ros/msg is not built (make setup)")

from rclpy.serialization import deserialize_message, serialize_message  # noqa: E402

from alocc_ros import messages  # noqa: E402
from alocc_ros.bags import cdr  # noqa: E402
from alocc_ros.bags.sample import START, ego_pose, jpeg, rig  # noqa: E402
from alocc_ros.errors import ParameterError  # noqa: E402
from alocc_ros.grid import VoxelGrid  # noqa: E402
from alocc_ros.labels import OCC3D  # noqa: E402
from alocc_ros.messages import Message  # noqa: E402
from alocc_ros.outputs import OUTPUTS, Result  # noqa: E402
from alocc_ros.ros.definitions import definition, is_installed, message_class  # noqa: E402
from alocc_ros.ros.encoder import encode  # noqa: E402
from alocc_ros.types import CAMERAS, CameraImage, FrameSet, Occupancy  # noqa: E402

pytestmark = pytest.mark.ros

GRID = VoxelGrid((-4.0, -4.0, -1.0), (20, 20, 8), 0.4)
# Of packages that are not always there, what there is.
INSTALLED = [output for output in OUTPUTS if not output.optional or is_installed(output.type)]
BUILT = [output for output in INSTALLED if output.build is not None]


def result(with_flow: bool = True) -> Result:
    random = np.random.default_rng(0)
    labels = np.where(random.random(GRID.shape) < 0.2, random.integers(0, 17, GRID.shape), 17)
    picture = jpeg(np.full((9, 16, 3), 80, np.uint8))
    images = {c: CameraImage(c, START + 7, picture, "jpeg") for c in CAMERAS[1:]}
    poses = dict.fromkeys(images, ego_pose(START))
    frame = FrameSet(
        START, images, rig(16, 9), ego_pose(START), poses, missing={CAMERAS[0]: "never seen"}
    )
    occupancy = Occupancy(
        labels=labels.astype(np.uint8),
        flow=random.normal(0, 2, (*GRID.shape, 2)).astype(np.float16) if with_flow else None,
        grid=GRID,
        classes=OCC3D,
        stamp=START,
        frame_id="base_link",
        map_T_base=ego_pose(START),
        confidence=random.random(GRID.shape, np.float32),
        degraded="cam_front_left: never seen",
        reset="first frame",
        random_weights=True,
    )
    return Result(frame, occupancy, "mine", "sha256:0123", clear_markers=True)


def assert_equal(message: Message) -> None:
    # Bytes between two fields are anything in a middleware, so each reads what the other wrote.
    kind, sent, recorded = message.type, serialize_message(encode(message)), cdr.encode(message)
    received = cdr.TYPESTORE.deserialize_cdr(sent, kind)
    assert bytes(cdr.TYPESTORE.serialize_cdr(received, kind)) == recorded
    assert deserialize_message(recorded, message_class(kind)) == deserialize_message(
        sent, message_class(kind)
    )


@pytest.mark.parametrize("with_flow", [True, False], ids=["flow", "no flow"])
@pytest.mark.parametrize("output", BUILT, ids=lambda output: output.name)
def test_every_output_is_the_same_on_a_topic_and_in_a_recording(output, with_flow):
    message = output.build(result(with_flow))
    assert message.type == output.type
    assert_equal(message)


@pytest.mark.parametrize(
    "message",
    [
        messages.transforms(START, [("map", "base_link", ego_pose(START))]),
        messages.camera_info(rig(16, 9)["cam_front"], START, "CAM_FRONT"),
        messages.rgb_image(np.arange(24, dtype=np.uint8).reshape(2, 4, 3), START, "CAM_FRONT"),
        messages.image(CameraImage("", START, b"\x89PNG...", "png"), "CAM_FRONT"),
        messages.no_markers(START, "base_link"),
    ],
    ids=lambda message: message.type,
)
def test_what_else_is_published_is_the_same_too(message):
    assert_equal(message)


@pytest.mark.parametrize("type_name", sorted({output.type for output in INSTALLED}))
def test_a_recording_describes_a_type_as_the_installed_class_does(type_name):
    """By fields in order; the texts differ in comments, constants and blanks."""

    def fields(text: str) -> list[str]:
        lines = (line.split("#")[0].split() for line in text.splitlines())
        return [" ".join(w) for w in lines if len(w) == 2 and "=" not in "".join(w)]

    ours, installed = (fields(make(type_name)) for make in (cdr.definition, definition))
    short = lambda lines: sorted(line.rpartition("/")[2] for line in lines)  # noqa: E731
    assert short(ours) == short(installed)


def test_an_image_keeps_its_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    message = encode(messages.rgb_image(pixels[:, ::-1], START, "CAM_FRONT"))
    assert (message.height, message.width, message.step, message.encoding) == (4, 6, 18, "rgb8")
    assert bytes(message.data) == pixels[:, ::-1].tobytes()


def test_a_type_that_is_not_installed_is_named():
    with pytest.raises(ParameterError, match="odd_msgs/msg/Odd is not installed here"):
        encode(Message("odd_msgs/msg/Odd", {}))
