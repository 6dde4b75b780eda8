# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The numbers of a run: ``log.jsonl``, one line a report, and TensorBoard where it is installed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from alocc_ros.files import refuse_link, whole_file


class RunLog:
    """Appends; on resuming, what was written after the checkpoint is taken back.

    Attributes:
        tensorboard: whether TensorBoard's files are written too.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        self._path = folder / "log.jsonl"
        refuse_link(self._path)
        self._cut(first_step)
        self._file = self._path.open("a", encoding="utf-8")
        self.tensorboard = find_spec("tensorboard") is not None
        self._writer = None
        if self.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step, by name such as ``loss/mask``."""
        print(json.dumps({"step": step, **values}), file=self._file, flush=True)
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Everything is on the disk."""
        self._file.close()
        if self._writer is not None:
            self._writer.close()

    def _cut(self, first_step: int) -> None:
        if not self._path.exists():
            return
        kept = []
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                step = json.loads(line)["step"]
            except (ValueError, KeyError, TypeError):
                continue  # the last line of a run that was killed
            if step < first_step:
                kept.append(line + "\n")
        with whole_file(self._path) as scratch:
            scratch.write_text("".join(kept), encoding="utf-8")
