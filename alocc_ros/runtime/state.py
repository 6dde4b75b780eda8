# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What one stream remembers, in buffers that stay where they are.

What key frames renew has two buffers: each key frame reads one and writes the other. Features of
reference frames lie in numbered slots (``stream/keyframes.py`` hands out the numbers), which are
made when a number is used for the first time and then used again and again.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from alocc_ros.errors import ModelError, TemporalMemoryError
from alocc_ros.network.model import Alocc, RigConstants, Seen
from alocc_ros.network.plan import FramePlan
from alocc_ros.network.state import KEYFRAME_PARTS, State

_KIND = "alocc_stream_state"


class SumKey(NamedTuple):
    """All that a sum over the remembered volumes depends on.

    Attributes:
        renewed: how often the state had been; so which volumes they are.
        keyframe: the volumes are written moved, too.
        numbers: motion and ages.
    """

    renewed: int
    keyframe: bool
    numbers: bytes


class StreamState:
    """State of one stream through one (prepared) network.

    Attributes:
        ages: [B, T] float32 seconds, of the remembered slots; of recurrent variants [B, 1], how
            long the sequence has been going on. On the host.
        rig: what follows from the rig alone, of the last frame; see ``Alocc.calibrate``.
        begun: whether a key frame has been seen since the last reset.
        seen_of: by camera, the keys of the images whose features lie in ``seen``.
        recalled_of: what the sum in ``recalled`` is of; None: of nothing that can be used.
        recalled_frames: how many frames have started from a sum that was there before them.
    """

    def __init__(self, network: Alocc, samples: int = 1, cameras: int = 6) -> None:
        self._network, self._samples, self._cameras = network, samples, cameras
        self._front: dict[str, Tensor] = {}
        self._back: dict[str, Tensor] = {}
        self._features: dict[int, tuple[Tensor | None, Tensor | None]] = {}
        self.rig: tuple[Tensor, RigConstants] | None = None
        self._seen: Seen | None = None
        self.seen_of: dict[int, object] = {}
        self._recalled: Tensor | None = None
        self.recalled_of: SumKey | None = None
        self.recalled_frames = self._renewed = 0
        self.reset()

    def reset(self) -> None:
        """Forget; the buffers stay. The next frame's plan must be a first one."""
        self.ages = torch.zeros(self._samples, self._network.variant.history)
        self.begun = False
        self._renewed += 1
        self.forget_seen()

    @property
    def seen(self) -> Seen | None:
        """Buffers of what single images gave ahead of their frame; None: never any."""
        return self._seen

    def has_seen(self, camera: int, image: object) -> bool:
        """Whether what lies in the buffers for a camera is of this very image."""
        return image is not None and self.seen_of.get(camera) is image

    def forget_seen(self, but: Collection[object] = ()) -> None:
        """Nothing that was seen is used any more, ``but`` of these images."""
        kept = {id(image) for image in but}
        self.seen_of = {c: image for c, image in self.seen_of.items() if id(image) in kept}

    def mark_seen(self, camera: int, image: object) -> None:
        """What lies in the buffers for a camera is whole, and of this image."""
        self.seen_of[camera] = image

    def unseen(self, seen: Mapping[int, object], images: int) -> list[int]:
        """The cameras that a frame has yet to look at, of which nothing lies here from then on.

        Args:
            seen: by camera, of which image features are to lie here.
            images: number of images that were given for the others.

        Raises:
            TemporalMemoryError: what lies here is of another image.
            ModelError: there are not as many other cameras as images.
        """
        for camera, image in seen.items():
            if not self.has_seen(camera, image):
                raise TemporalMemoryError(f"camera {camera} was not seen, or another image of it")
        cameras = self._samples * self._cameras
        others = [camera for camera in range(cameras) if camera not in seen]
        if seen and len(others) != images:
            raise ModelError(f"{images} images but {cameras} cameras, {len(seen)} seen before")
        if seen:
            for camera in others:
                self.seen_of.pop(camera, None)
        return others

    def store_seen(self, cameras: list[int], seen: Seen) -> None:
        """Copies what was seen of these cameras, in their order, to where it stays."""
        if self._seen is None:
            count = self._samples * self._cameras
            self._seen = Seen(*(_room_for(count, part) for part in seen))
        for buffer, part in zip(self._seen, seen, strict=True):
            for camera, one in zip(cameras, part, strict=True):
                buffer[camera].copy_(one)

    @property
    def recalled(self) -> Tensor | None:
        """Buffer of the sum that was made ahead of a frame, float32; None: never any."""
        return self._recalled

    def sum_key(self, plan: FramePlan) -> SumKey | None:
        """Of the sum that a frame starts from; None: it begins a sequence, or some sample does."""
        if plan.first or plan.has_history is not None:
            return None
        return SumKey(self._renewed, plan.keyframe, plan.remembering.numpy().tobytes())

    def look_back(self, plan: FramePlan) -> State:
        """What the sum ahead of a frame is of; the sum before it is forgotten.

        Raises:
            TemporalMemoryError: the frame begins a sequence, or there is nothing where it looks.
        """
        self.recalled_of = None
        reading = self.reading(plan)
        if reading is None:
            raise TemporalMemoryError("a frame that begins a sequence has nothing to sum up")
        return reading

    def store_recalled(self, total: Tensor) -> None:
        """Copies a sum to where it stays."""
        if self._recalled is None:
            self._recalled = torch.empty_like(total)
        self._recalled.copy_(total)

    def take_recalled(self, plan: FramePlan, wanted: bool = True) -> Tensor | None:
        """The sum that a frame starts from if it was made ahead, of just this; no other frame does,
        as this one moves the volumes on or may leave them half moved.
        """
        key, self.recalled_of = self.recalled_of, None
        if not wanted or key is None or key != self.sum_key(plan):
            return None
        self.recalled_frames += 1
        return self.recalled

    def reading(self, plan: FramePlan) -> State | None:
        """What the frame looks at; None if it begins a sequence.

        Raises:
            TemporalMemoryError: there is nothing where the plan looks.
        """
        if plan.first:
            return None
        features = self._features.get(plan.reference, (None, None))
        if not self.begun or (self._network.variant.stereo and features[0] is None):
            raise TemporalMemoryError(
                f"slot {plan.reference} of the state holds nothing; the first frame of a stream "
                "must be planned as such"
            )
        return State(stereo=features[0], flow_bev=features[1], **self._front)

    def writing(self, plan: FramePlan) -> State:
        """Where the new state goes; never where ``reading`` looks."""
        if plan.slot == plan.reference and not plan.first:
            raise TemporalMemoryError(f"slot {plan.slot} is to be read and written by one frame")
        if not self._back:
            self._back = self._new_parts()
        if plan.slot not in self._features:
            self._features[plan.slot] = self._new_features()
        stereo, flow_bev = self._features[plan.slot]
        return State(stereo=stereo, flow_bev=flow_bev, **(self._back if plan.keyframe else {}))

    def advance(self, plan: FramePlan) -> None:
        """What was written becomes what is read."""
        if not plan.keyframe:
            return
        self._front, self._back = self._back, self._front
        self.ages, self.begun = plan.ages, True
        self._renewed += 1

    @property
    def remembered(self) -> dict[str, Tensor]:
        """What the last key frame left, by part."""
        return dict(self._front)

    @property
    def nbytes(self) -> int:
        """Bytes that are carried from frame to frame: what key frames renew, reference features."""
        return sum(t.numel() * t.element_size() for t in self._tensors().values())

    def to(self, network: Alocc) -> StreamState:
        """The same for the same network on another device."""
        moved = StreamState(network, self._samples, self._cameras)
        device = network.device
        moved._fill({n: t.to(device, copy=True) for n, t in self._tensors().items()})
        return moved

    def save(self, path: str | Path) -> None:
        """Write as safetensors; the file appears only when it is whole."""
        scratch = Path(f"{path}.partial")
        scratch.unlink(missing_ok=True)  # a link would be followed
        tensors = {n: t.contiguous() for n, t in self._tensors().items()}
        form = self._network.fusion.form
        save_file(tensors, scratch, metadata={_KIND: form})
        os.replace(scratch, path)

    def load(self, path: str | Path) -> None:
        """Read what ``save`` wrote of a stream through the same network.

        Raises:
            TemporalMemoryError: not such a file, or of another network or form.
        """
        try:
            with safe_open(path, framework="pt") as file:
                form = (file.metadata() or {}).get(_KIND)
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise TemporalMemoryError(f"{path} is not a saved state: {error}") from error
        if form is None or "ages" not in tensors:
            raise TemporalMemoryError(f"{path} is not a saved state (tensors: {sorted(tensors)})")
        if form != (own := self._network.fusion.form):
            raise TemporalMemoryError(f"{path} was made by {form}, {own} is running")
        device = self._network.device
        ages = tensors["ages"]
        if ages.shape != self.ages.shape:
            raise TemporalMemoryError(
                f"{path} has ages {list(ages.shape)}, this stream {list(self.ages.shape)}"
            )
        self._fill({n: t.to(device) for n, t in tensors.items()}, str(path))

    def _fill(self, tensors: dict[str, Tensor], where: str = "the state") -> None:
        expected = self._network.empty_state(self._samples, self._cameras)
        features: dict[int, list[Tensor | None]] = {}
        for name, tensor in tensors.items():
            kind, _, slot = name.partition(".")
            like = getattr(expected, kind, self.ages if kind == "ages" else None)
            if like is None or like.shape != tensor.shape:
                shape = "no such tensor" if like is None else list(like.shape)
                raise TemporalMemoryError(
                    f"{where}: {name} is {list(tensor.shape)}, this network remembers {shape}"
                )
            tensors[name] = tensor = tensor.to(like.dtype)
            if slot:
                pair = features.setdefault(int(slot), [None, None])
                pair[kind == "flow_bev"] = tensor.contiguous(memory_format=torch.channels_last)
        self.ages, self.begun = tensors["ages"].cpu(), len(tensors) > 1
        self._renewed += 1
        self._replace_parts({n: t for n, t in tensors.items() if n in KEYFRAME_PARTS})
        self._features = {slot: (pair[0], pair[1]) for slot, pair in features.items()}

    def _replace_parts(self, tensors: dict[str, Tensor]) -> None:
        self._front = tensors

    def _new_parts(self) -> dict[str, Tensor]:
        return _keyframe_parts(self._network.empty_state(self._samples, self._cameras))

    def _new_features(self) -> tuple[Tensor | None, Tensor | None]:
        stereo, flow_bev = self._network.empty_features(self._samples, self._cameras)
        return stereo, flow_bev

    def _tensors(self) -> dict[str, Tensor]:
        named: dict[str, Tensor | None] = {"ages": self.ages, **self._front}
        for slot, (stereo, flow_bev) in self._features.items():
            named |= {f"stereo.{slot}": stereo, f"flow_bev.{slot}": flow_bev}
        return {n: t for n, t in named.items() if t is not None}


def _room_for(count: int, part: Tensor) -> Tensor:  # [n, C, h, w] -> [count, C, h, w]
    """Zeros like these, in the same order: a convolution may round otherwise in another one."""
    last = part.is_contiguous(memory_format=torch.channels_last)
    room = part.new_zeros((count, *part.shape[1:]))
    return room.contiguous(memory_format=torch.channels_last) if last else room


def _keyframe_parts(state: State) -> dict[str, Tensor]:
    parts = {name: getattr(state, name) for name in KEYFRAME_PARTS}
    return {name: tensor for name, tensor in parts.items() if tensor is not None}
