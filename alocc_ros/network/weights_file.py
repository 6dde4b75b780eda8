# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Which of the tensors in a checkpoint are the network's weights, and whether they can be.

One rule: averaged (EMA) weights before those that were trained, for the average is what was
evaluated and published. ``docs/models.md`` says so to users.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alocc_ros.errors import CheckpointError

# Where training codes keep the weights inside the file; ours are ``average`` and ``network``.
_AVERAGED = ("ema_state_dict", "ema", "teacher", "average")
_TRAINED = ("state_dict", "model_state_dict", "model", "module", "network")
_PREFIXES = ("module.", "teacher.", "ema_model.", "ema.", "model.", "network.")


@dataclass(frozen=True)
class Weights:
    """The weights of a file.

    Attributes:
        tensors: by the network's own names.
        entry: where in the file they were, such as ``ema_state_dict``; ``""``: the file is nothing
            else.
        others: entries that hold weights too and were passed over.
    """

    tensors: dict[str, Tensor]
    entry: str = ""
    others: tuple[str, ...] = ()

    def source(self) -> str:
        """For people: which of the file's tensors these are."""
        if not self.entry:
            return "the file's only ones"
        averaged = self.entry.split(": ")[-1] in _AVERAGED
        words = f"{self.entry}, {'the averaged (EMA) ones' if averaged else 'as trained'}"
        return words + (f"; not used: {', '.join(self.others)}" if self.others else "")


def weights_in(content: Any, where: str) -> Weights:
    """What in a file's content is the weights, with prefixes such as ``module.`` removed.

    Raises:
        CheckpointError: nothing is; ``where`` says in the message of which file.
    """
    found = _weights_in(content, where)
    return Weights(_without_prefix(found.tensors), found.entry, found.others)


def constant_tensors(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the matrices and kernels that hold one number only; training leaves none so."""
    return [
        name
        for name, value in tensors.items()
        if value.ndim > 1 and value.numel() > 1 and bool((value == value.flatten()[0]).all())
    ]


def check_numbers(tensors: Mapping[str, Tensor]) -> list[str]:
    """The constant tensors, which may be a few: a part may not have been trained.

    Raises:
        CheckpointError: numbers are not finite, or most matrices are constant.
    """
    broken = [k for k, v in tensors.items() if not torch.isfinite(v).all()]
    if broken:
        raise CheckpointError(f"weights with NaN or inf: {some(broken)}")
    constant = constant_tensors(tensors)
    matrices = sum(v.ndim > 1 and v.numel() > 1 for v in tensors.values())
    if 2 * len(constant) > matrices:
        raise CheckpointError(
            f"not trained: {len(constant)} of {matrices} matrices hold one number only: "
            f"{some(constant)}"
        )
    return constant


def some(names: Iterable[Any], most: int = 10) -> str:
    """The first of some names, and how many more there are."""
    names = [str(n) for n in names]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _weights_in(content: Any, where: str) -> Weights:
    if not isinstance(content, dict):
        raise CheckpointError(f"{where}: holds {type(content).__name__}, not a dict of weights")
    if content and all(isinstance(v, Tensor) for v in content.values()):
        odd = [k for k, v in content.items() if not isinstance(k, str) or not _is_plain(v)]
        if odd:
            raise CheckpointError(f"{where}: not plain named tensors: {some(odd)}")
        return Weights({k: v.detach() for k, v in content.items()})
    entries = [n for n in (*_AVERAGED, *_TRAINED) if isinstance(content.get(n), dict)]
    if entries:
        entry, *others = entries
        inner = _weights_in(content[entry], f"{where}: {entry}")
        path = f"{entry}: {inner.entry}" if inner.entry else entry
        return Weights(inner.tensors, path, (*others, *inner.others))
    others = [k for k, v in content.items() if not isinstance(v, Tensor)]
    if len(others) < len(content):
        raise CheckpointError(f"{where}: not tensors among the weights: {some(others)}")
    raise CheckpointError(f"{where}: no weights in it, only {some(others) or 'nothing'}")


def _is_plain(tensor: Tensor) -> bool:
    strided = tensor.layout is torch.strided and not tensor.is_nested
    if not strided or tensor.device.type != "cpu" or tensor.is_quantized:
        return False
    # A few bytes can pose as terabytes by strides of zero.
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _without_prefix(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES:
        if all(k.startswith(prefix) for k in weights):
            return _without_prefix({k.removeprefix(prefix): v for k, v in weights.items()})
    return weights
