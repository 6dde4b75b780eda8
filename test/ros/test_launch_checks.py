# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What launch files look for before they start anything; needs neither launch nor rclpy."""

from __future__ import annotations

import re

import pytest

from alocc_ros.bags.sample import write_sample
from alocc_ros.errors import AloccError, ParameterError
from alocc_ros.ros import launch_arguments, launch_checks


def given(**values: str) -> dict[str, str]:
    """Arguments of alocc.launch.py."""
    defaults = {name: default or "" for name, default, _ in launch_arguments.NODE}
    return {**defaults, "model": "alocc_2d_mini", "random_weights": "true", **values}


def test_what_is_there_passes():
    parameters, preset = launch_checks.rig(given(preset="awsim", decode="fast"))
    assert (parameters.decode, parameters.random_weights, preset.name) == ("fast", True, "awsim")
    assert launch_checks.rig(given(namespace="/a/b_1"))[0].model == "alocc_2d_mini"


def test_all_that_is_wrong_with_a_node_is_told_at_once(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    wrong = {"preset": "nuscens", "calibration_file": f"{tmp_path}/none", "model": "none_such"}
    with pytest.raises(ParameterError, match="did you mean 'nuscenes'.*; .*none_such"):
        launch_checks.rig(given(**wrong))
    with pytest.raises(ParameterError, match="weights of alocc_2d_mini are not here"):
        launch_checks.rig(given(random_weights=""))
    with pytest.raises(AloccError, match=re.escape(f"{tmp_path}/none")):
        launch_checks.rig(given(calibration_file=f"{tmp_path}/none"))
    with pytest.raises(ParameterError, match="precision must be one of"):
        launch_checks.rig(given(precision="fp12"))


@pytest.mark.parametrize(
    ("name", "value"),
    [("namespace", "a b"), ("rviz", "ture"), ("respawn", "x"), ("use_sim_time", "maybe")],
)
def test_a_value_that_an_argument_cannot_have_is_named(name, value):
    arguments = given(**{name: value})
    with pytest.raises(ParameterError, match=f"{name}:={value} "):
        if name == "namespace":
            launch_checks.rig(arguments)
        elif name == "use_sim_time":
            launch_arguments.sim_time(arguments)
        else:
            launch_arguments.is_true(arguments, name)


@pytest.mark.parametrize("rate", ["0", "-1", "fast", "inf", "nan"])
def test_a_bag_is_not_played_at_such_a_rate(rate):
    with pytest.raises(ParameterError, match=f"rate:={rate} must be a number above 0"):
        launch_checks.bag(given(rate=rate))


def test_a_bag_must_be_there_and_whole(tmp_path):
    with pytest.raises(AloccError, match="there is no bag"):
        launch_checks.bag(given(bag=f"{tmp_path}/none"))
    (tmp_path / "damaged.mcap").write_bytes(b"\x89MCAP0\r\n nothing more")
    with pytest.raises(AloccError, match="damaged.mcap"):
        launch_checks.bag(given(bag=f"{tmp_path}/damaged.mcap"))
    write_sample(tmp_path / "good.mcap", seconds=0.5, rate=2.0, width=16, height=9)
    launch_checks.bag(given(bag=f"{tmp_path}/good.mcap"))


@pytest.mark.parametrize(
    ("section", "applies"),
    [
        ("/**", True),
        ("/**/alocc_node", True),
        ("/*/alocc_node", True),
        ("/car/alocc_node", True),
        ("alocc_node", False),  # only the one without a namespace
        ("/**/other", False),
    ],
)
def test_a_file_of_parameters_is_read_as_rcl_reads_it(tmp_path, section, applies):
    file = tmp_path / "node.yaml"
    text = "{ros__parameters: {preset: awsim, tf_timeout: 1e-1, qos_overrides: {/a: 1}}}"
    file.write_text(f"{section}: {text}\n")
    arguments = given(params_file=str(file), namespace="car")
    parameters = launch_checks.node_parameters(arguments)
    assert parameters.preset == ("awsim" if applies else "nuscenes")
    assert parameters.tf_timeout == (0.1 if applies else 0.2)
    assert launch_checks.node_parameters({**arguments, "preset": "carla"}).preset == "carla"
    file.write_text(f"car: {{alocc_node: {text}}}\n")
    assert launch_checks.node_parameters(arguments).preset == "awsim"


@pytest.mark.parametrize("text", ["a: [", "\udcff", None])
def test_a_file_of_parameters_that_cannot_be_read_is_named(tmp_path, text):
    file = tmp_path / "node.yaml"
    if text is not None:
        file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ParameterError, match=f"params_file:={re.escape(str(file))} cannot be read"):
        launch_checks.node_parameters(given(params_file=str(file)))


def test_a_program_that_is_missing_is_named_with_what_asks_for_it(monkeypatch, tmp_path):
    pytest.importorskip("ament_index_python")
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    with pytest.raises(ParameterError) as caught:
        launch_checks.programs(given(rviz="true", foxglove="true"))
    assert str(caught.value).split("; ") == [
        "alocc_ros is not installed here",
        "build it: colcon build --packages-select alocc_ros",
        "rviz2 is not installed here",
        "rviz:=true needs it: apt-get install ros-jazzy-rviz2, or leave rviz:=true out",
        "foxglove_bridge is not installed here",
        "foxglove:=true needs it: apt-get install ros-jazzy-foxglove-bridge, "
        "or leave foxglove:=true out",
    ]


def test_rigs_share_one_value_or_have_one_each():
    defaults = {name: default or "" for name, default, _ in launch_arguments.MULTI}
    arguments = {**defaults, "namespaces": "a, b", "model": "m", "preset": "x,y"}
    one, two = launch_arguments.rigs(arguments)
    assert [(r["namespace"], r["model"], r["preset"]) for r in (one, two)] == [
        ("a", "m", "x"),
        ("b", "m", "y"),
    ]
    with pytest.raises(ParameterError, match="2, one for each"):
        launch_arguments.rigs({**arguments, "device": "cpu,cpu,cpu"})
    for namespaces in ("", "a,a"):
        with pytest.raises(ParameterError, match="must be different names"):
            launch_arguments.rigs({**arguments, "namespaces": namespaces})


@pytest.mark.parametrize("height", ["high", "inf", "nan", ""])
def test_a_height_is_a_number(height):
    with pytest.raises(ParameterError, match=f"eye_height:={height} must be a number$"):
        launch_arguments.number({"eye_height": height}, "eye_height")


def test_autoware_takes_the_time_from_the_clock_only_if_told():
    defaults = {name: default or "" for name, default, _ in launch_arguments.AUTOWARE}
    assert not launch_arguments.sim_time(defaults)
    assert not launch_arguments.sim_time(defaults | {"use_sim_time": ""})
    assert launch_arguments.sim_time(defaults | {"use_sim_time": "true"})
