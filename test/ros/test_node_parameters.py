# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import dataclasses

import pytest

from alocc_ros.errors import ParameterError
from alocc_ros.ros.parameters import DeclaredParameters, NodeParameters, check


def test_what_is_not_given_has_its_default():
    assert check({"model": "alocc_2d"}) == NodeParameters(model="alocc_2d")


def test_a_whole_number_does_for_a_number_but_not_for_a_flag():
    assert check({"model": "m", "max_rate_hz": 5}).max_rate_hz == 5.0
    with pytest.raises(ParameterError, match="markers must be true or false, is 1"):
        check({"model": "m", "markers": 1})


def test_all_that_is_wrong_is_told_at_once():
    wrong = {
        "backend": "quick",
        "tf_timeout": 99.0,
        "min_cameras": 2.5,
        "max_rate_hz": float("nan"),
        "preset": 7,
    }
    with pytest.raises(ParameterError) as caught:
        check(wrong)
    assert str(caught.value).split("; ") == [
        "model must be given: a name of `alocc models list`, or a file",
        "backend must be one of auto, eager, reference, compiled, graph, tensorrt, twin, is "
        "'quick'",
        "preset must be text, is 7",
        "min_cameras must be a whole number, is 2.5",
        "tf_timeout must be 0 to 10 s, is 99",
        "max_rate_hz must be a finite number, is nan",
    ]


def test_every_default_but_the_model_is_allowed():
    check(dataclasses.asdict(NodeParameters()) | {"model": "m"})


# --- in a node ------------------------------------------------------------------------------


@pytest.fixture
def node(request):
    rclpy = pytest.importorskip("rclpy")
    context = rclpy.Context()
    arguments = ["--ros-args", *(a for p in request.param for a in ("-p", p))]
    rclpy.init(args=arguments, context=context, domain_id=201)
    made = rclpy.create_node("parameters_test", context=context)
    yield made
    made.destroy_node()
    rclpy.shutdown(context=context)


def given(*parameters: str):
    return pytest.mark.parametrize("node", [parameters], indirect=True)


@given("model:=alocc_2d", "max_rate_hz:=5", "max_rate_h:=3.0", "use_sim_time:=true")
def test_a_node_reads_what_it_was_given_and_names_what_it_does_not_know(node):
    parameters = DeclaredParameters(node)
    assert parameters.read() == NodeParameters(model="alocc_2d", max_rate_hz=5.0)
    assert parameters.unknown() == ["max_rate_h (did you mean max_rate_hz?)"]


@given("tf_timeout:=-1.0", "min_cameras:=9", "decode:=fats", "model:=m")
def test_wrong_values_let_the_node_live_until_they_are_mended(node):
    from rclpy.parameter import Parameter

    parameters = DeclaredParameters(node)
    with pytest.raises(ParameterError) as caught:
        parameters.read()
    assert str(caught.value).split("; ") == [
        "decode must be one of exact, fast, gpu, is 'fats'",
        "min_cameras must be 0 to 6, is 9",
        "tf_timeout must be 0 to 10 s, is -1.0",
    ]
    mended = [
        Parameter("tf_timeout", value=0.3),
        Parameter("min_cameras", value=2),
        Parameter("decode", value="fast"),
    ]
    assert all(result.successful for result in node.set_parameters(mended))
    assert parameters.read() == NodeParameters(
        model="m", tf_timeout=0.3, min_cameras=2, decode="fast"
    )


@given("model:=m")
def test_a_wrong_or_late_change_is_refused_with_the_reason(node):
    from rclpy.parameter import Parameter

    parameters = DeclaredParameters(node)
    (result,) = node.set_parameters([Parameter("decode", value="slow")])
    assert result.reason == "decode must be one of exact, fast, gpu, is 'slow'"
    changes: list[NodeParameters] = []
    parameters.on_change = changes.append
    (result,) = node.set_parameters([Parameter("decode", value="fast")])
    assert result.reason == (
        "decode takes effect when the node is configured: clean the node up first"
    )
    (result,) = node.set_parameters([Parameter("max_points", value=[1, 2])])
    assert result.reason.startswith("max_points must be a whole number, is ")
    assert parameters.read().decode == "exact" and changes == []
    # What others declare meanwhile, such as qos_overrides of a subscription, is theirs.
    assert node.declare_parameter("qos_overrides./a.subscription.depth", 3).value == 3
    unknown = [Parameter("max_point", value=7)]
    says = "nobody reads the parameter max_point (did you mean max_points?)"
    assert parameters.refusal(unknown) == says
    parameters.on_change = None
    (result,) = node.set_parameters([Parameter("decode", value="fast")])
    assert result.successful and parameters.read().decode == "fast"


@given("model:=m")
@pytest.mark.parametrize("has_post_set", [True, False])
def test_what_is_live_is_handed_over_at_once(node, has_post_set, monkeypatch):
    from rclpy.node import Node
    from rclpy.parameter import Parameter

    if not has_post_set:  # Humble
        monkeypatch.delattr(Node, "add_post_set_parameters_callback", raising=False)
    parameters = DeclaredParameters(node)
    changes: list[NodeParameters] = []
    parameters.on_change = changes.append
    both = [Parameter("max_points", value=7), Parameter("max_rate_hz", value=2)]
    assert node.set_parameters_atomically(both).successful
    assert changes == [NodeParameters(model="m", max_points=7, max_rate_hz=2.0)]
    refused = node.set_parameters_atomically([*both, Parameter("device", value="cpu")])
    assert refused.reason.startswith("device takes effect when the node is configured")
    assert len(changes) == 1


@given("model:=m")
def test_tools_are_told_meaning_unit_and_bounds(node):
    DeclaredParameters(node)
    descriptor = node.describe_parameter("tf_timeout")
    assert descriptor.description.endswith("[s]")
    assert descriptor.floating_point_range[0].to_value == 10.0
    assert node.describe_parameter("decode").additional_constraints == (
        "one of exact, fast, gpu; takes effect when the node is configured"
    )
    live = {f.name for f in dataclasses.fields(NodeParameters) if f.metadata["live"]}
    at_once = {
        name
        for name in dataclasses.asdict(NodeParameters())
        if node.describe_parameter(name).additional_constraints == "takes effect at once"
    }
    assert at_once == live
    assert {"max_rate_hz", "max_points", "obstacle_height", "markers", "confidence"} <= live
    assert {"stale_after", "min_cameras", "set_timeout"} <= live
