# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""BatchNorm over all processes, and BatchNorm that leaves its running statistics alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from alocc_ros.distributed import all_reduce_sum, is_distributed


class CpuSyncBatchNorm(_BatchNorm):
    """torch's SyncBatchNorm for processes that have no CUDA device (torch's refuses the CPU)."""

    def _check_input_dim(self, x: Tensor) -> None:
        pass  # of any number of dimensions

    def forward(self, x: Tensor) -> Tensor:  # [B, C, ...]
        """Like BatchNorm over the concatenation of every process's ``x``."""
        if not self.training or not is_distributed():
            return super().forward(x)
        y, mean, variance, count = _SyncBatchNorm.apply(x, self.weight, self.bias, self.eps)
        self._update_statistics(mean, variance * count / (count - 1))
        return y

    @torch.no_grad()
    def _update_statistics(self, mean: Tensor, variance: Tensor) -> None:
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
        self.running_var.lerp_(variance.to(self.running_var), self.momentum)


class _SyncBatchNorm(torch.autograd.Function):
    """Normalises by what all processes hold: one sum over the processes each way.

    The passes over ``x`` are those of torch's own BatchNorm. As a formula that autograd
    differentiates, in double precision for the difference of two large sums, it took half of a
    training step.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``x`` normalised, and mean, variance [C] and count over all processes (float64)."""
        here = x.numel() / x.shape[1]
        mean, variance = (v.double() for v in torch.batch_norm_update_stats(x, None, None, 0.0))
        sums = torch.cat([mean, variance + mean.square(), mean.new_ones(1)]) * here
        all_reduce_sum(sums)
        mean, squares, count = sums.split([len(mean), len(mean), 1])
        mean, squares = mean / count, squares / count
        variance = squares - mean.square()
        ctx.eps, ctx.count = eps, count
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.mark_non_differentiable(mean, variance, count)
        means, variances = mean.to(x.dtype), variance.to(x.dtype)
        y = torch.nn.functional.batch_norm(x, means, variances, weight, bias, False, 0.0, eps)
        return y, mean, variance, count

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        """Weight and bias get this process's share, as every parameter under
        DistributedDataParallel.
        """
        x, weight, mean, variance = ctx.saved_tensors
        means, variances = mean.to(x.dtype), variance.to(x.dtype)
        # As if mean and variance were constants ...
        dx, d_weight, d_bias = torch.ops.aten.native_batch_norm_backward(
            dy, x, weight, means, variances, None, None, False, ctx.eps, [True, True, True]
        )
        # ... and what goes through them, which is a multiple of x and a constant in a channel.
        sums = torch.stack([d_weight.double(), d_bias.double()])
        all_reduce_sum(sums)
        along, across = sums / ctx.count
        per_deviation = 1 / torch.sqrt(variance + ctx.eps)
        scale = weight.double() * per_deviation
        slope = -scale * along * per_deviation
        offset = -scale * across - slope * mean
        shape = (1, -1, *[1] * (x.dim() - 2))
        dx.addcmul_(x, slope.to(x.dtype).view(shape)).add_(offset.to(x.dtype).view(shape))
        return dx, d_weight, d_bias, None


def synchronised(network: nn.Module, device_type: str) -> nn.Module:
    """The network with every BatchNorm over all processes; names and values stay."""
    if device_type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, _BatchNorm):
                module.register_module(name, _converted(child))
    return network


def _converted(norm: _BatchNorm) -> CpuSyncBatchNorm:
    new = CpuSyncBatchNorm(norm.num_features, norm.eps, norm.momentum)
    new.load_state_dict(norm.state_dict())
    return new.train(norm.training)


@contextmanager
def frozen_statistics(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Within this block BatchNorm in training normalises, but its running statistics stand still.

    For what is computed twice (activation checkpointing) or only looked at.
    """
    norms = [m for root in modules for m in root.modules() if isinstance(m, _BatchNorm)]
    before = [(m.momentum, m.num_batches_tracked.clone()) for m in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, counter) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(counter)
