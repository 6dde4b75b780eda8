# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What is true of a scene at one instant: voxels, flow, masks, and a LiDAR's points.

As in the benchmarks, the grid lies in the vehicle's frame at the LiDAR's time, and things are
where they are at that time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alocc_ros.geometry import inverse
from alocc_ros.grid import OCC3D_GRID, VoxelGrid
from alocc_ros.labels import OCC3D, OPENOCC, label_map
from alocc_ros.metrics import rays as evaluation_rays
from alocc_ros.ops import native
from alocc_ros.synthetic import rig
from alocc_ros.synthetic.cast import Solids, nearest, tile_image, turned
from alocc_ros.synthetic.shapes import Kind
from alocc_ros.synthetic.world import Scene

FREE = OCC3D.free
_SUB = 2  # samples along each edge of a voxel
_WIDER = 0.1  # m by which things are widened, so that a voxel that they touch counts as theirs
_OVER_GROUND = 3  # must, where the voxel also holds ground
_SHELL = 0.8  # m of a house's walls, roof and floor that are solid
_CHUNK = 1 << 18  # voxels of parts at a time
_PIXELS = (112, 200)  # rays of a camera for the visibility mask; 0.25 m apart 40 m away
# m. On the ground, seen at a flat angle, those rows lie metres apart: it has rays of its own.
_GROUND_RANGES = np.arange(3.0, 58.0, 0.3)

# nuScenes' own numbers of classes, by Occ3D label; people and two-wheelers in ``lidarseg_of``.
_GENERAL = {
    "others": 11,
    "barrier": 9,
    "bicycle": 14,
    "bus": 16,
    "car": 17,
    "construction_vehicle": 18,
    "motorcycle": 21,
    "pedestrian": 2,
    "traffic_cone": 12,
    "trailer": 22,
    "truck": 23,
    "driveable_surface": 24,
    "other_flat": 25,
    "sidewalk": 26,
    "terrain": 27,
    "manmade": 28,
    "vegetation": 30,
    "free": 0,
}
_LIDARSEG = np.array([_GENERAL[name] for name in OCC3D.names], dtype=np.uint8)
# Occ3D label to OpenOcc label; OpenOcc knows no "others", such voxels are free.
_OPENOCC = label_map(OCC3D, OPENOCC, missing=OPENOCC.free)


@dataclass(frozen=True)
class Voxels:
    """What fills a grid.

    Attributes:
        labels: [X, Y, Z] uint8, Occ3D.
        flow: [X, Y, Z, 2] float32 m/s (vx, vy) along the axes of the grid, over ground; zero
            where nothing moves.
    """

    labels: np.ndarray
    flow: np.ndarray


@dataclass(frozen=True)
class Points:
    """A turn of the LiDAR.

    Attributes:
        points: [P, 5] float32: x, y, z (m, LiDAR frame), intensity (0 to 255), ring.
        labels: [P] uint8, Occ3D.
        lidarseg: [P] uint8, nuScenes' general classes.
        things: [P] int32 index into ``scene.things``, -1 for none.
    """

    points: np.ndarray
    labels: np.ndarray
    lidarseg: np.ndarray
    things: np.ndarray


def openocc_labels(labels: np.ndarray) -> np.ndarray:
    """Occ3D labels as OpenOcc's; ``others`` become free."""
    return _OPENOCC[labels]


def fill(
    scene: Scene,
    time: float,
    map_T_grid: np.ndarray,  # [4, 4]
    grid: VoxelGrid = OCC3D_GRID,
    *,
    solids: Solids | None = None,
    device: torch.device | str = "cpu",
) -> Voxels:
    """What fills each voxel of a grid that lies at ``map_T_grid``."""
    solids = scene.solids(time, device) if solids is None else solids
    device = solids.origin.device
    pose = torch.as_tensor(map_T_grid, dtype=torch.float32, device=device)
    best = _fill_things(scene, solids, pose, grid)
    count, part = best >> 32 & 15, (best & 0xFFFFFFFF)
    label_of = torch.as_tensor(scene.labels, device=device)
    labels = torch.where(best > 0, label_of[part], FREE).view(grid.shape)
    over = (count >= _OVER_GROUND).view(grid.shape)
    level, ground = _ground_level(scene, pose, grid)
    here = torch.arange(grid.shape[2], device=device) == level[..., None]
    labels = torch.where(here & ~over, ground[..., None], labels)

    velocity = torch.as_tensor(scene.thing_velocities(time), dtype=torch.float32, device=device)
    velocity = torch.cat([velocity, velocity.new_zeros(1, 2)])  # the last one: the town
    velocity = (velocity[:, :, None] * pose[:2, :2]).sum(dim=1)  # the rotation, transposed
    owner = torch.as_tensor(scene.owner, device=device)[part].view(grid.shape)
    thing = torch.where((labels != FREE) & ~(here & ~over), owner, -1)
    return Voxels(labels.cpu().numpy(), velocity[thing].cpu().numpy())


