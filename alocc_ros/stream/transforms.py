# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What /tf and /tf_static say, put together: the transform between any two frames."""

from __future__ import annotations

from collections import deque

import numpy as np

from alocc_ros.errors import PoseError
from alocc_ros.geometry import check_rigid, inverse
from alocc_ros.stream.pose_limits import Link, PoseLimits, slow_links
from alocc_ros.stream.trajectory import Trajectory


class TransformTree:
    """Static and dynamic transforms between frames, by name.

    A frame should have one parent; bags in the wild sometimes give it two (a localisation and
    an odometry). Every transform is kept and the shortest chain is taken, so such bags work.
    """

    def __init__(
        self, *, history_ns: int | None = 30_000_000_000, limits: PoseLimits | None = None
    ) -> None:
        """The bounds of every dynamic transform, see ``Trajectory``."""
        self._history_ns, self._limits = history_ns, limits
        self._static: dict[tuple[str, str], np.ndarray] = {}  # (parent, child) -> [4, 4]
        self._dynamic: dict[tuple[str, str], Trajectory] = {}
        self._neighbours: dict[str, list[str]] = {}
        self._chains: dict[tuple[str, str], tuple[str, ...]] = {}
        self.held: dict[Link, tuple[int, int]] = {}

    @property
    def frames(self) -> tuple[str, ...]:
        """All known frames, sorted."""
        return tuple(sorted(self._neighbours))

    def add_static(self, parent: str, child: str, parent_T_child: np.ndarray) -> None:  # [4, 4]
        """A transform of /tf_static; replaces what was known about it.

        Raises:
            PoseError: not a finite rigid transform, or a frame linked to itself.
        """
        pose = check_rigid(parent_T_child, f"static transform of {child} in {parent}")
        self._connect(parent, child)
        self._static[parent, child] = pose

    def add(self, stamp: int, parent: str, child: str, parent_T_child: np.ndarray) -> None:
        """A transform of /tf at ``stamp`` ns. If it is also static, the static one holds.

        Raises:
            PoseError: not a finite rigid transform, no valid stamp, or a frame linked to itself.
        """
        edge = (parent, child)
        trajectory = self._dynamic.get(edge)
        if trajectory is None:
            trajectory = Trajectory(history_ns=self._history_ns, limits=self._limits)
        trajectory.add(stamp, parent_T_child, parent, child)
        self._connect(parent, child)
        self._dynamic[edge] = trajectory

    def knows(self, parent: str, child: str) -> bool:
        """Whether there is any transform of ``child`` in ``parent``."""
        return (parent, child) in self._static or (parent, child) in self._dynamic

    def clear(self) -> None:
        """Time jumped back: forgets all dynamic transforms, keeps the static ones."""
        self._dynamic.clear()
        self._chains.clear()
        self._neighbours.clear()
        for parent, child in self._static:
            self._connect(parent, child)

    def lookup(self, target: str, source: str, stamp: int | None) -> np.ndarray:  # [4, 4]
        """``target_T_source``: maps points of ``source`` into ``target``.

        Args:
            target: frame to map into.
            source: frame to map from.
            stamp: ns; None takes the newest pose of every dynamic transform, which is right for
                the mounts of a rig (some bags repeat them on /tf) and wrong for the vehicle.

        Raises:
            PoseError: naming the frame or the transform that is missing, or the time not covered.
        """
        chain = self._chains.get((target, source))
        if chain is None:
            chain = self._chains[target, source] = self._chain(target, source)
        slow = set() if stamp is None else self._slow(chain)
        target_T_source = np.eye(4)
        for frame, following in zip(chain, chain[1:], strict=False):
            target_T_source = target_T_source @ self._transform(frame, following, stamp, slow)
        return target_T_source

    def _slow(self, chain: tuple[str, ...]) -> set[Link]:
        """The links of a chain that may be held."""
        moving = {
            edge: self._dynamic[edge].stamps
            for pair in zip(chain, chain[1:], strict=False)
            for edge in (pair, pair[::-1])
            if edge in self._dynamic and edge not in self._static
        }
        return slow_links(moving) if len(moving) > 1 else set()

    def _transform(
        self, a: str, b: str, stamp: int | None, slow: set[Link]
    ) -> np.ndarray:  # [4, 4] a_T_b
        for edge, is_inverse in (((a, b), False), ((b, a), True)):
            pose = self._static.get(edge)
            if pose is None and edge in self._dynamic:
                trajectory = self._dynamic[edge]
                if stamp is None:
                    pose = trajectory.latest()
                elif edge in slow:
                    pose, age = trajectory.held(stamp)
                    if age:
                        number, oldest = self.held.get(edge, (0, 0))
                        self.held[edge] = (number + 1, max(oldest, age))
                else:
                    pose = trajectory.at(stamp)
            if pose is not None:
                return inverse(pose) if is_inverse else pose
        raise KeyError((a, b))  # _chain goes along known transforms only

    def _connect(self, parent: str, child: str) -> None:
        if parent == child:
            raise PoseError(f"transform of frame {child!r} in itself")
        neighbours = self._neighbours.setdefault(parent, [])
        if child not in neighbours:
            neighbours.append(child)
            self._neighbours.setdefault(child, []).append(parent)
            self._chains.clear()

    def _chain(self, target: str, source: str) -> tuple[str, ...]:
        """The frames from ``target`` to ``source`` over the fewest transforms."""
        reached: dict[str, str] = {target: target}
        queue = deque([target] if target in self._neighbours else [])
        while queue and source not in reached:
            frame = queue.popleft()
            for neighbour in self._neighbours[frame]:
                if neighbour not in reached:
                    reached[neighbour] = frame
                    queue.append(neighbour)
        if source not in self._neighbours or source not in reached:
            raise PoseError(self._not_linked(target, source, reached))
        chain = [source]
        while chain[-1] != target:
            chain.append(reached[chain[-1]])
        return tuple(reversed(chain))

    def _not_linked(self, target: str, source: str, reached: dict[str, str]) -> str:
        message = f"no transform from {source} to {target}"
        if not self._neighbours:
            return f"{message}: no transform has come in yet"
        unknown = [frame for frame in (source, target) if frame not in self._neighbours]
        if unknown:
            return (
                f"{message}: unknown {' and '.join(unknown)}; frames known: "
                f"{', '.join(self.frames)}"
            )
        return (
            f"{message}: {target} is linked to {', '.join(sorted(set(reached) - {target}))} only; "
            f"frames known: {', '.join(self.frames)}"
        )
