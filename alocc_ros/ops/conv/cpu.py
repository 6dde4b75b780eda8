# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Folded convolutions on a CPU: oneDNN with prepacked weights, or Winograd's algorithm in C.

Winograd's F(2x2, 3x3): four neighbouring outputs of a 3x3 convolution need 16 multiplications
instead of 36 once inputs and weights are written in another basis (Lavin and Gray 2016,
arXiv 1509.09308). Exact in real arithmetic; in float32 the error about doubles, to 3e-6 of the
largest value.
"""

from __future__ import annotations

import torch
from torch import Tensor

from alocc_ros.ops import native
from alocc_ros.ops.conv import FoldedConv, channels_last
from alocc_ros.ops.library import kernel

# Channels come in vectors of 8; output channels in panels of two vectors.
_VECTOR, _PANEL = 8, 16
# Fewer channels do too little between the two changes of basis, fewer outputs leave threads idle.
_LEAST_CHANNELS, _LEAST_OUTPUTS = 32, 512
# Scratch of one thread, floats: about what its share of the second and third cache holds.
_SCRATCH = 400_000
# At least so many rows share one pass over the weights.
_LEAST_ROWS = 48

_mkldnn = torch.ops.mkldnn
_HAS_FUSED = torch.backends.mkldnn.is_available() and hasattr(_mkldnn, "_convolution_pointwise")


def pack(conv: FoldedConv, shape: torch.Size, dtype: torch.dtype = torch.float32) -> FoldedConv:
    """The form of a folded convolution that is fastest here on inputs of this shape."""
    if dtype == torch.bfloat16:
        return OneDnnConv(conv.to(dtype), shape) if _HAS_FUSED else conv
    if winograd_suits(conv, shape):
        return WinogradConv(conv)
    return OneDnnConv(conv, shape) if _HAS_FUSED and conv.weight.dtype == torch.float32 else conv


def winograd_suits(conv: FoldedConv, shape: torch.Size) -> bool:
    """Whether Winograd's algorithm can do this convolution of this input, and is worth it."""
    outputs, inputs, *kernel_size = conv.weight.shape
    ones = (1,) * len(kernel_size)
    return (
        native.library() is not None
        and conv.weight.dtype == torch.float32
        and tuple(kernel_size) == (3,) * len(ones)
        and conv.stride == conv.dilation == conv.padding == ones
        and inputs == shape[1]
        and inputs % _VECTOR == 0
        and outputs % _PANEL == 0
        and min(inputs, outputs) >= _LEAST_CHANNELS
        and shape[0] * shape[2:].numel() >= _LEAST_OUTPUTS
    )


class _PackedConv(FoldedConv):
    """A folded convolution that keeps its weights in the order of one kernel only."""

    def __init__(self, conv: FoldedConv, packed: Tensor) -> None:
        super(FoldedConv, self).__init__()
        self.register_buffer("packed", packed, persistent=False)
        self.register_buffer("bias", conv.bias.contiguous(), persistent=False)
        self.stride, self.padding, self.dilation = conv.stride, conv.padding, conv.dilation


class OneDnnConv(_PackedConv):
    """oneDNN convolution with residual and ReLU as post-operations on prepacked weights."""

    def __init__(self, conv: FoldedConv, shape: torch.Size) -> None:
        where = (list(conv.padding), list(conv.stride), list(conv.dilation), 1)
        weight = _mkldnn._reorder_convolution_weight(conv.weight, *where, list(shape))
        super().__init__(conv, weight)
        self._where, self._dtype = where, conv.weight.dtype

    def forward(self, x: Tensor, relu: bool = False, residual: Tensor | None = None) -> Tensor:
        x = x.to(self._dtype).contiguous(memory_format=channels_last(x))
        if residual is None:
            return _mkldnn._convolution_pointwise(
                x, self.packed, self.bias, *self._where, "relu" if relu else "none", [], ""
            )
        residual = residual.to(self._dtype).contiguous(memory_format=channels_last(x))
        return _mkldnn._convolution_pointwise.binary(
            x, residual, self.packed, self.bias, *self._where,
            "add", None, "relu" if relu else None, [], "",
        )  # fmt: skip


class WinogradConv(_PackedConv):
    """3x3 and 3x3x3 convolutions, stride 1, with 2.25 times fewer multiplications."""

    def __init__(self, conv: FoldedConv) -> None:
        super().__init__(conv, _winograd_pack(conv.weight))

    def forward(self, x: Tensor, relu: bool = False, residual: Tensor | None = None) -> Tensor:
        x = x.float().contiguous(memory_format=channels_last(x))
        if residual is not None:
            residual = residual.float().contiguous(memory_format=channels_last(x))
        return winograd_conv(x, self.packed, self.bias, residual, relu)


def _winograd_pack(weight: Tensor) -> Tensor:  # [O, C, 3, 3(, 3)] -> [16, O / 16, taps * C, 16]
    """The weights in Winograd's basis, in the order in which the kernel reads them."""
    taps = weight[..., None] if weight.dim() == 4 else weight  # [O, C, ky, kx, kz]
    basis = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]).double()
    moved = torch.einsum("iy,jx,ocyxz->ijzco", basis, basis, taps.double())
    panels = moved.flatten(2, 3).flatten(0, 1).unflatten(2, (-1, _PANEL))  # [16, K, O / 16, 16]
    return panels.transpose(1, 2).float().contiguous()


def _winograd(
    x: Tensor, packed: Tensor, bias: Tensor, residual: Tensor | None, relu: bool
) -> Tensor:
    rows = x.movedim(1, -1)
    batch, y_size, x_size = rows.shape[:3]
    inputs, outputs = rows.shape[-1], bias.numel()
    depth, taps = (rows.shape[3], 3) if x.dim() == 5 else (1, 1)
    out = torch.empty(*rows.shape[:-1], outputs)
    added = None if residual is None else residual.movedim(1, -1)
    tiles = batch * -(-y_size // 2) * -(-x_size // 2)
    a_tile = 16 * ((depth + taps - 1) * inputs + depth * outputs)
    unit = min(tiles, max(_SCRATCH // a_tile, -(-_LEAST_ROWS // depth)))
    library = native.library()
    library.winograd_scratch.restype = native.i64
    size = library.winograd_scratch(*map(native.i64, (unit, depth, inputs, outputs, taps)))

    def some_tiles(begin: int, end: int) -> None:
        scratch = torch.empty(size)
        library.winograd(
            *map(native.pointer, (rows, packed, bias)),
            None if added is None else native.pointer(added),
            *map(native.pointer, (out, scratch)),
            *map(native.i64, (y_size, x_size, depth, inputs, outputs, taps, relu, unit)),
            native.i64(begin),
            native.i64(end),
        )

    native.parallel(some_tiles, tiles, grain=unit)
    return out.movedim(-1, 1)


def _winograd_fake(
    x: Tensor, packed: Tensor, bias: Tensor, residual: Tensor | None, relu: bool
) -> Tensor:
    shape = x.movedim(1, -1).shape[:-1]
    return x.new_empty((*shape, bias.numel())).movedim(-1, 1)


# relu(conv(x) + bias + residual) with stride 1 and padding 1; x [N, C, Y, X(, Z)] and residual
# channels last, weights packed -> [N, O, Y, X(, Z)] channels last.
winograd_conv = kernel(
    "winograd_conv(Tensor x, Tensor packed, Tensor bias, Tensor? residual, bool relu) -> Tensor",
    _winograd,
    _winograd_fake,
)
