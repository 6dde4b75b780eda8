# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Soft filling: scatter lifted context into the voxel lattice (paper 3.2; spec 6.2 to 6.4)."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from alocc_ros.ops import native
from alocc_ros.ops.mode import forced


@dataclass(frozen=True)
class Lattice:
    """Where the nodes of the lifted volume lie.

    Node i sits at ``lower + i * step``, the LOWER CORNER of output cell i, not its centre:
    a quirk that the released weights were trained with (spec section 6.4), shared with the
    history warp. A bird's-eye volume has one node in z, at the floor of the grid.
    """

    lower: tuple[float, float, float]
    step: tuple[float, float, float]
    size: tuple[int, int, int]  # nodes along x, y, z


@dataclass(frozen=True)
class Frustum:
    """The pixels and depths that are lifted.

    Attributes:
        us, vs: [w], [h] float64, input-image pixel of each feature column and row.
        depths: [D] float64 metres, evenly spaced.
        ray_matrix: [N, 3, 3] float64; pixel (u, v) at depth d lies at d * M (u, v, 1) + origin.
        origin: [N, 3] float64 metres, in the grid's frame.
    """

    us: Tensor
    vs: Tensor
    depths: Tensor
    ray_matrix: Tensor
    origin: Tensor

    def to(self, device: torch.device) -> Frustum:
        """The same on another device."""
        return Frustum(*(getattr(self, f.name).to(device) for f in fields(self)))

    def equals(self, other: Frustum) -> bool:
        """Whether both are the same numbers."""
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs)

    def points(self, du: Tensor | float = 0.0, dv: Tensor | float = 0.0) -> Tensor:
        """Rays of all pixels, moved by (du, dv) [N, h, w] pixels: [N, h, w, 3] per metre."""
        v, u = torch.meshgrid(self.vs, self.us, indexing="ij")
        m = self.ray_matrix[:, None, None]
        u, v = (u + du)[..., None], (v + dv)[..., None]
        return m[..., 0] * u + m[..., 1] * v + m[..., 2]


@dataclass(frozen=True)
class SideCopies:
    """Inter-object lifting: where each pixel also leaves a share of its peak.

    Attributes:
        weight: [N, 27, h, w] in [0, 1]; channel (3 ku + kv) * 3 + slot.
        offset: [N, 18, h, w] input-image pixels; channel (3 ku + kv) * 2 + (0: u, 1: v).
        index_max: highest depth bin a copy may take.
    """

    weight: Tensor
    offset: Tensor
    index_max: int


def splat_twin(
    geometry: Tensor,  # [N, D, h, w]
    context: Tensor,  # [N, C, h, w]
    frustum: Frustum,
    lattice: Lattice,
    sides: SideCopies | None = None,
    alive: Tensor | None = None,  # [N] bool
) -> Tensor:  # [C, Y, X, Z]
    """Every point scatters geometry * context to its eight nodes with trilinear weights."""
    frustum = frustum.to(geometry.device)
    points, values = _bin_points(frustum), geometry
    if sides is not None:
        copies, masses = _side_points(geometry, frustum, sides)
        points, values = torch.cat([points, copies], 1), torch.cat([values, masses], 1)
    if alive is not None:
        values = values * alive[:, None, None, None].to(values)
    volume = context.new_zeros(math.prod(lattice.size), context.shape[1])
    return _on_lattice(_scatter(volume, *_nodes(points, lattice), values, context), lattice)


def _bin_points(frustum: Frustum) -> Tensor:  # [N, D, h, w, 3] metres
    """Where every depth bin of every pixel lies."""
    depths = frustum.depths[None, :, None, None, None]
    return depths * frustum.points()[:, None] + frustum.origin[:, None, None, None]


