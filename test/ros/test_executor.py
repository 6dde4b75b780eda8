# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""A callback that fails is counted and silences nothing."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("rclpy", reason="ROS is not installed (make setup)")
pytest.importorskip("alocc_ros.msg", reason="alocc_ros/msg is not built (make setup)")

from builtin_interfaces.msg import Time  # noqa: E402
from live import Stage  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from spinning import spin_until  # noqa: E402
from std_msgs.msg import Int32  # noqa: E402

from alocc_ros.ros.executor import LIMIT, GuardedExecutor  # noqa: E402


@pytest.fixture
def guarded(context, node):
    stories, limits = [], []
    executor = GuardedExecutor(
        on_failure=lambda what, story: stories.append((what, story)),
        on_limit=limits.append,
        context=context,
    )
    executor.add_node(node)
    yield executor, stories, limits
    executor.shutdown()


def test_a_callback_that_fails_is_counted_and_called_again(node, guarded):
    executor, stories, limits = guarded
    seen = []

    def on_message(message: Int32) -> None:
        seen.append(message.data)
        if message.data < 0:
            raise ValueError(f"no {message.data}")

    node.create_subscription(Int32, "/numbers", on_message, 50)
    publisher = node.create_publisher(Int32, "/numbers", 50)
    assert spin_until(executor, lambda: publisher.get_subscription_count())
    # One short of the limit, a good one in between, and the count begins anew.
    numbers = [*([-1] * (LIMIT - 1)), 1, *([-2] * (LIMIT - 1)), 2]
    for number in numbers:
        publisher.publish(Int32(data=number))
    assert spin_until(executor, lambda: len(seen) == len(numbers))
    assert executor.failed == {"/numbers: ValueError": 2 * (LIMIT - 1)}
    assert not limits
    assert "no -1" in stories[0][1]
    assert "on_message" in stories[0][1]

    for _ in range(LIMIT):
        publisher.publish(Int32(data=-3))
    assert spin_until(executor, lambda: limits)
    assert limits == ["/numbers"]


def test_a_message_that_cannot_be_taken_blocks_neither_its_topic_nor_the_others(
    node, guarded, monkeypatch
):
    executor, stories, _ = guarded
    numbers, ticks = [], []
    node.create_subscription(Int32, "/numbers", lambda m: numbers.append(m.data), 50)
    node.create_timer(0.01, lambda: ticks.append(1))
    publisher = node.create_publisher(Int32, "/numbers", 50)
    assert spin_until(executor, lambda: publisher.get_subscription_count())
    take = executor._take_subscription
    broken = iter([True])

    def damaged(subscription):
        if next(broken, False):
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no text")
        return take(subscription)

    monkeypatch.setattr(executor, "_take_subscription", damaged)
    publisher.publish(Int32(data=1))
    assert spin_until(executor, lambda: stories)
    before = len(ticks)
    publisher.publish(Int32(data=2))
    assert spin_until(executor, lambda: 2 in numbers and len(ticks) > before, 10.0)


@pytest.mark.system
def test_a_clock_before_1970_stops_nothing_for_longer_than_it_lasts(stage: Stage):
    program = stage.start_node("-p", "use_sim_time:=true")
    clock = stage.do(lambda: stage.node.create_publisher(Clock, "/clock", 10))
    stage.until(lambda: clock.get_subscription_count() > 0, "nobody hears the clock")

    def publish(seconds: int) -> None:
        clock.publish(Clock(clock=Time(sec=seconds)))

    def failed() -> int:
        return sum(int(n) for n in stage.values("callbacks").values())

    publish(-1)
    stage.until(lambda: failed() == 1, "it is not counted")
    assert program.poll() is None
    publish(1)
    stage.messages["diagnostics"].clear()
    stage.until(lambda: stage.status("sets") is not None, "the node is not active any more")

    for _ in range(LIMIT):
        publish(-1)
        time.sleep(0.05)
    stage.until(lambda: stage.status("node") is not None, "the node is not stopped")
    assert "unconfigured; the callback of /clock" in stage.status("node").message
    ended = time.monotonic()
    stage.messages["diagnostics"].clear()
    stage.until(lambda: stage.status("sets") is not None, "the node does not start again")
    assert time.monotonic() - ended < 30.0
    assert program.poll() is None
