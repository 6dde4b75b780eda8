# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""One node, many bags: whatever happens in a recording, the node does what ``alocc run`` does.

The node is a process of its own, over real DDS; it is configured anew for every test.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy", reason="ROS is not installed (make setup)")
pytest.importorskip("alocc_ros.msg", reason="alocc_ros/msg is not built (make setup)")

import tiny_node  # noqa: E402
from conftest import quieten  # noqa: E402
from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402
from feeder import Entry, Feeder, entries, written  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState  # noqa: E402
from live import Stage, ns  # noqa: E402
from PIL import Image  # noqa: E402
from rcl_interfaces.srv import SetParameters  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from std_srvs.srv import SetBool, Trigger  # noqa: E402

from alocc_ros import messages  # noqa: E402
from alocc_ros.bags.cdr import TYPESTORE, instance  # noqa: E402
from alocc_ros.bags.reader import IMAGE_TYPES  # noqa: E402
from alocc_ros.bags.sample import START, write_sample  # noqa: E402
from alocc_ros.cli.main import main  # noqa: E402
from alocc_ros.msg import SemanticGrid  # noqa: E402
from alocc_ros.resources import shared_folder  # noqa: E402
from alocc_ros.ros import transport  # noqa: E402
from alocc_ros.ros.parameters import NodeParameters  # noqa: E402
from alocc_ros.types import CameraImage  # noqa: E402

pytestmark = pytest.mark.system
SECOND = 1_000_000_000  # ns
PERIOD = SECOND // 4  # of the bag
FRAMES = 12
SIZE = (176, 99)
DEFAULTS = dataclasses.asdict(NodeParameters())
# Reports come quickly; poses are there, or never will be.
SETTINGS = {"preset": "nuscenes", "diagnostics_period": 0.05, "tf_timeout": 2.0}


