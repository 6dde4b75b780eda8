# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Rays against solids: which part does each ray hit first, and where?

Rays come in tiles of neighbours. A part is tried on a tile only if its bounding sphere meets
the tile's cone and the cone's axis passes its (widened) bounding block; candidates of a tile
are tried from near to far, and those behind what was already hit are skipped.
``first_hit_reference`` is the same without any of this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from alocc_ros.synthetic.primitives import SolidKind

NEAR = 0.05  # m along the ray; a hit nearer than this does not count
_CHUNK = 1 << 24  # sphere tests at a time
_BATCH = 2048  # pairs of tile and part that are at least intersected at a time


@dataclass(frozen=True)
class Solids:
    """Parts in the map at one instant; N of them.

    Attributes:
        kind: [N] int64.
        origin: [N, 2] m, map.
        cos, sin: [N] of the yaw in the map.
        low, high: [N, 3] m, bounds at the foot, in the part's frame.
        slope_low, slope_high: [N, 2] m per m of height.
        centre, radius: [N, 3], [N] m; bounding sphere in the map.
        box_low, box_high: [N, 3] m; bounding block in the part's frame.
        part: [N] int64, index into the scene's table of parts.
    """

    kind: Tensor
    origin: Tensor
    cos: Tensor
    sin: Tensor
    low: Tensor
    high: Tensor
    slope_low: Tensor
    slope_high: Tensor
    centre: Tensor
    radius: Tensor
    box_low: Tensor
    box_high: Tensor
    part: Tensor

    def __len__(self) -> int:
        return len(self.kind)

    def take(self, index: Tensor) -> Solids:
        """The chosen ones."""
        return Solids(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


def rotated(vectors: Tensor, rotation: Tensor) -> Tensor:  # [..., 3], [3, 3] -> [..., 3]
    """``rotation`` applied to each vector.

    No matrix product: where training allows TF32 or bfloat16 for those, geometry would be off
    by decimetres.
    """
    x, y, z = vectors.unbind(dim=-1)
    return torch.stack([row[0] * x + row[1] * y + row[2] * z for row in rotation], dim=-1)


def tile_image(height: int, width: int, side: int, device: torch.device) -> Tensor:
    """[T, side * side] int64 flat pixel indices; tiles at the border repeat the last pixels."""
    rows = torch.arange(-(-height // side) * side, device=device).clamp(max=height - 1)
    columns = torch.arange(-(-width // side) * side, device=device).clamp(max=width - 1)
    pixel = rows[:, None] * width + columns[None, :]
    pixel = pixel.view(len(rows) // side, side, len(columns) // side, side)
    return pixel.permute(0, 2, 1, 3).reshape(-1, side * side)


# (solids, eye, rays, limit, then of each candidate its tile, its solid and a lower bound of its
# distance along the rays) -> (distance, index), as ``first_hit`` returns them.
Search = Callable[["Solids", Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def first_hit(
    solids: Solids,
    eye: Tensor,  # [3] m, map
    rays: Tensor,  # [T, R, 3] map; any length; the distance is measured in it
    limit: Tensor,  # [T, R] distance beyond which nothing counts, e.g. the ground's
    search: Search | None = None,
) -> tuple[Tensor, Tensor]:
    """The first part along each ray: (distance [T, R], index into ``solids`` [T, R] or -1).

    ``search`` tries the candidates: ``front_to_back`` saves work (the default on a CPU),
    ``all_pairs`` saves steps (on a GPU).
    """
    pairs = _candidate_pairs(solids, eye, rays)
    if not len(pairs[0]):
        return limit.clone(), torch.full(limit.shape, -1, device=limit.device)
    if search is None:
        search = front_to_back if rays.device.type == "cpu" else all_pairs
    return search(solids, eye, rays, limit, *pairs)


def front_to_back(
    solids: Solids,
    eye: Tensor,
    rays: Tensor,
    limit: Tensor,
    tile: Tensor,
    solid: Tensor,
    entry: Tensor,
) -> tuple[Tensor, Tensor]:
    """Tries the candidates of each tile one after the other, without those behind a hit."""
    distance = limit.clone()
    winner = torch.full(limit.shape, -1, dtype=torch.int32, device=limit.device)
    # Near to far within each tile; the n-th candidates of all tiles are one round.
    order = torch.argsort(entry, stable=True)
    order = order[torch.argsort(tile[order], stable=True)]
    tile, solid, entry = tile[order], solid[order], entry[order]
    number = torch.arange(len(tile), device=tile.device)
    starts = torch.ones(len(tile), dtype=torch.bool, device=tile.device)
    starts[1:] = tile[1:] != tile[:-1]
    first = torch.cummax(torch.where(starts, number, 0), dim=0).values
    rounds = number - first
    by_round = torch.argsort(rounds, stable=True)
    tile, solid, entry = tile[by_round], solid[by_round], entry[by_round]
    start = 0
    far = distance.amax(dim=1)
    for count in _batches(torch.bincount(rounds).tolist()):
        t, s = tile[start : start + count], solid[start : start + count]
        keep = entry[start : start + count] < far[t]
        start += count
        t, s = t[keep], s[keep]
        if not len(t):
            continue
        hit = _intersect_each(solids, s, eye, rays[t])
        old = distance[t]
        # A tile may be there several times; of equal hits the one tried first counts.
        where = t[:, None].expand_as(hit)
        distance.scatter_reduce_(0, where, hit, "amin")
        place = torch.arange(len(t), dtype=torch.int32, device=t.device)[:, None]
        place = torch.where((hit == distance[t]) & (hit < old), place, len(t))
        first = torch.full(limit.shape, len(t), dtype=torch.int32, device=t.device)
        first.scatter_reduce_(0, where, place, "amin")
        parts = torch.cat([s.int(), s.new_zeros(1).int()])[first.long()]
        winner = torch.where(first < len(t), parts, winner)
        far[t] = distance[t].amax(dim=1)
    return distance, winner.long()


def _batches(rounds: list[int]) -> Iterator[int]:
    """Numbers of pairs: those of successive rounds, put together until they are enough.

    Rounds of few pairs cost more to start than to compute.
    """
    pairs = 0
    for count in rounds:
        pairs += count
        if pairs >= _BATCH:
            yield pairs
            pairs = 0
    if pairs:
        yield pairs


def _intersect_each(solids: Solids, part: Tensor, eye: Tensor, rays: Tensor) -> Tensor:
    """``intersect`` for parts [n] of any kinds and rays [n, R, 3] -> [n, R]."""
    hit = rays.new_empty(rays.shape[:2])
    kinds = solids.kind[part]
    for kind in SolidKind:
        mine = torch.nonzero(kinds == int(kind))[:, 0]
        if len(mine):
            hit[mine] = intersect(solids, kind, part[mine], eye, rays[mine])
    return hit


def all_pairs(
    solids: Solids,
    eye: Tensor,
    rays: Tensor,
    limit: Tensor,
    tile: Tensor,
    solid: Tensor,
    entry: Tensor,
) -> tuple[Tensor, Tensor]:
    """Tries all candidates of all tiles together."""
    distance, hits = limit.clone(), []
    for kind in SolidKind:
        mine = solids.kind[solid] == int(kind)
        t, s = tile[mine], solid[mine]
        hit = intersect(solids, kind, s, eye, rays[t])
        distance.scatter_reduce_(0, t[:, None].expand_as(hit), hit, "amin")
        hits.append((t, s, hit))
    winner = torch.full(limit.shape, -1, dtype=torch.int64, device=limit.device)
    for t, s, hit in hits:
        first = torch.where((hit == distance[t]) & (hit < limit[t]), s[:, None], -1)
        winner.scatter_reduce_(0, t[:, None].expand_as(hit), first, "amax")
    return distance, winner


def first_hit_reference(
    solids: Solids, eye: Tensor, rays: Tensor, limit: Tensor
) -> tuple[Tensor, Tensor]:
    """``first_hit``, every ray against every part."""
    distance, winner = limit.clone(), torch.full(limit.shape, -1, device=limit.device)
    for i in range(len(solids)):
        one = torch.full((len(rays),), i, device=rays.device)
        hit = intersect(solids, SolidKind(int(solids.kind[i])), one, eye, rays)
        winner = torch.where(hit < distance, i, winner)
        distance = torch.minimum(hit, distance)
    return distance, winner


def _candidate_pairs(solids: Solids, eye: Tensor, rays: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of (tile, part) that may meet, and a lower bound of their distance along the rays."""
    length = rays.norm(dim=-1, keepdim=True)
    unit = rays / length
    axis = torch.nn.functional.normalize(unit.mean(dim=1), dim=1)  # [T, 3]
    cos_open = (unit * axis[:, None]).sum(dim=-1).amin(dim=1).clamp(-1.0, 1.0 - 1e-7)
    sin_open = (1 - cos_open * cos_open).sqrt()
    longest = length.amax(dim=(1, 2))

    towards = solids.centre - eye
    away = towards.norm(dim=1)
    inside = away <= solids.radius * 1.001
    sin_size = (solids.radius / away.clamp(min=1e-6)).clamp(max=1.0)
    cos_size = (1 - sin_size * sin_size).sqrt()
    direction = towards / away.clamp(min=1e-6)[:, None]
    # First the parts in the whole view, then tile by tile; cones meet if the angle between
    # their axes is below the sum of their half angles (all are below 180 degrees together).
    look = torch.nn.functional.normalize(axis.mean(dim=0), dim=0)
    cos_view = (axis * look).sum(dim=1).amin()
    view = torch.acos(cos_view.clamp(-1, 1)) + torch.acos(cos_open.amin())
    size = torch.asin(sin_size)
    seen = inside | (torch.acos((direction * look).sum(dim=1).clamp(-1, 1)) < view + size)
    chosen = torch.nonzero(seen)[:, 0]
    if not len(chosen):
        none = torch.zeros(0, dtype=torch.long, device=rays.device)
        return none, none, none.float()

    tiles, parts = [], []
    step = max(1, _CHUNK // max(1, len(axis)))
    for part in chosen.split(step):
        bound = cos_open[:, None] * cos_size[part] - sin_open[:, None] * sin_size[part]  # [T, n]
        along = sum(axis[:, i, None] * direction[part, i] for i in range(3))
        meet = (along >= bound) | inside[part]
        t, p = torch.nonzero(meet, as_tuple=True)
        tiles.append(t)
        parts.append(part[p])
    tile, part = torch.cat(tiles), torch.cat(parts)
    # How far rays of the tile can be from its axis where they are beside the part.
    slack = (away[part] + solids.radius[part]) * (sin_open / cos_open.clamp(min=0.05))[tile]
    enter, leave = _slab(solids, part, eye, axis[tile], slack + 1e-3)
    keep = leave > enter.clamp(min=0.0)
    tile, part, enter = tile[keep], part[keep], enter[keep]
    # A slanted ray reaches a given depth along the axis a bit later, never earlier than this:
    lower = (enter.clamp(min=0.0) / longest[tile]) * 0.98 - 0.05
    return tile, part, lower


def _slab(
    solids: Solids, part: Tensor, eye: Tensor, ray: Tensor, slack: Tensor
) -> tuple[Tensor, Tensor]:
    """Where one ray per part [n, 3] enters and leaves the bounding block widened by ``slack``."""
    o, d = _into(solids, part, eye, ray[:, None, :])
    inverse = 1.0 / torch.where(d[..., 0].abs() < 1e-9, 1e-9, d[..., 0])
    a = (solids.box_low[part] - slack[:, None] - o) * inverse
    b = (solids.box_high[part] + slack[:, None] - o) * inverse
    return torch.minimum(a, b).amax(dim=1), torch.maximum(a, b).amin(dim=1)


def _into(solids: Solids, part: Tensor, eye: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
    """The eye [n, 3] and rays [n, 3, R] (from [n, R, 3]) in the frames of the parts."""
    c, s = solids.cos[part], solids.sin[part]
    x, y = eye[0] - solids.origin[part, 0], eye[1] - solids.origin[part, 1]
    o = torch.stack([c * x + s * y, c * y - s * x, eye[2].expand_as(x)], dim=1)
    c, s = c[:, None], s[:, None]
    dx, dy, dz = rays.unbind(dim=-1)
    return o, torch.stack([c * dx + s * dy, c * dy - s * dx, dz], dim=1)


def intersect(
    solids: Solids,
    kind: SolidKind,
    part: Tensor,  # [n]
    eye: Tensor,  # [3]
    rays: Tensor,  # [n, R, 3]
) -> Tensor:  # [n, R]
    """Distance to the first point of each part, in lengths of the rays; inf where it misses."""
    o, d = _into(solids, part, eye, rays)
    o = o[:, :, None]
    low, high = solids.low[part, :, None], solids.high[part, :, None]
    if kind == SolidKind.BLOCK:
        enter, leave = _through_planes(solids, part, o, d, low, high)
    elif kind == SolidKind.ELLIPSOID:
        centre, half = (low + high) / 2, (high - low) / 2
        p, q = (o - centre) / half, d / half
        enter, leave = _quadratic((q * q).sum(1), (p * q).sum(1), (p * p).sum(1) - 1)
    else:
        enter, leave = _through_cone(solids, part, o, d, low, high)
    return torch.where((leave > enter) & (enter > NEAR), enter, torch.inf)


def _through_planes(
    solids: Solids, part: Tensor, o: Tensor, d: Tensor, low: Tensor, high: Tensor
) -> tuple[Tensor, Tensor]:
    height = o[:, 2] - low[:, 2]
    dz = d[:, 2]
    dz = torch.where(dz.abs() < 1e-9, 1e-9, dz)
    inverse = 1.0 / dz
    a, b = (low[:, 2] - o[:, 2]) * inverse, (high[:, 2] - o[:, 2]) * inverse
    enter, leave = torch.minimum(a, b), torch.maximum(a, b)
    for axis in (0, 1):
        for bound, slope, sign in (
            (low, solids.slope_low, 1.0),
            (high, solids.slope_high, -1.0),
        ):
            k = slope[part, axis, None]
            depth = sign * (o[:, axis] - k * height - bound[:, axis])  # > 0: eye on the inner side
            rate = sign * (d[:, axis] - k * dz)
            rate = torch.where(rate.abs() < 1e-9, 1e-9, rate)
            t = -depth / rate
            inward = rate > 0
            enter = torch.where(inward, torch.maximum(enter, t), enter)
            leave = torch.where(inward, leave, torch.minimum(leave, t))
    return enter, leave


def _through_cone(
    solids: Solids, part: Tensor, o: Tensor, d: Tensor, low: Tensor, high: Tensor
) -> tuple[Tensor, Tensor]:
    growth = solids.slope_high[part, 0, None]
    px, qx = o[:, 0] / high[:, 0], d[:, 0] / high[:, 0]
    py, qy = o[:, 1] / high[:, 1], d[:, 1] / high[:, 1]
    pr, qr = 1 + growth * (o[:, 2] - low[:, 2]), growth * d[:, 2]
    a = qx * qx + qy * qy - qr * qr
    b = px * qx + py * qy - pr * qr
    c = px * px + py * py - pr * pr
    near, far = _quadratic(torch.where(a.abs() < 1e-9, 1e-9, a), b, c)
    dz = torch.where(d[:, 2].abs() < 1e-9, 1e-9, d[:, 2])
    inverse = 1.0 / dz
    u, v = (low[:, 2] - o[:, 2]) * inverse, (high[:, 2] - o[:, 2]) * inverse
    lid_in, lid_out = torch.minimum(u, v), torch.maximum(u, v)
    # A ray steeper than the side is inside before one root and behind the other.
    steep = a < 0
    never_out = steep & torch.isinf(near)
    first_out = torch.where(never_out, torch.inf, far)
    starts_inside = steep & (first_out > lid_in)
    enter = torch.where(starts_inside, lid_in, torch.maximum(lid_in, near))
    leave = torch.where(
        starts_inside,
        torch.minimum(lid_out, first_out),
        torch.where(steep, lid_out, torch.minimum(lid_out, far)),
    )
    return enter, leave


def _quadratic(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Roots of a t^2 + 2 b t + c, (inf, -inf) where there are none."""
    discriminant = b * b - a * c
    root = discriminant.clamp(min=0.0).sqrt()
    none = discriminant <= 0
    return (
        torch.where(none, torch.inf, (-b - root) / a),
        torch.where(none, -torch.inf, (-b + root) / a),
    )
