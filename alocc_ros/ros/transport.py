# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""How images travel between processes: whether our Fast DDS profile is used, and why not.

Fast DDS reads the profile when a process makes its first participant, so ``prepare`` comes
before ``rclpy.init``. Nothing here needs ROS.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import os
import re
import time
from collections.abc import MutableMapping
from dataclasses import dataclass, replace
from pathlib import Path

from alocc_ros.errors import AloccError
from alocc_ros.resources import shared_folder

# Read by Fast DDS 2 (Humble to Jazzy) and by Fast DDS 3, which warns of the first.
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
# Other ways in which users choose their transports.
_OTHER_VARIABLES = ("FASTDDS_BUILTIN_TRANSPORTS", "ROS_DISCOVERY_SERVER")

SHARED_MEMORY = Path("/dev/shm")
# A segment and the lock that its process holds for as long as it lives.
SEGMENT = re.compile(r"fast(dds|rtps)_[0-9a-f]{16}")
_LOCK = "_el"
STARTING = 10.0  # s; between making the two a process is left alone

# Publisher and node take a segment each; a viewer and a recorder may come.
_PROCESSES = 4


@dataclass(frozen=True)
class Transport:
    """Which profile is in force, and why.

    Attributes:
        profile: the XML file in force, or None.
        ours: True if it is the one of this package.
        reason: one sentence for people.
        remedy: what to do about it, or empty if all is well.
        freed: bytes of shared memory that killed processes had left; ``prepare`` freed them.
    """

    profile: Path | None
    ours: bool
    reason: str
    remedy: str = ""
    freed: int = 0

    @property
    def news(self) -> str:
        """One line for the log, or empty."""
        if not self.freed:
            return ""
        return f"freed {self.freed / 1e6:.0f} MB of shared memory that killed processes had left"


def prepare(environment: MutableMapping[str, str] = os.environ) -> Transport:
    """Sets the profile in ``environment`` if nothing speaks against it; frees abandoned memory."""
    decision = replace(decide(environment), freed=remove_abandoned_segments())
    if decision.ours:
        environment[profile_variable()] = str(decision.profile)
    return decision


def profile_variable() -> str:
    """The variable that the Fast DDS of this installation reads."""
    try:
        major = int(importlib.metadata.version("rclpy").partition(".")[0])
    except importlib.metadata.PackageNotFoundError:
        return PROFILE_VARIABLES[1]
    return PROFILE_VARIABLES[0 if major < 9 else 1]


def decide(environment: MutableMapping[str, str] = os.environ) -> Transport:
    """What ``prepare`` would do, without doing it."""
    rmw = environment.get("RMW_IMPLEMENTATION") or "rmw_fastrtps_cpp"
    if not rmw.startswith("rmw_fastrtps"):
        return Transport(None, False, f"{rmw} is chosen; the profile is for Fast DDS")
    try:
        ours = shared_folder("config") / "fastdds_shm.xml"
    except AloccError as error:
        return Transport(None, False, str(error), "install the package again")
    for variable in PROFILE_VARIABLES:
        theirs = environment.get(variable)
        if theirs and Path(theirs) != ours:
            if not Path(theirs).is_file():
                remedy = f"unset {variable}, or write that file"
                return Transport(None, False, f"{variable} names {theirs}, no file", remedy)
            return Transport(Path(theirs), False, f"{variable} names your own")
    for variable in _OTHER_VARIABLES:
        if environment.get(variable):
            return Transport(None, False, f"{variable}={environment[variable]} is set by you")
    segment = segment_size(ours)
    total = shared_memory_size()
    if total is None:
        return Transport(None, False, f"there is no {SHARED_MEMORY}", "mount a tmpfs there")
    if total < _PROCESSES * segment:
        return Transport(
            None,
            False,
            f"{SHARED_MEMORY} holds {total / 1e6:.0f} MB, {_PROCESSES} processes need "
            f"{_PROCESSES * segment / 1e6:.0f} MB: large images will get lost",
            f"mount -o remount,size=1G {SHARED_MEMORY} (docker: --shm-size=1g)",
        )
    return Transport(ours, True, "large images go through shared memory")


def close_segments() -> list[Path]:
    """Takes the shared memory that this process holds from other users of the machine.

    Fast DDS makes its segments readable for everybody, whatever the umask is, and has no setting
    for that. To be called once the first node is there; which segments were closed. Processes of
    another user take part by the network as before: they never could write to these.
    """
    with contextlib.suppress(OSError):
        mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
        mine = [p for p in map(Path, sorted(mapped)) if p.parent == SHARED_MEMORY]
        mine = [p for p in mine if SEGMENT.fullmatch(p.name) and p.stat().st_uid == os.getuid()]
        for segment in mine:
            segment.chmod(0o600)
        return mine
    return []


def segment_size(profile: Path) -> int:
    """Bytes of shared memory that a process takes under ``profile`` (0: none asked for)."""
    sizes = re.findall(r"<segment_size>\s*(\d+)\s*</segment_size>", profile.read_text())
    return max(map(int, sizes), default=0)


def shared_memory_size(folder: Path = SHARED_MEMORY) -> int | None:
    """Bytes that ``folder`` can hold, or None if there is no such folder."""
    try:
        info = os.statvfs(folder)
    except OSError:
        return None
    return info.f_frsize * info.f_blocks


def remove_abandoned_segments(folder: Path | None = None) -> int:
    """Frees the shared memory of processes that were killed; bytes freed.

    A process that ends by itself, or by SIGINT or SIGTERM, leaves nothing. One that is killed
    leaves its segment, 140 MB with our profile, until the machine restarts.
    """
    freed = 0
    for segment in abandoned_segments(folder):
        with contextlib.suppress(FileNotFoundError, PermissionError):
            freed += segment.stat().st_blocks * 512
            segment.unlink()
            segment.with_name(segment.name + _LOCK).unlink()
    return freed


def abandoned_segments(folder: Path | None = None) -> list[Path]:
    """Shared memory of Fast DDS whose process is no more."""
    names = sorted((folder or SHARED_MEMORY).glob("fast*_*"))
    return [p for p in names if SEGMENT.fullmatch(p.name) and is_abandoned(p)]


def is_abandoned(segment: Path) -> bool:
    """Whether nobody holds the lock of a segment any more."""
    try:
        if time.time() - segment.stat().st_mtime < STARTING:
            return False
        with segment.with_name(segment.name + _LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except OSError:  # locked by a living process, another user's, or gone already
        return False