class LiveNode:
    """The node, and what it is given."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self._feeder = Feeder(stage)
        self._given: dict[str, Any] = {}
        stage.start_node("-p", "use_sim_time:=true", "-p", "auto_start:=false", until="")

    def become(self, **parameters: Any) -> None:
        """Configures and activates it with these parameters, as if it had just been started."""
        if self._given:
            self._change(Transition.TRANSITION_DEACTIVATE)
            self._change(Transition.TRANSITION_CLEANUP)
            self._feeder.close()
        defaults = {name: DEFAULTS[name] for name in self._given}
        self._given = {**defaults, **SETTINGS, **parameters}
        new = [Parameter(n, value=v).to_parameter_msg() for n, v in self._given.items()]
        answer = self.stage.call("set_parameters", SetParameters, parameters=new)
        assert all(r.successful for r in answer.results), answer
        self._change(Transition.TRANSITION_CONFIGURE)
        self._change(Transition.TRANSITION_ACTIVATE)
        for topic in ("diagnostics", "voxels"):
            self.stage.messages[topic].clear()
        self.stage.until(lambda: self.stage.status("sets") is not None, "it is not active")

    def feed(self, bag: Path, **options: bool) -> list[SemanticGrid]:
        """What comes of a bag."""
        return self._feeder.feed(bag, **options)

    def _change(self, transition: int) -> None:
        wanted = Transition(id=transition)
        assert self.stage.call("change_state", ChangeState, transition=wanted).success


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    with pytest.MonkeyPatch.context() as patch:
        quieten(patch, tmp_path_factory.mktemp("ros_log"))
        way = transport.decide()
        if way.ours:
            patch.setenv(transport.profile_variable(), str(way.profile))
        stage = Stage("voxels")
        try:
            yield LiveNode(stage)
        finally:
            stage.close()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> list[Entry]:
    """Three seconds at 4 Hz: every second frame is a key frame."""
    path = tmp_path_factory.mktemp("bag") / "sample.mcap"
    write_sample(path, seconds=3.0, rate=SECOND / PERIOD, width=SIZE[0], height=SIZE[1])
    return entries(path)


@pytest.fixture
def offline(tmp_path: Path) -> Callable[..., list[dict[str, np.ndarray]]]:
    """What ``alocc run`` makes of a bag: the NPZs, in order."""

    def run(bag: Path, *arguments: str) -> list[dict[str, np.ndarray]]:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as the node has; with more, sums come in another order
        folder = tmp_path / "npz"
        command = ["run", str(bag), "-o", str(tmp_path / "out.mcap"), "--npz", str(folder)]
        with tiny_node.known():
            assert main([*command, "--model", tiny_node.NAME, "--random-weights", *arguments]) == 0
        torch.set_num_threads(threads)
        return [dict(np.load(path)) for path in sorted(folder.iterdir())]

    return run


def assert_same(outputs: list[SemanticGrid], expected: list[dict[str, np.ndarray]]) -> None:
    assert [ns(m.header.stamp) for m in outputs] == [int(e["stamp"]) for e in expected]
    assert [m.status.reset for m in outputs] == [str(e["reset"]) for e in expected]
    assert [m.status.degraded for m in outputs] == [str(e["degraded"]) for e in expected]
    for message, frame in zip(outputs, expected, strict=True):
        np.testing.assert_array_equal(message.labels, frame["labels"].reshape(-1))


# --- bags out of the recorded one --------------------------------------------------------------


def frame_of(entry: Entry) -> int:
    return (entry.log_time - START) // PERIOD


def is_image(entry: Entry) -> bool:
    return entry.type in IMAGE_TYPES


def of_camera(entry: Entry, camera: str) -> bool:
    return entry.topic.startswith(f"/{camera}/")


def changed(entry: Entry, **values: Any) -> Entry:
    """With other fields in the message."""
    return entry._replace(message=dataclasses.replace(entry.message, **values))


def new_header(stamp: int, frame: str) -> Any:
    return instance(messages.header(stamp, frame))


def moved(entry: Entry, log_time: int, stamp: int, east: float = 0.0) -> Entry:
    """Later in the bag and by its stamps, by ns, and taken elsewhere, by m."""
    message = entry.message
    if entry.type.endswith("TFMessage"):
        links = [_moved_link(link, stamp, east) for link in message.transforms]
        message = dataclasses.replace(message, transforms=links)
    else:
        header = new_header(ns(message.header.stamp) + stamp, message.header.frame_id)
        message = dataclasses.replace(message, header=header)
    return entry._replace(log_time=entry.log_time + log_time, message=message)


def _moved_link(link: Any, stamp: int, east: float) -> Any:
    transform = link.transform
    if link.header.frame_id == "map":
        x = transform.translation.x + east
        there = dataclasses.replace(transform.translation, x=x)
        transform = dataclasses.replace(transform, translation=there)
    header = new_header(ns(link.header.stamp) + stamp, link.header.frame_id)
    return dataclasses.replace(link, header=header, transform=transform)


def preset_with(folder: Path, lines: str) -> Path:
    text = (shared_folder("config") / "presets" / "nuscenes.yaml").read_text()
    path = folder / "preset.yaml"
    path.write_text(text + lines)
    return path


# --- what can happen in a bag ------------------------------------------------------------------


def test_gaps_jumps_and_new_calibrations_reset_the_memory_as_in_alocc_run(
    live, recorded, offline, tmp_path
):
    """Time goes back, then 5 s are missing, then the vehicle is elsewhere, then has new lenses."""
    distortion = np.array([-0.3, 0.1, 0.001, -0.002, 0.0])
    static = [e for e in recorded if e.topic == "/tf_static"]
    parts = (  # frames, how much later in the bag (s), how much later by the stamps, where
        ((9, 10, 11), 0, 0, 0.0),
        ((0, 1, 2), 4, 0, 0.0),
        ((3, 4, 5), 9, 5, 0.0),
        ((6, 7, 8), 9, 5, 50.0),
        ((9, 10, 11), 9, 5, 50.0),
    )
    bag = []
    for number, (frames, later, stamps, east) in enumerate(parts):
        for entry in recorded:
            if entry.topic != "/tf_static" and frame_of(entry) in frames:
                entry = moved(entry, later * SECOND, stamps * SECOND, east)
                if number == 4 and entry.topic.endswith("camera_info"):
                    entry = changed(entry, d=distortion)
                bag.append(entry)
    path = written(tmp_path / "events.mcap", [*static, *bag])
    preset = preset_with(tmp_path, "rectified: false\n")
    live.become(preset=str(preset))
    outputs = live.feed(path)
    assert [m.status.reset for m in outputs[::3]] == [
        "first frame",
        "stamp went back",
        "gap in time",
        "pose jumped",
        "calibration changed",
    ]
    assert_same(outputs, offline(path, "--config", str(preset)))


def test_a_camera_of_half_the_rate_is_there_in_every_second_set(live, offline, tmp_path):
    """At 12 Hz, where two thirds of a period lie between the first and the last camera."""
    sample = tmp_path / "sample.mcap"
    write_sample(sample, seconds=1.0, rate=12.0, width=SIZE[0], height=SIZE[1])
    backs = [e.log_time for e in entries(sample) if is_image(e) and of_camera(e, "CAM_BACK")]
    left_out = set(backs[1::2])
    bag = written(
        tmp_path / "half.mcap",
        (e for e in entries(sample) if not (of_camera(e, "CAM_BACK") and e.log_time in left_out)),
    )
    # The set is given up before the next one begins, or that one might supersede it.
    preset = preset_with(tmp_path, "set_timeout_s: 0.07\n")
    live.become(preset=str(preset))
    outputs = live.feed(bag)
    assert [list(m.status.missing_cameras) for m in outputs] == [[], ["cam_back"]] * 6
    assert_same(outputs, offline(bag, "--config", str(preset)))


def test_poses_too_far_apart_are_refused_as_in_alocc_run(live, recorded, offline, tmp_path):
    """All poses are there before the first image, but for 1.25 s there is none."""
    gap = range(4, 9)
    bag = [
        e._replace(log_time=START - SECOND + frame_of(e)) if e.topic == "/tf" else e
        for e in recorded
        if not (e.topic == "/tf" and frame_of(e) in gap)
    ]
    path = written(tmp_path / "gap.mcap", bag)
    live.become()
    outputs = live.feed(path)
    stamps = [ns(m.header.stamp) for m in outputs]
    assert [(s - START) // PERIOD for s in stamps] == [f for f in range(FRAMES) if f not in gap]
    assert live.stage.values("sets")["failed: PoseError"] == str(len(gap))
    assert_same(outputs, offline(path))


def test_a_pose_is_extrapolated_as_far_as_the_preset_allows_as_in_alocc_run(
    live, recorded, offline, tmp_path
):
    """The poses end 0.2 s before the last set but one."""
    bag = [e for e in recorded if e.topic != "/tf" or frame_of(e) < FRAMES - 2]
    path = written(tmp_path / "early.mcap", bag)
    preset = preset_with(tmp_path, "pose_extrapolation_s: 0.3\n")
    live.become(preset=str(preset), tf_timeout=0.1)
    outputs = live.feed(path)
    assert len(outputs) == FRAMES - 1
    assert_same(outputs, offline(path, "--config", str(preset)))


def test_a_camera_that_dies_and_returns_is_done_without_and_named(live, recorded, tmp_path):
    static = [e for e in recorded if e.topic == "/tf_static"]

    def part(number: int, *, is_dead: bool) -> Path:
        frames = range(4 * number, 4 * number + 4)
        some = [e for e in recorded if e.topic != "/tf_static" and frame_of(e) in frames]
        some = [e for e in some if not (is_dead and is_image(e) and of_camera(e, "CAM_BACK"))]
        return written(tmp_path / f"{number}.mcap", [*static, *some])

    def missing(outputs: list[SemanticGrid]) -> list[tuple[list[str], int]]:
        return [(list(m.status.missing_cameras), m.status.flags & 1) for m in outputs]

    live.become(stale_after=0.6)
    assert missing(live.feed(part(0, is_dead=False))) == [([], 0)] * 4
    assert missing(live.feed(part(1, is_dead=True))) == [(["cam_back"], 1)] * 4
    camera = "camera cam_back"
    live.stage.until(lambda: live.stage.values(camera)["state"] == "stale", "it is not stale")
    assert "no image for" in live.stage.values(camera)["reason"]
    assert missing(live.feed(part(2, is_dead=False))) == [([], 0)] * 4
    assert live.stage.values(camera)["received"] == "8"


def test_images_that_are_worked_on_when_they_come_give_the_same_voxels(live, recorded, tmp_path):
    """A camera dies after a third of the bag: then sets wait, and what came has time to be seen."""
    end = START + 4 * PERIOD - PERIOD // 2
    dying = (
        e
        for e in recorded
        if not (is_image(e) and of_camera(e, "CAM_BACK") and ns(e.message.header.stamp) > end)
    )
    bag = written(tmp_path / "bag.mcap", dying)
    live.become()
    expected = [*live.feed(bag)]
    assert "early: seen" not in live.stage.values("network")
    live.become(early=True)
    outputs = live.feed(bag)
    assert len(outputs) == FRAMES
    assert sum("cam_back" in m.status.missing_cameras for m in outputs) == FRAMES - 4
    for ours, theirs in zip(outputs, expected, strict=True):
        assert ours.header.stamp == theirs.header.stamp and ours.status == theirs.status
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        np.testing.assert_allclose(ours.flow, theirs.flow, rtol=2**-10, atol=2**-14)
    values = live.stage.values("network")
    assert 0 < int(values["early: recalled"]) < FRAMES, "all but the first may start from a sum"
    assert 0 < int(values["early: seen"]) <= int(values["early: decoded"]) <= 6 * FRAMES
    assert float(values["early_p95_ms"]) > 0.0


def test_poses_that_come_late_are_waited_for(live, recorded, offline, tmp_path):
    """Each after the images of its set."""
    late = [
        e._replace(log_time=e.log_time + 50_000_000) if e.topic == "/tf" else e for e in recorded
    ]
    path = written(tmp_path / "late.mcap", late)
    live.become()
    assert_same(live.feed(path), offline(path))
    assert float(live.stage.values("network")["poses_p50_ms"]) > 1.0


def test_without_ego_poses_it_says_which_and_goes_on_when_they_come(
    live, recorded, offline, tmp_path
):
    blind = (e for e in recorded if e.topic != "/tf" and frame_of(e) < 2)
    whole = written(tmp_path / "whole.mcap", recorded)
    live.become(tf_timeout=1.0)
    assert live.feed(written(tmp_path / "blind.mcap", blind)) == []
    status = live.stage.status("network")
    assert status.level == DiagnosticStatus.ERROR
    assert "no transform of base_link in map" in status.message
    assert live.stage.values("sets")["failed: PoseError"] == "2"
    assert_same(live.feed(whole), offline(whole))
    assert live.stage.status("network").level == DiagnosticStatus.OK


def test_raw_best_effort_images_and_odometry_give_the_same(live, recorded, offline, tmp_path):
    raw = written(tmp_path / "raw.mcap", raw_with_odometry(recorded))
    preset = preset_with(tmp_path, "ego_pose_source: odometry\nodometry_topic: /odom\n")
    live.become(preset=str(preset))
    outputs = live.feed(raw, best_effort=True)
    assert live.stage.values("camera cam_back")["type"] == "sensor_msgs/msg/Image"
    assert_same(outputs, offline(written(tmp_path / "whole.mcap", recorded)))


def raw_with_odometry(recorded: list[Entry]) -> Iterator[Entry]:
    """Decoded images, mounts on /tf_static only, and ego poses on /odom."""
    new = lambda name, **values: TYPESTORE.types[name](**values)  # noqa: E731
    for entry in recorded:
        message, kind = entry.message, entry.type
        if entry.topic == "/tf":
            motion = next(link for link in message.transforms if link.header.frame_id == "map")
            there, turn = motion.transform.translation, motion.transform.rotation
            point = new("geometry_msgs/msg/Point", x=there.x, y=there.y, z=there.z)
            still = new("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=0.0)
            pose = new("geometry_msgs/msg/Pose", position=point, orientation=turn)
            twist = new("geometry_msgs/msg/Twist", linear=still, angular=still)
            zeros = np.zeros(36)
            odometry = new(
                "nav_msgs/msg/Odometry",
                header=motion.header,
                child_frame_id=motion.child_frame_id,
                pose=new("geometry_msgs/msg/PoseWithCovariance", pose=pose, covariance=zeros),
                twist=new("geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=zeros),
            )
            yield Entry(entry.log_time, "/odom", "nav_msgs/msg/Odometry", odometry)
            continue
        if is_image(entry):
            pixels = np.asarray(Image.open(io.BytesIO(message.data)))
            height, width = pixels.shape[:2]
            stamp, frame = ns(message.header.stamp), message.header.frame_id
            image = CameraImage("", stamp, pixels.tobytes(), "rgb8", height, width, 3 * width)
            made = messages.image(image, frame)
            kind, message = made.type, instance(made)
        yield entry._replace(type=kind, message=message)


def test_the_crop_follows_the_horizon_and_mosaics_become_colours_as_in_alocc_run(
    live, recorded, offline, tmp_path
):
    """One camera looks up; another sends its mosaic in a gray JPEG, which `format` says."""
    bag = []
    for entry in (e for e in recorded if e.topic == "/tf_static" or frame_of(e) < 3):
        if of_camera(entry, "CAM_BACK") and entry.topic.endswith("camera_info"):
            k = np.array(entry.message.k)
            k[5] -= 25.0
            entry = changed(entry, k=k)
        elif of_camera(entry, "CAM_FRONT_LEFT") and is_image(entry):
            gray = Image.open(io.BytesIO(entry.message.data)).convert("L")
            packed = io.BytesIO()
            gray.crop((0, 0, 176, 98)).resize(SIZE).save(packed, "JPEG", quality=95)
            data = np.frombuffer(packed.getvalue(), np.uint8)
            kind = "bayer_rggb8; jpeg compressed bayer_rggb8"
            entry = changed(entry, data=data, format=kind)
        bag.append(entry)
    path = written(tmp_path / "other.mcap", bag)
    live.become()
    outputs = live.feed(path)
    assert len(outputs) == 3 and not any(m.status.degraded for m in outputs)
    assert_same(outputs, offline(path))


def test_a_second_clock_is_reported(live):
    live.become()
    node = live.stage.node
    second = node.create_publisher(Clock, "/clock", 10)
    text = "2 publish /clock, and time jumps between them: /stage, /stage"
    live.stage.until(lambda: text in live.stage.status("sets").message, "nothing is said of two")
    live.stage.do(lambda: node.destroy_publisher(second))
    live.stage.until(lambda: text not in live.stage.status("sets").message, "it is still said")


def test_images_that_cannot_be_used_are_named_with_the_reason_and_done_without(
    live, recorded, tmp_path
):
    raw = CameraImage("", 0, bytes(4 * SIZE[0] * SIZE[1]), "32FC1", SIZE[1], SIZE[0], 4 * SIZE[0])

    def spoilt(entry: Entry) -> Entry:
        message = entry.message
        if of_camera(entry, "CAM_BACK") and is_image(entry):
            image = dataclasses.replace(raw, stamp=ns(message.header.stamp))
            made = messages.image(image, message.header.frame_id)
            return entry._replace(type=made.type, message=instance(made))
        if of_camera(entry, "CAM_BACK_LEFT") and entry.topic.endswith("camera_info"):
            return changed(entry, width=2 * SIZE[0], height=2 * SIZE[1])
        if of_camera(entry, "CAM_BACK_RIGHT") and is_image(entry):
            return changed(entry, header=new_header(0, message.header.frame_id))
        return entry

    path = written(tmp_path / "spoilt.mcap", map(spoilt, recorded))
    live.become()
    outputs = live.feed(path)
    spoilt_ones = ["cam_back", "cam_back_left", "cam_back_right"]
    assert [list(m.status.missing_cameras) for m in outputs] == [spoilt_ones] * FRAMES
    reasons = {}
    for camera in spoilt_ones:
        status = live.stage.status(f"camera {camera}")
        assert status.level == DiagnosticStatus.ERROR
        assert live.stage.values(f"camera {camera}")["state"] == "rejected"
        reasons[camera] = live.stage.values(f"camera {camera}")["reason"]
    assert "encoding '32FC1' is not supported" in reasons["cam_back"]
    assert "176x99 pixels, its calibration is for 352x198" in reasons["cam_back_left"]
    assert "stamp_source: receive" in reasons["cam_back_right"]
    assert live.stage.values("camera cam_front")["state"] == "active"

    later = [moved(e, 10 * SECOND, 10 * SECOND) for e in recorded if frame_of(e) < 4]
    outputs = live.feed(written(tmp_path / "good.mcap", later))
    assert [list(m.status.missing_cameras) for m in outputs] == [[]] * 4
    for camera in spoilt_ones:
        assert live.stage.values(f"camera {camera}")["state"] == "active"


def test_images_without_stamps_can_be_taken_at_their_arrival(live, recorded, tmp_path):
    zero = [
        changed(e, header=new_header(0, e.message.header.frame_id)) if is_image(e) else e
        for e in recorded
    ]
    live.become(stamp_source="receive")
    outputs = live.feed(written(tmp_path / "zero.mcap", zero))
    assert len(outputs) == FRAMES
    assert all(m.status.missing_cameras == [] for m in outputs)
    frames = [(ns(m.header.stamp) - START + PERIOD // 2) // PERIOD for m in outputs]
    assert frames == list(range(FRAMES))


def test_the_grid_can_lie_in_another_frame_as_in_alocc_run(live, recorded, offline, tmp_path):
    lidar = np.eye(4)
    lidar[:3, :3] = [[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    lidar[:3, 3] = (0.9, 0.0, 1.8)
    mounts = messages.transforms(START, [("base_link", "LIDAR_TOP", lidar)])
    static = next(e for e in recorded if e.topic == "/tf_static")
    path = written(tmp_path / "lidar.mcap", [*recorded, static._replace(message=instance(mounts))])
    live.become(grid_frame="LIDAR_TOP")
    outputs = live.feed(path)
    assert {m.header.frame_id for m in outputs} == {"LIDAR_TOP"}
    assert_same(outputs, offline(path, "--grid-frame", "LIDAR_TOP"))


def test_it_can_be_switched_off_and_on_and_made_to_forget(live, recorded, tmp_path):
    static = [e for e in recorded if e.topic == "/tf_static"]
    parts = [
        written(
            tmp_path / f"{number}.mcap",
            [*static, *(e for e in recorded if e.topic != "/tf_static" and frame_of(e) in frames)],
        )
        for number, frames in enumerate(((0, 1), (2, 3), (4, 5), (6, 7)))
    ]
    live.become()
    assert [m.status.reset for m in live.feed(parts[0])] == ["first frame", ""]
    assert live.stage.call("enable", SetBool, data=False).success
    assert live.feed(parts[1]) == []
    assert live.stage.values("sets")["ignored"] == "2"
    assert live.stage.call("enable", SetBool, data=True).success
    assert [m.status.reset for m in live.feed(parts[2])] == ["", ""]
    assert live.stage.call("reset", Trigger).success
    assert [m.status.reset for m in live.feed(parts[3])] == ["reset on request", ""]
    assert live.stage.values("network")["reset: reset on request"] == "1"
