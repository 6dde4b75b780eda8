# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The files for Nav2, STVL, OctoMap and Autoware say what those read.

Names of parameters as their sources declare them: a name that nobody reads is dropped by ROS
without a word.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from alocc_ros.outputs import OUTPUTS
from alocc_ros.ros import launch_arguments
from alocc_ros.ros.parameters import check

ROOT = Path(__file__).parents[2]


def names(text: str) -> set[str]:
    return set(text.split())


# ros-navigation/navigation2, nav2_costmap_2d: src/costmap_2d_ros.cpp.
COSTMAP = names("""
    always_send_full_costmap map_vis_z footprint footprint_padding global_frame height width
    lethal_cost_threshold map_topic observation_sources origin_x origin_y plugins filters
    publish_frequency resolution robot_base_frame robot_radius rolling_window track_unknown_space
    transform_tolerance initial_transform_timeout trinary_costmap unknown_cost_value
    update_frequency use_maximum""")
_SOURCE = """topic sensor_frame observation_persistence expected_update_rate data_type
    min_obstacle_height max_obstacle_height inf_is_valid marking clearing"""
# plugins/obstacle_layer.cpp: of the layer, and of each of its sources.
OBSTACLE = names("""
    enabled footprint_clearing_enabled min_obstacle_height max_obstacle_height
    combination_method observation_sources""")
OBSTACLE_SOURCE = names(
    f"{_SOURCE} obstacle_max_range obstacle_min_range raytrace_max_range raytrace_min_range"
)
LAYERS = {
    # plugins/static_layer.cpp
    "nav2_costmap_2d::StaticLayer": names("""
    enabled subscribe_to_updates map_subscribe_transient_local transform_tolerance map_topic
        footprint_clearing_enabled"""),
    "nav2_costmap_2d::ObstacleLayer": OBSTACLE,
    # plugins/voxel_layer.cpp
    "nav2_costmap_2d::VoxelLayer": OBSTACLE
    | names("z_voxels origin_z z_resolution unknown_threshold mark_threshold publish_voxel_map"),
    # plugins/inflation_layer.cpp
    "nav2_costmap_2d::InflationLayer": names(
        "enabled inflation_radius cost_scaling_factor inflate_unknown inflate_around_unknown"
    ),
    # SteveMacenski/spatio_temporal_voxel_layer, src/spatio_temporal_voxel_layer.cpp
    "spatio_temporal_voxel_layer/SpatioTemporalVoxelLayer": names("""
    observation_sources transform_tolerance enabled publish_voxel_map voxel_size
        combination_method mark_threshold update_footprint_enabled track_unknown_space decay_model
        voxel_decay mapping_mode map_save_duration"""),
}
STVL_SOURCE = names(f"""
    {_SOURCE} obstacle_range min_z max_z vertical_fov_angle vertical_fov_padding
    horizontal_fov_angle decay_acceleration filter voxel_min_points clear_after_reading enabled
    model_type""")
# OctoMap/octomap_mapping, branch ros2, octomap_server/src/octomap_server.cpp
OCTOMAP = names("""
    base_frame_id color.a color.b color.g color.r color_factor color_free.a color_free.b
    color_free.g color_free.r colored_map compress_map filter_ground_plane filter_speckles frame_id
    ground_filter.angle ground_filter.distance ground_filter.plane_distance
    incremental_2D_projection latch max_depth min_x_size min_y_size occupancy_max_z occupancy_min_z
    octomap_path point_cloud_max_x point_cloud_max_y point_cloud_max_z point_cloud_min_x
    point_cloud_min_y point_cloud_min_z publish_free_space resolution sensor_model.hit
    sensor_model.max sensor_model.max_range sensor_model.min sensor_model.miss
    use_height_map""")
NAV2 = yaml.safe_load((ROOT / "config" / "nav2_costmap.yaml").read_text())
TYPES = {f"/alocc_node/{o.name}": o.type for o in OUTPUTS}


def costmap(name: str) -> dict[str, Any]:
    return NAV2[name]["local_costmap"]["local_costmap"]["ros__parameters"]


@pytest.mark.parametrize("name", NAV2)
def test_every_parameter_is_one_that_the_costmap_and_its_layers_declare(name):
    parameters = costmap(name)
    plugins = parameters["plugins"]
    assert set(parameters) - COSTMAP == set(plugins)
    for plugin in plugins:
        layer = dict(parameters[plugin])
        kind = layer.pop("plugin")
        sources = layer.get("observation_sources", "").split()
        assert set(layer) - LAYERS[kind] == set(sources), kind
        known = STVL_SOURCE if kind.startswith("spatio") else OBSTACLE_SOURCE
        for source in sources:
            assert set(layer[source]) <= known, source