def _side_points(
    geometry: Tensor,  # [N, D, h, w]
    frustum: Frustum,
    sides: SideCopies,
) -> tuple[Tensor, Tensor]:  # [N, 24, h, w, 3] metres, [N, 24, h, w]
    """Where the side copies lie and how much they carry."""
    peak = geometry.argmax(1)  # [N, h, w]
    points, masses = [], []
    for cell in range(9):
        if cell == 4:
            continue  # the centre is the pixel itself
        du, dv = sides.offset[:, 2 * cell].double(), sides.offset[:, 2 * cell + 1].double()
        rays = frustum.points(du, dv)
        for slot in range(3):
            index = peak + slot - 1
            kept = (index >= 0).to(geometry)
            index = index.clamp(0, sides.index_max)
            mass = geometry.gather(1, index[:, None])[:, 0]
            points.append(frustum.depths[index][..., None] * rays + frustum.origin[:, None, None])
            masses.append(mass * sides.weight[:, cell * 3 + slot] * kept)
    return torch.stack(points, 1), torch.stack(masses, 1)


def _nodes(
    points: Tensor,  # [N, K, h, w, 3] metres
    lattice: Lattice,
) -> tuple[Tensor, Tensor]:  # [8, N, K, h, w] int64 rows of the volume, float32 weights
    """The eight nodes around each point; a node outside becomes node 0 with weight 0."""

    def constant(numbers: tuple[float, ...]) -> Tensor:
        return torch.tensor(numbers, dtype=points.dtype, device=points.device)

    size = constant(lattice.size)
    g = (points - constant(lattice.lower)) / constant(lattice.step)
    low = torch.floor(g)
    high_weight = g - low
    x_size, _, z_size = lattice.size
    rows, weights = [], []
    for corner in range(8):
        bits = constant((corner & 1, corner >> 1 & 1, corner >> 2))
        node = low + bits
        inside = ((node >= 0) & (node < size)).all(-1)
        weight = torch.where(bits.bool(), high_weight, 1 - high_weight).prod(-1)
        x, y, z = torch.where(inside[..., None], node, 0).long().unbind(-1)
        rows.append((y * x_size + x) * z_size + z)
        weights.append((weight * inside).float())
    return torch.stack(rows), torch.stack(weights)


def _scatter(
    volume: Tensor,  # [Y * X * Z, C]
    rows: Tensor,  # [8, N, K, h, w]
    weights: Tensor,  # [8, N, K, h, w]
    values: Tensor,  # [N, K, h, w]
    context: Tensor,  # [N, C, h, w]
) -> Tensor:  # [Y * X * Z, C]
    features = context.permute(0, 2, 3, 1)[:, None]  # [N, 1, h, w, C]
    for row, weight in zip(rows, weights, strict=True):
        mass = (weight.to(values) * values)[..., None] * features
        volume = volume.index_add(0, row.flatten(), mass.flatten(0, -2))
    return volume


def _on_lattice(volume: Tensor, lattice: Lattice) -> Tensor:  # [Y * X * Z, C] -> [C, Y, X, Z]
    x_size, y_size, z_size = lattice.size
    return volume.view(y_size, x_size, z_size, -1).permute(3, 0, 1, 2)


