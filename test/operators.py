# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What the tests of the operators share: tolerances, random tensors, ways to call an operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

# Float32 sums of a few hundred terms in another order: 1e-6 of the largest value is common, 1e-5
# has never been seen from reordering; a wrong tap or weight shows at 1e-2.
REORDERED = 2e-5
# Places to sample at are float64 in one form and float32 inside grid_sample in another.
RESAMPLED = 1e-4


def assert_close(ours: Tensor, reference: Tensor, tolerance: float = REORDERED) -> None:
    """Same shape, NaN at the same places, the rest within a fraction of the largest value."""
    assert ours.shape == reference.shape
    assert torch.equal(ours.isnan(), reference.isnan())
    ours, reference = ours.nan_to_num(), reference.nan_to_num()
    scale = max(float(reference.abs().max()), 1e-6)
    assert float((ours - reference).abs().max()) <= tolerance * scale


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def norm(module: nn.Module, seed: int = 5) -> nn.Module:
    """A BatchNorm with statistics that matter."""
    for i, (tensor, low, high) in enumerate(
        (
            (module.weight, 0.5, 1.5),
            (module.bias, -0.5, 0.5),
            (module.running_mean, -0.5, 0.5),
            (module.running_var, 0.5, 2.0),
        )
    ):
        tensor.data.copy_(uniform(*tensor.shape, seed=seed + i) * (high - low) + low)
    return module.eval()


def gradients(
    operator: Callable[..., Tensor], arguments: tuple[Any, ...], wanted: tuple[int, ...]
) -> tuple[Tensor, ...]:
    """Of the sum of squares of the result with respect to the arguments of these numbers."""
    leaves = [
        a.detach().clone().requires_grad_() if i in wanted else a for i, a in enumerate(arguments)
    ]
    with torch.enable_grad():
        result = operator(*leaves)
        assert result.grad_fn is not None
        # What a shape leaves unused has a gradient of zero (one depth bin has none behind it).
        return torch.autograd.grad(
            result.square().sum(), [leaves[i] for i in wanted], materialize_grads=True
        )


def differentiable(operator: Callable[..., Any]) -> Callable[..., Any]:
    """The operator as training calls it: its float32 arguments want a gradient."""

    def call(*arguments: Any) -> Any:
        with torch.enable_grad():
            return _detached(operator(*(_wanting(a) for a in arguments)))

    return call


@contextmanager
def threads(count: int) -> Iterator[None]:
    """So many threads for torch and for the kernels."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _wanting(value: Any) -> Any:
    if isinstance(value, Tensor) and value.dtype == torch.float32:
        return value.detach().clone().requires_grad_()
    return value


def _detached(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_detached, value))
    return value.detach() if isinstance(value, Tensor) else value
