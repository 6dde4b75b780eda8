# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What a measurement found, next to what is wanted."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from alocc_ros.ros.transport import Transport


@dataclass(frozen=True)
class Row:
    """One number, or a few that belong together.

    Attributes:
        wanted: in words; empty: it is only told.
        holds: whether it is as wanted; None: nothing is.
    """

    name: str
    value: str
    wanted: str = ""
    holds: bool | None = None


@dataclass(frozen=True)
class Report:
    """A table, and what it was measured on."""

    title: str
    rows: list[Row]
    environment: dict[str, str]

    @property
    def holds(self) -> bool:
        """Whether all is as wanted."""
        return all(row.holds is not False for row in self.rows)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self) | {"holds": self.holds}


def environment(way: Transport, device: str = "cpu") -> dict[str, str]:
    """Hardware and versions that the numbers depend on."""
    from rclpy.utilities import get_rmw_implementation_identifier

    from alocc_ros.bench import timing
    from alocc_ros.runtime.device import resolve_device

    found = timing.environment(resolve_device(device))
    for package in ("rclpy", "Pillow", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    found["middleware"] = f"{get_rmw_implementation_identifier()}, {way.reason}"
    found["load of the machine"] = f"{os.getloadavg()[0]:.1f}"
    return found