def splat(
    geometry: Tensor,  # [N, D, h, w]
    context: Tensor,  # [N, C, h, w]
    frustum: Frustum,
    lattice: Lattice,
    sides: SideCopies | None = None,
    alive: Tensor | None = None,  # [N] bool
) -> Tensor:  # [C, Y, X, Z], channels last
    """The same without sorting and without materialising points: each thread owns some rows of
    the volume and scans all points, so the order of summation never depends on the threads.

    Elsewhere than in the C kernels, the nodes of the depth bins are remembered for as long as
    cameras and poses stay what they are, and only the side copies are placed anew.
    """
    if forced():
        return splat_twin(geometry, context, frustum, lattice, sides, alive)
    if torch.is_grad_enabled() or not native.available(geometry, context):
        return _splat_torch(geometry, context, frustum, lattice, sides, alive)[0]
    n, bins, h, w = geometry.shape
    channels = context.shape[1]
    x_size, y_size, z_size = lattice.size
    volume = torch.zeros(y_size, x_size, z_size, channels)
    double = {"dtype": torch.float64}
    tensors = [
        geometry.permute(0, 2, 3, 1).contiguous(),
        context.permute(0, 2, 3, 1).contiguous(),
        frustum.ray_matrix.contiguous(),
        frustum.origin.contiguous(),
        frustum.us.contiguous(),
        frustum.vs.contiguous(),
    ]
    side_tensors = [None, None]
    if sides is not None:
        side_tensors = [t.permute(0, 2, 3, 1).contiguous() for t in (sides.weight, sides.offset)]
    alive = torch.ones(n, dtype=torch.uint8) if alive is None else alive.to(torch.uint8).cpu()
    lower, step = torch.tensor(lattice.lower, **double), torch.tensor(lattice.step, **double)
    size = torch.tensor(lattice.size, dtype=torch.int64)
    spacing = float(frustum.depths[1] - frustum.depths[0]) if bins > 1 else 0.0
    lib = native.library()
    native.parallel(
        lambda begin, end: lib.splat(
            *map(native.pointer, tensors),
            *(None if t is None else native.pointer(t) for t in side_tensors),
            native.pointer(alive),
            native.pointer(volume),
            *map(native.i64, (n, h, w, bins, channels)),
            native.f64(float(frustum.depths[0])),
            native.f64(spacing),
            native.i64(0 if sides is None else sides.index_max),
            *map(native.pointer, (lower, step, size)),
            native.i64(begin),
            native.i64(end),
        ),
        y_size,
        # Every range scans all points: one range a thread.
        grain=-(-y_size // torch.get_num_threads()),
    )
    return volume.permute(3, 0, 1, 2)


def splat_many(
    geometry: Tensor,  # [B * N, D, h, w]
    context: Tensor,  # [B * N, C, h, w]
    frustum: Frustum,  # of all B * N cameras
    lattice: Lattice,
    sides: SideCopies | None,
    alive: Tensor | None,  # [B * N] bool
    samples: int,
) -> Tensor:  # [B, C, Y, X, Z]
    """``splat`` of B samples with N cameras each, at once: a GPU spends its time on starting the
    hundreds of small operations, not on how much each has to do.
    """
    return _splat_torch(geometry, context, frustum, lattice, sides, alive, samples)


# The last placement of depth bins, by device: a rig at rest or triggered at once keeps it.
_placed: dict[torch.device, tuple[Frustum, Lattice, tuple[Tensor, Tensor]]] = {}


def _splat_torch(
    geometry: Tensor,
    context: Tensor,
    frustum: Frustum,
    lattice: Lattice,
    sides: SideCopies | None,
    alive: Tensor | None,
    samples: int = 1,
) -> Tensor:  # [samples, C, Y, X, Z]
    device = geometry.device
    there = frustum.to(device)
    held = _placed.get(device)
    if held is None or held[1] != lattice or not held[0].equals(frustum):
        held = _placed[device] = (frustum, lattice, _nodes(_bin_points(there), lattice))
    if alive is not None:
        context = context * alive[:, None, None, None].to(context)
    nodes, cameras = math.prod(lattice.size), len(geometry) // samples
    # One volume after the other: the rows of a camera begin where its sample's volume does.
    first = torch.arange(samples, device=device).repeat_interleave(cameras) * nodes
    first = first[:, None, None, None]
    volume = context.new_zeros(samples * nodes, context.shape[1])
    rows, weights = held[2]
    volume = _scatter(volume, rows + first, weights, geometry, context)
    if sides is not None:
        points, masses = _side_points(geometry, there, sides)
        rows, weights = _nodes(points, lattice)
        volume = _scatter(volume, rows + first, weights, masses, context)
    return torch.stack([_on_lattice(part, lattice) for part in volume.chunk(samples)])