def _fill_things(scene: Scene, solids: Solids, pose: Tensor, grid: VoxelGrid) -> Tensor:
    """[cells] int64: rank << 36 | samples inside << 32 | part of the part that wins, or 0."""
    device = solids.origin.device
    lower = torch.tensor(grid.lower, device=device)
    shape = torch.tensor(grid.shape, device=device)
    # Cells that each part's bounding block may touch.
    pick = torch.tensor([[(n >> a) & 1 for a in range(3)] for n in range(8)], device=device)
    corner = torch.where(pick[None] == 1, solids.box_high[:, None], solids.box_low[:, None])
    c, s = solids.cos[:, None], solids.sin[:, None]
    x = solids.origin[:, :1] + c * corner[..., 0] - s * corner[..., 1]
    y = solids.origin[:, 1:] + s * corner[..., 0] + c * corner[..., 1]
    corner = turned(torch.stack([x, y, corner[..., 2]], dim=-1) - pose[:3, 3], pose[:3, :3].T)
    cells = (corner - lower) / grid.resolution
    first = torch.floor(cells.amin(dim=1) - 0.3).long().clamp(min=0)
    last = torch.minimum(torch.floor(cells.amax(dim=1) + 0.3).long(), shape - 1)
    extent = (last - first + 1).clamp(min=0)
    number = extent.prod(dim=1)

    best = torch.zeros(int(shape.prod()), dtype=torch.int64, device=device)
    rank = torch.as_tensor(_RANK, device=device)[
        torch.as_tensor(scene.labels, device=device).long()
    ]
    hollow = torch.tensor([p.hollow for p in scene.parts], device=device)
    step = (torch.arange(_SUB, device=device) + 0.5) / _SUB
    offsets = torch.cartesian_prod(step, step, step)  # [8, 3] of a cell
    inside = torch.nonzero(number)[:, 0]
    for group in _groups(inside, number):
        part = torch.repeat_interleave(group, number[group])
        within = torch.arange(len(part), device=device)
        within -= torch.repeat_interleave(number[group].cumsum(0) - number[group], number[group])
        size = extent[part]
        k = within % size[:, 2]
        j = within // size[:, 2] % size[:, 1]
        i = within // (size[:, 2] * size[:, 1])
        cell = first[part] + torch.stack([i, j, k], dim=1)
        points = (cell[:, None] + offsets) * grid.resolution + lower
        points = turned(points, pose[:3, :3]) + pose[:3, 3]
        count = _contains(solids, part, points, hollow[part]).sum(dim=1)
        enough = count > 0
        cell, part, count = cell[enough], part[enough], count[enough]
        flat = (cell[:, 0] * grid.shape[1] + cell[:, 1]) * grid.shape[2] + cell[:, 2]
        key = rank[part] << 36 | count << 32 | part
        best.scatter_reduce_(0, flat, key, "amax")
    return best


# What is small or moves is told before what it stands in; 0 would mean nothing.
_RANK = np.array(
    [1 if n in ("manmade", "vegetation") else 2 if n in ("others", "barrier", "traffic_cone") else 3
     for n in OCC3D.names],
    dtype=np.int64,
)  # fmt: skip


def _groups(index: Tensor, number: Tensor) -> Iterable[Tensor]:
    """``index`` in pieces with together about _CHUNK cells."""
    if len(index):
        piece = number[index].cumsum(0) // _CHUNK
        yield from torch.split(
            index, torch.unique_consecutive(piece, return_counts=True)[1].tolist()
        )


