# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Measured values beside their requirements."""

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
        required: in words; empty: nothing is, the value is for information.
        holds: whether the requirement is met; None: there is none.
    """

    name: str
    value: str
    required: str = ""
    holds: bool | None = None


@dataclass(frozen=True)
class Report:
    """A table, and what it was measured on."""

    title: str
    rows: list[Row]
    environment: dict[str, str]

    @property
    def holds(self) -> bool:
        """Whether every requirement is met."""
        return all(row.holds is not False for row in self.rows)

    def as_json(self) -> dict[str, Any]:
        """For programs; the requirement is called ``wanted`` there."""
        rows = [
            {"name": row.name, "value": row.value, "wanted": row.required, "holds": row.holds}
            for row in self.rows
        ]
        return asdict(self) | {"rows": rows, "holds": self.holds}


def environment(middleware: Transport, device: str = "cpu") -> dict[str, str]:
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
    found["middleware"] = f"{get_rmw_implementation_identifier()}, {middleware.reason}"
    found["load of the machine"] = f"{os.getloadavg()[0]:.1f}"
    return found