@pytest.mark.parametrize("name", [n for n in NAV2 if n != "static_layer"])
def test_no_default_defeats_a_source(name):
    """LaserScan, heights of 0 m and ranges of 2.5 m are what a source has that says nothing."""
    layer = costmap(name)["alocc"]
    used = {source: layer[source] for source in layer["observation_sources"].split()}
    assert {s["topic"] for s in used.values() if s["marking"]} == {"/alocc_node/obstacles"}
    clearing = {s["topic"] for s in used.values() if s["clearing"]}
    assert clearing == (set() if name == "stvl" else {"/alocc_node/free_space"})
    for source in used.values():
        assert TYPES[source["topic"]] == "sensor_msgs/msg/PointCloud2"
        assert source["data_type"] == "PointCloud2"
        # Of the obstacles, and the clouds are in metres above the ground of their frame.
        assert source["min_obstacle_height"] < 0.2 and source["max_obstacle_height"] >= 2.5
        ranges = [v for k, v in source.items() if k in ("obstacle_max_range", "obstacle_range")]
        ranges += [v for k, v in source.items() if k == "raytrace_max_range"]
        assert ranges == [40.0]


def test_the_static_layer_gets_what_it_subscribes_to():
    parameters = costmap("static_layer")
    assert parameters["rolling_window"] is True
    layer = parameters["alocc"]
    assert TYPES[layer["map_topic"]] == "nav_msgs/msg/OccupancyGrid"
    assert layer["map_subscribe_transient_local"] is True
    (row,) = (o for o in OUTPUTS if o.name == "occupancy_grid")
    assert row.kept


def test_a_voxel_layer_holds_the_obstacles_and_no_more_bits_than_it_has():
    layer = costmap("voxel_layer")["alocc"]
    assert layer["z_voxels"] <= 16
    assert layer["origin_z"] + layer["z_voxels"] * layer["z_resolution"] >= 2.5


def test_every_parameter_of_octomap_is_one_that_it_declares():
    parameters = yaml.safe_load((ROOT / "config" / "octomap.yaml").read_text())
    (server,) = parameters.values()
    server = server["ros__parameters"]
    assert set(server) <= OCTOMAP
    assert server["resolution"] == 0.4
    # A value of another type ends the server when it declares the parameter.
    assert all(type(v) in (str, bool, float) for v in server.values())


def test_parameters_for_autoware_are_ours_and_right():
    parameters = yaml.safe_load((ROOT / "config" / "autoware_remap.yaml").read_text())
    ours = parameters["/**/alocc_node"]["ros__parameters"]
    checked = check({"model": "m", **ours})
    assert (checked.grid_output_frame, checked.unknown_cost) == ("map", 50)


def constants(file: str) -> dict[str, Any]:
    """Of a launch file, which need not be importable here."""
    body = ast.parse((ROOT / "launch" / file).read_text()).body
    return {s.targets[0].id: ast.literal_eval(s.value) for s in body if isinstance(s, ast.Assign)}


def test_launch_files_name_topics_that_are_there():
    for ours, _ in constants("autoware.launch.py")["REMAPPINGS"]:
        assert ours.replace("~", "/alocc_node") in TYPES
    cloud = {name: default for name, default, _ in launch_arguments.OCTOMAP}
    assert TYPES[cloud["cloud"]] == "sensor_msgs/msg/PointCloud2"
    assert costmap("voxel_layer")["alocc"]["free_space"]["sensor_frame"] == cloud["eye_frame"]


@pytest.mark.parametrize("page", ["nav2", "octomap", "autoware", "voxels", "safety"])
def test_pages_name_parameters_and_topics_that_are_there(page):
    text = (ROOT / "docs" / "integrations" / f"{page}.md").read_text()
    for topic in re.findall(r"`~/([a-z_]+)`", text):
        assert f"/alocc_node/{topic}" in TYPES, topic
    for file in re.findall(r"`((?:config|launch|examples)/[\w./]+)`", text):
        assert (ROOT / file).exists(), file


def test_the_core_of_the_cpp_example_compiles(tmp_path):
    """Over a plain struct, as rclcpp is not here: the types of its fields are those of the .msg."""
    import shutil
    import subprocess

    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ here")
    text = (ROOT / "docs" / "integrations" / "voxels.md").read_text()
    (core,) = re.findall(r"<!-- tested: c\+\+ -->\n```cpp\n(.*?)```", text, re.S)
    struct = """
#include <cstdint>
#include <string>
#include <vector>
struct SemanticGrid {
  struct { struct { int32_t sec; uint32_t nanosec; } stamp; std::string frame_id; } header;
  struct { uint8_t flags; std::vector<std::string> missing_cameras; } status;
  struct { struct { double x, y, z; } origin; double resolution; uint32_t size_x, size_y, size_z; }
    geometry;
  bool has_flow;
  std::vector<uint32_t> flow_cells;
  std::vector<float> flow;
  std::vector<uint8_t> confidence, labels;
};
"""
    file = tmp_path / "core.cpp"
    file.write_text(struct + core)
    command = [compiler, "-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
