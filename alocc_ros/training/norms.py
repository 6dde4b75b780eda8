# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""BatchNorm over all processes, and BatchNorm that looks without remembering."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as collective
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class CpuSyncBatchNorm(_BatchNorm):
    """torch's SyncBatchNorm for processes that have no CUDA device (torch's refuses the CPU).

    One sum over the processes a call: of the values, of their squares, and how many there are.
    """

    def _check_input_dim(self, x: Tensor) -> None:
        pass  # of any number of dimensions

    def forward(self, x: Tensor) -> Tensor:  # [B, C, ...]
        """Like BatchNorm over the concatenation of every process's ``x``."""
        if not self.training or not dist.is_initialized():
            return super().forward(x)
        axes = [0, *range(2, x.dim())]
        values = x.double()  # the difference of two large sums
        count = values.new_full((1,), x.numel() / x.shape[1])
        sums = torch.cat([values.sum(axes), values.square().sum(axes), count])
        total, squares, count = collective.all_reduce(sums).split([x.shape[1], x.shape[1], 1])
        mean = total / count
        variance = squares / count - mean.square()
        self._remember(mean.detach(), (variance * count / (count - 1)).detach())
        shape = (1, -1, *[1] * (x.dim() - 2))
        scale = (self.weight / torch.sqrt(variance + self.eps)).view(shape)
        return ((values - mean.view(shape)) * scale + self.bias.view(shape)).to(x)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
        self.running_var.lerp_(variance.to(self.running_var), self.momentum)


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
def nothing_remembered(modules: Iterable[nn.Module]) -> Iterator[None]:
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