def _contains(solids: Solids, part: Tensor, points: Tensor, hollow: Tensor) -> Tensor:
    """Which points [n, 8, 3] lie in their parts: [n, 8].

    Parts are widened a little, thin ones to the spacing of the samples: none slips between.
    """
    low, high = solids.low[part], solids.high[part]
    half = (high - low) / 2
    pad = (0.1 - half).clamp(min=_WIDER)  # samples are 0.2 m apart
    x, y = points[..., 0] - solids.origin[part, :1], points[..., 1] - solids.origin[part, 1:]
    c, s = solids.cos[part, None], solids.sin[part, None]
    x, y, z = c * x + s * y, c * y - s * x, points[..., 2]
    kind = solids.kind[part, None]
    low, high, half, pad = (v[:, None] for v in (low, high, half + pad, pad))
    rise = z - low[..., 2]
    a, b = solids.slope_low[part, None], solids.slope_high[part, None]
    sides = torch.stack(
        [
            x - (low[..., 0] + a[..., 0] * rise) + pad[..., 0],
            (high[..., 0] + b[..., 0] * rise) - x + pad[..., 0],
            y - (low[..., 1] + a[..., 1] * rise) + pad[..., 1],
            (high[..., 1] + b[..., 1] * rise) - y + pad[..., 1],
            high[..., 2] - z + pad[..., 2],
        ]
    ).amin(dim=0)
    between = (rise >= -pad[..., 2]) & (z <= high[..., 2] + pad[..., 2])
    deep = torch.minimum(sides, rise) > _SHELL
    block = (sides >= 0) & between & ~(hollow[:, None] & deep)
    across = (x / half[..., 0]) ** 2 + (y / half[..., 1]) ** 2
    middle = (low[..., 2] + high[..., 2]) / 2
    ellipsoid = across + ((z - middle) / half[..., 2]) ** 2 <= 1
    radius = (1 + b[..., 0] * rise).clamp(min=0.0)
    cone = between & (across <= radius * radius)
    return torch.where(
        kind == Kind.BLOCK, block, torch.where(kind == Kind.ELLIPSOID, ellipsoid, cone)
    )


def _ground_level(scene: Scene, pose: Tensor, grid: VoxelGrid) -> tuple[Tensor, Tensor]:
    """For each column: the level of the cell that holds the ground (or none), and its class."""
    device = pose.device
    x, y = (
        low + (torch.arange(n, device=device) + 0.5) * grid.resolution
        for low, n in zip(grid.lower[:2], grid.shape[:2], strict=True)
    )
    x, y = torch.meshgrid(x, y, indexing="ij")
    z = -(pose[2, 3] + pose[2, 0] * x + pose[2, 1] * y) / pose[2, 2]
    level = torch.floor((z - grid.lower[2]) / grid.resolution).long()
    mx = pose[0, 0] * x + pose[0, 1] * y + pose[0, 2] * z + pose[0, 3]
    my = pose[1, 0] * x + pose[1, 1] * y + pose[1, 2] * z + pose[1, 3]
    return level, scene.streets.labels(mx, my)


# -- what can be seen of a grid ----------------------------------------------------------------


