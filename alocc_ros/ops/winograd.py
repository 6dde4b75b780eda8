# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""3x3 and 3x3x3 convolutions with 2.25 times fewer multiplications, on the CPU.

Winograd's F(2x2, 3x3): four neighbouring outputs of a 3x3 convolution need 16 multiplications
instead of 36 once inputs and weights are written in another basis (Lavin and Gray 2016,
arXiv 1509.09308). Exact in real arithmetic; in float32 the error about doubles, to 3e-6 of the
largest value. The twin is torch's own convolution.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from alocc_ros.ops import native

# Channels come in vectors of 8; output channels in panels of two vectors.
_VECTOR, _PANEL = 8, 16
# Fewer channels do too little between the two changes of basis, fewer outputs leave threads idle.
_LEAST_CHANNELS, _LEAST_OUTPUTS = 32, 512
# Scratch of one thread, floats: about what its share of the second and third cache holds.
_SCRATCH = 400_000
# At least so many rows share one pass over the weights.
_LEAST_ROWS = 48

_TO_BASIS = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]).double()
_enabled: ContextVar[bool] = ContextVar("alocc_winograd", default=True)


@contextmanager
def direct() -> Iterator[None]:
    """Within this block convolutions are direct (to count their operations)."""
    token = _enabled.set(False)
    try:
        yield
    finally:
        _enabled.reset(token)


def suits(x: Tensor, conv: nn.Module) -> bool:
    """Whether this convolution of this input can be done here, and is worth it."""
    if not _enabled.get() or not native.available(x):
        return False
    ones = (1,) * (x.dim() - 2)
    return (
        conv.kernel_size == (3,) * len(ones)
        and tuple(conv.stride) == tuple(conv.dilation) == tuple(conv.padding) == ones
        and conv.groups == 1
        and conv.in_channels % _VECTOR == 0
        and conv.out_channels % _PANEL == 0
        and min(conv.in_channels, conv.out_channels) >= _LEAST_CHANNELS
        and x.shape[0] * x.shape[2:].numel() >= _LEAST_OUTPUTS
    )


def pack(weight: Tensor) -> Tensor:  # [O, C, 3, 3(, 3)] -> [16, O / 16, taps * C, 16]
    """The weights in Winograd's basis, in the order in which the kernel reads them."""
    taps = weight[..., None] if weight.dim() == 4 else weight  # [O, C, ky, kx, kz]
    basis = torch.einsum("iy,jx,ocyxz->ijzco", _TO_BASIS, _TO_BASIS, taps.double())
    panels = basis.flatten(2, 3).flatten(0, 1).unflatten(2, (-1, _PANEL))  # [16, K, O / 16, 16]
    return panels.transpose(1, 2).float().contiguous()


def convolve(
    x: Tensor,  # [N, C, Y, X(, Z)] channels last
    packed: Tensor,
    bias: Tensor,  # [O]
    relu: bool,
    residual: Tensor | None,  # as the result, channels last
) -> Tensor:  # [N, O, Y, X(, Z)] channels last
    """relu(conv(x) + bias + residual) with stride 1 and padding 1."""
    rows = x.movedim(1, -1)
    batch, y_size, x_size = rows.shape[:3]
    inputs, outputs = rows.shape[-1], bias.numel()
    depth, taps = (rows.shape[3], 3) if x.dim() == 5 else (1, 1)
    out = torch.empty(*rows.shape[:-1], outputs)
    added = None if residual is None else residual.movedim(1, -1)
    tiles = batch * -(-y_size // 2) * -(-x_size // 2)
    a_tile = 16 * ((depth + taps - 1) * inputs + depth * outputs)
    unit = min(tiles, max(_SCRATCH // a_tile, -(-_LEAST_ROWS // depth)))
    lib = native.library()
    lib.winograd_scratch.restype = native.i64
    size = lib.winograd_scratch(*map(native.i64, (unit, depth, inputs, outputs, taps)))

    def some_tiles(begin: int, end: int) -> None:
        scratch = torch.empty(size)
        lib.winograd(
            *map(native.pointer, (rows, packed, bias)),
            None if added is None else native.pointer(added),
            *map(native.pointer, (out, scratch)),
            *map(native.i64, (y_size, x_size, depth, inputs, outputs, taps, relu, unit)),
            native.i64(begin),
            native.i64(end),
        )

    native.parallel(some_tiles, tiles, grain=unit)
    return out.movedim(-1, 1)
