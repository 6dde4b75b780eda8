# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""An executor that one failing callback does not end, and that counts what failed.

rclpy raises what a callback raises out of ``spin``: one message that a callback did not expect
would silence everything else that the node does.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

from rclpy.executors import (
    ConditionReachedException,
    ShutdownException,
    SingleThreadedExecutor,
    TimeoutException,
)

LIMIT = 10  # failures of one callback in a row: no bad message, but a defect


class GuardedExecutor(SingleThreadedExecutor):
    """Runs callbacks in the thread that calls ``spin_once``, and goes on after errors.

    Attributes:
        failed: exceptions by callback, such as ``/clock: ValueError``.
    """

    def __init__(
        self,
        *,
        on_failure: Callable[[str, str], None],
        on_limit: Callable[[str], None],
        **options: Any,
    ) -> None:
        """Makes it.

        Args:
            on_failure: gets each failure, as ``callback: kind of error`` and the whole story.
            on_limit: gets the callback that has failed ``LIMIT`` times in a row.
            options: as of ``SingleThreadedExecutor``.
        """
        super().__init__(**options)
        self.failed: Counter[str] = Counter()
        self._on_failure, self._on_limit = on_failure, on_limit
        self._in_a_row: Counter[Any] = Counter()

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Runs the next callback, if one is ready within ``timeout_sec``; raises nothing of it."""
        try:
            task, entity, _ = self.wait_for_ready_callbacks(timeout_sec)
        except (ShutdownException, TimeoutException, ConditionReachedException):
            return
        task()
        error = task.exception()
        if error is None:
            if self._in_a_row:
                self._in_a_row.pop(entity, None)
            return
        _release(entity)
        name = _name(entity)
        what = f"{name}: {type(error).__name__}"
        self.failed[what] += 1
        self._in_a_row[entity] += 1
        story = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        self._on_failure(what, story.strip())
        if self._in_a_row[entity] >= LIMIT:
            del self._in_a_row[entity]
            self._on_limit(name)


def _release(entity: Any) -> None:
    """Lets an entity run again whose message could not even be taken.

    rclpy marks it as busy, with all of its callback group, and takes the mark off only after a
    message was taken: without this, the node would never hear from any of them again.
    """
    if getattr(entity, "_executor_event", False):
        entity._executor_event = False
        if entity.callback_group is not None:
            entity.callback_group.ending_execution(entity)


def _name(entity: Any) -> str:
    """What a reader of a log can do something with: topic, service or function."""
    for attribute in ("topic_name", "srv_name"):
        if name := getattr(entity, attribute, ""):
            return name
    callback = getattr(entity, "callback", None)
    return getattr(callback, "__qualname__", "") or type(entity).__name__