def touched(
    labels: np.ndarray,  # [X, Y, Z]
    origins: np.ndarray,  # [n, 3] m, in the grid's frame
    directions: np.ndarray,  # [n, 3]
    grid: VoxelGrid = OCC3D_GRID,
    free: int = FREE,
    *,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """[X, Y, Z] bool: voxels that rays pass or hit; each ends in the first that is not free.

    On a CPU with a compiler in C; ``touched_slow`` gives the same.
    """
    solid = torch.as_tensor(labels != free, device=device)
    rays = _enter(origins, directions, grid, solid.device)
    library = native.library() if solid.device.type == "cpu" else None
    if library is None:
        return touched_slow(solid, *rays).cpu().numpy()
    seen = torch.zeros_like(solid)
    tensors = [t.contiguous() for t in (solid, *rays)]

    def rows(begin: int, end: int) -> None:
        library.touch_voxels(
            native.pointer(tensors[0]),
            *(native.i64(n) for n in grid.shape),
            *(native.pointer(t) for t in tensors[1:]),
            native.pointer(seen),
            native.i64(begin),
            native.i64(end),
        )

    native.parallel(rows, len(rays[0]), grain=1024)
    return seen.numpy()


def _enter(
    origins: np.ndarray, directions: np.ndarray, grid: VoxelGrid, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of rays that meet the grid: first cell, way, reach and pace, [n, 3] each.

    A reach is the ray's parameter at the next face across an axis, a pace that between two
    faces; the way is 1 or -1.
    """
    shape = torch.tensor(grid.shape, device=device)
    start = (origins - np.asarray(grid.lower)) / grid.resolution
    o = torch.as_tensor(start, dtype=torch.float32, device=device)
    d = torch.as_tensor(directions, dtype=torch.float32, device=device)
    d = torch.where(d.abs() < 1e-7, 1e-7, d)
    t0, t1 = (0 - o) / d, (shape - o) / d
    enter = torch.minimum(t0, t1).amax(dim=1).clamp(min=0.0)
    keep = enter < torch.maximum(t0, t1).amin(dim=1)
    o, d, enter = o[keep], d[keep], enter[keep]
    cell = torch.floor(o + d * enter[:, None]).clamp(min=0)
    cell = torch.minimum(cell, (shape - 1).float())
    way = torch.where(d > 0, 1, -1).int()
    return cell.int(), way, (cell + (d > 0) - o) / d, (1 / d).abs()


def touched_slow(
    solid: Tensor,  # [X, Y, Z] bool
    cell: Tensor,
    way: Tensor,
    reach: Tensor,
    pace: Tensor,
) -> Tensor:  # [X, Y, Z] bool
    """The walk of ``touched``, one step of all rays at a time; for the rays see ``_enter``."""
    size = torch.tensor(solid.shape, device=solid.device)
    stride = torch.tensor([solid.shape[1] * solid.shape[2], solid.shape[2], 1], device=solid.device)
    seen = torch.zeros_like(solid).view(-1)
    blocked = solid.reshape(-1)
    cell, reach = cell.long(), reach.clone()
    while len(cell):
        flat = (cell * stride).sum(dim=1)
        seen[flat] = True
        axis = reach.argmin(dim=1, keepdim=True)
        cell = cell.scatter_add(1, axis, way.gather(1, axis).long())
        reach = reach.scatter_add(1, axis, pace.gather(1, axis))
        at = cell.gather(1, axis)[:, 0]
        go = ~blocked[flat] & (at >= 0) & (at < size[axis[:, 0]])
        cell, way, reach, pace = cell[go], way[go], reach[go], pace[go]
    return seen.view(solid.shape)


def camera_mask(
    scene: Scene, labels: np.ndarray, cycle: float, lidar_time: float, **kwargs
) -> np.ndarray:
    """[X, Y, Z] bool: voxels that some camera's rays pass or hit, each camera at its own time."""
    base_T_map = inverse(scene.ego_pose(lidar_time))
    origins, directions = [], []
    for name, calibration in rig.cameras(*_PIXELS).items():
        time = cycle + rig.PHASES[name] / 1e9
        base_T_camera = base_T_map @ scene.ego_pose(time) @ calibration.base_T_camera
        focal, centre = calibration.intrinsics[1, 1:]
        over_ground = calibration.base_T_camera[2, 3]
        rows = np.append(
            np.arange(calibration.height), centre + focal * over_ground / _GROUND_RANGES
        )
        rows = rows[rows < calibration.height]
        v, u = np.meshgrid(rows, np.arange(calibration.width), indexing="ij")
        rays = np.stack([u.ravel(), v.ravel(), np.ones(u.size)], axis=1)
        rays = rays @ np.linalg.inv(calibration.intrinsics).T
        directions.append(rays @ base_T_camera[:3, :3].T)
        origins.append(np.broadcast_to(base_T_camera[:3, 3], rays.shape))
    return touched(labels, np.concatenate(origins), np.concatenate(directions), **kwargs)


def lidar_mask(labels: np.ndarray, **kwargs) -> np.ndarray:
    """[X, Y, Z] bool: voxels between the lowest and highest beam that the LiDAR sees."""
    sensor = rig.lidar()
    # Between the beams too: the benchmark's masks join the sweeps of a whole scene.
    low, high = sensor.elevations[[0, -1]]
    over_ground = sensor.base_T_lidar[2, 3]
    elevations = np.append(np.linspace(low, high, 96), -np.arctan(over_ground / _GROUND_RANGES))
    elevations = elevations[elevations >= low]
    azimuth, elevation = np.meshgrid(np.radians(np.arange(0, 360, 0.5)), elevations)
    level = np.cos(elevation)
    rays = np.stack([level * np.cos(azimuth), level * np.sin(azimuth), np.sin(elevation)], -1)
    rays = rays.reshape(-1, 3) @ sensor.base_T_lidar[:3, :3].T
    origin = np.broadcast_to(sensor.base_T_lidar[:3, 3], rays.shape)
    return touched(labels, origin, rays, **kwargs)


def ray_mask(labels: np.ndarray, origins: np.ndarray, **kwargs) -> np.ndarray:
    """[X, Y, Z] bool: voxels that the benchmark's rays from these origins [n, 3] m touch."""
    rays = evaluation_rays.ray_directions()
    starts = np.repeat(origins, len(rays), axis=0)
    return touched(labels, starts, np.tile(rays, (len(origins), 1)), **kwargs)


# -- LiDAR -------------------------------------------------------------------------------------


def scan(
    scene: Scene,
    time: float,
    *,
    sensor: rig.Lidar | None = None,
    solids: Solids | None = None,
    device: torch.device | str = "cpu",
) -> Points:
    """One turn of the LiDAR, all of it at ``time`` (as if motion had been compensated)."""
    sensor = rig.lidar() if sensor is None else sensor
    solids = scene.solids(time, device) if solids is None else solids
    device = solids.origin.device
    rings, columns = len(sensor.elevations), sensor.columns
    azimuth = np.linspace(np.pi, -np.pi, columns, endpoint=False)
    level = np.cos(sensor.elevations)[:, None]
    rays = np.stack(
        np.broadcast_arrays(
            level * np.cos(azimuth), level * np.sin(azimuth), np.sin(sensor.elevations)[:, None]
        ),
        axis=-1,
    ).reshape(-1, 3)
    map_T_lidar = scene.ego_pose(time) @ sensor.base_T_lidar
    pose = torch.as_tensor(map_T_lidar, dtype=torch.float32, device=device)
    in_map = turned(torch.as_tensor(rays, dtype=torch.float32, device=device), pose[:3, :3])
    pixels = tile_image(rings, columns, 8, torch.device(device))
    tiles = in_map[pixels]
    down = tiles[..., 2].clamp(max=-1e-4)
    ground = torch.where(tiles[..., 2] < -1e-4, -pose[2, 3] / down, torch.inf)
    limit = ground.clamp(max=sensor.reach)
    reached, hit = nearest(solids, pose[:3, 3], tiles, limit)
    distance = torch.empty(len(rays), device=device)
    winner = torch.empty(len(rays), dtype=torch.long, device=device)
    distance[pixels.view(-1)], winner[pixels.view(-1)] = reached.view(-1), hit.view(-1)

    place = pose[:3, 3] + in_map * distance[:, None]
    labels = scene.streets.labels(place[:, 0], place[:, 1]).cpu().numpy()
    distance, winner = distance.cpu().numpy(), winner.cpu().numpy()
    solid = winner >= 0
    part = solids.part.cpu().numpy()[np.maximum(winner, 0)]
    labels = np.where(solid, scene.labels[part], labels)
    things = np.where(solid, scene.owner[part], -1).astype(np.int32)
    random = np.random.default_rng([scene.seed, round(time * 1e6) & 0xFFFFFFFF])
    measured = distance + random.normal(0.0, sensor.noise, len(distance))
    kept = (distance < sensor.reach) & (distance > 1.0) & (random.random(len(distance)) > 0.03)
    bright = np.array([sum(p.colour) / 3 for p in scene.parts], dtype=np.float32)[part]
    intensity = np.where(solid, 20 + 160 * bright, 12.0) * np.exp(-distance / 60)
    intensity = np.clip(intensity * random.uniform(0.7, 1.3, len(distance)), 0, 255).round()
    ring = np.repeat(np.arange(rings), columns)
    points = np.column_stack([rays * measured[:, None], intensity, ring]).astype(np.float32)
    # Column after column, as the head turns.
    order = np.arange(len(rays)).reshape(rings, columns).T.reshape(-1)
    order = order[kept[order]]
    general = _lidarseg(scene, labels, things)
    return Points(points[order], labels[order].astype(np.uint8), general[order], things[order])


def _lidarseg(scene: Scene, labels: np.ndarray, things: np.ndarray) -> np.ndarray:
    """nuScenes' general classes [n] uint8, which know more kinds of people."""
    worker = np.array([t.detail == "worker" for t in scene.things] + [False])
    general = _LIDARSEG[labels].copy()
    general[worker[things]] = 4  # human.pedestrian.construction_worker
    return general
