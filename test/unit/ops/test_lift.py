# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from operators import assert_close, gradients, random, threads, uniform
from torch import Tensor

from alocc_ros.ops.lift import bin_points, lattice_nodes, lift, lift_reference


class Case(NamedTuple):
    """Arguments of ``lift``, in its order."""

    geometry: Tensor
    context: Tensor
    rays: Tensor
    origin: Tensor
    us: Tensor
    vs: Tensor
    camera_mask: Tensor
    side_weight: Tensor | None
    side_offset: Tensor | None
    rows: Tensor | None
    weights: Tensor | None
    first_depth: float
    depth_step: float
    side_index_max: int
    lower: list[float]
    step: list[float]
    size: list[int]
    samples: int

    def without_sides(self) -> Case:
        return self._replace(side_weight=None, side_offset=None)

    def placed(self) -> Case:
        """With the nodes worked out before."""
        bins = self.geometry.shape[1]
        points = bin_points(
            self.rays, self.origin, self.us, self.vs, self.first_depth, self.depth_step, bins
        )
        rows, weights = lattice_nodes(points, self.lower, self.step, self.size)
        return self._replace(rows=rows, weights=weights)

    def camera(self, begin: int, end: int) -> Case:
        """One sample of these cameras."""
        by_camera = ("geometry", "context", "rays", "origin", "camera_mask")
        sides = () if self.side_weight is None else ("side_weight", "side_offset")
        parts = {n: getattr(self, n)[begin:end] for n in (*by_camera, *sides)}
        return self._replace(**parts, samples=1)


DIFFERENTIABLE = tuple(
    Case._fields.index(n) for n in ("geometry", "context", "side_weight", "side_offset")
)


def case(seed: int = 0, planar: bool = False, cameras: int = 3, samples: int = 1) -> Case:
    n, bins, h, w, channels = cameras * samples, 9, 4, 5, 6
    rays = 0.05 * random(n, 3, 3, seed=seed + 2).double()
    rays[:, :, 2] = random(n, 3, seed=seed + 3).double()
    return Case(
        geometry=uniform(n, bins, h, w, seed=seed),
        context=random(n, channels, h, w, seed=seed + 1),
        rays=rays,
        origin=random(n, 3, seed=seed + 4).double(),
        us=torch.linspace(0, 20, w, dtype=torch.float64),
        vs=torch.linspace(0, 15, h, dtype=torch.float64),
        camera_mask=torch.ones(n, dtype=torch.bool),
        side_weight=uniform(n, 27, h, w, seed=seed + 5),
        side_offset=8 * random(n, 18, h, w, seed=seed + 6).clamp(-1, 1),
        rows=None,
        weights=None,
        first_depth=1.0,
        depth_step=0.5,
        side_index_max=5,
        lower=[-4.0, -5.0, -1.0],
        step=[0.5, 0.4, 3.2] if planar else [0.5, 0.4, 0.8],
        size=[16, 25, 1] if planar else [16, 25, 5],
        samples=samples,
    )


def one_point(x: float, y: float, z: float) -> Case:
    """A single pixel with a single depth bin of mass 1 and context 3 at (x, y, z) metres."""
    one = torch.zeros(1, dtype=torch.float64)
    return case()._replace(
        geometry=torch.ones(1, 1, 1, 1),
        context=torch.full((1, 1, 1, 1), 3.0),
        rays=torch.zeros(1, 3, 3, dtype=torch.float64),
        origin=torch.tensor([[x, y, z]], dtype=torch.float64),
        us=one,
        vs=one,
        camera_mask=torch.ones(1, dtype=torch.bool),
        side_weight=None,
        side_offset=None,
        lower=[0.0, 0.0, 0.0],
        step=[1.0, 0.5, 1.0],
        size=[4, 6, 3],
    )


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("with_sides", [False, True])
@pytest.mark.parametrize("mask", [[True, True, True], [True, False, True]])
@pytest.mark.parametrize("seed", range(2))
def test_it_equals_the_reference(form, seed, planar, with_sides, mask):
    arguments = case(seed, planar)._replace(camera_mask=torch.tensor(mask))
    arguments = arguments if with_sides else arguments.without_sides()
    reference = lift_reference(*arguments)
    assert float(reference.abs().max()) > 0.1
    assert_close(form(lift)(*arguments), reference)


@pytest.mark.parametrize("with_sides", [False, True])
@pytest.mark.parametrize("samples", [1, 2])
def test_nodes_worked_out_before_change_nothing(form, with_sides, samples):
    arguments = case(7, samples=samples)
    arguments = arguments if with_sides else arguments.without_sides()
    ours = form(lift)(*arguments.placed())
    assert_close(ours, form(lift)(*arguments), tolerance=1e-6)
    assert_close(ours, lift_reference(*arguments))


@pytest.mark.parametrize("with_sides", [False, True])
def test_a_batch_is_each_sample_alone(form, with_sides):
    arguments = case(3, samples=2)._replace(camera_mask=torch.tensor([True, True, False] * 2))
    arguments = arguments if with_sides else arguments.without_sides()
    alone = [form(lift)(*arguments.camera(3 * i, 3 * i + 3)) for i in range(2)]
    assert not torch.allclose(*alone)
    together = form(lift)(*arguments)
    assert_close(together, torch.cat(alone), tolerance=1e-6)
    assert_close(together, lift_reference(*arguments))


def test_a_masked_camera_leaves_nothing_even_if_it_saw_nan(form):
    arguments = case(1)
    without = lift_reference(*arguments._replace(camera_mask=torch.tensor([True, False, True])))
    for name in ("geometry", "context", "side_weight"):
        spoilt = getattr(arguments, name).clone()
        spoilt[1] = torch.nan
        masked = arguments._replace(**{name: spoilt}, camera_mask=torch.tensor([True, False, True]))
        assert_close(form(lift)(*masked), without)


def test_all_cameras_masked_leave_an_empty_volume(form):
    arguments = case()._replace(camera_mask=torch.zeros(3, dtype=torch.bool))
    assert not form(lift)(*arguments).any()


@pytest.mark.parametrize("name", ["geometry", "context"])
def test_nan_is_shown_where_it_lands(form, name):
    arguments = case(2).without_sides()
    clean = form(lift)(*arguments)
    spoilt = getattr(arguments, name).clone()
    spoilt[0, :, 1, 1] = torch.nan  # some of its bins lie inside
    arguments = arguments._replace(**{name: spoilt})
    nan, reference = form(lift)(*arguments).isnan(), lift_reference(*arguments).isnan()
    # What lies outside is added to the first node of its axis with weight 0 by all forms but the C
    # kernel: NaN * 0 shows there too.
    assert torch.equal(nan[..., 1:, 1:, 1:], reference[..., 1:, 1:, 1:])
    assert nan[..., 1:, 1:, 1:].any() and not nan.all() and not clean.isnan().any()


def test_points_outside_at_nan_or_at_infinity_leave_nothing(form):
    for place in (-1.0, 1e9, -1e9, 1e300, torch.inf, -torch.inf, torch.nan):
        for axis in range(3):
            point = [1.0, 1.0, 1.0]
            point[axis] = place
            assert not form(lift)(*one_point(*point)).any()


def test_mass_inside_is_kept_and_halved_between_nodes(form):
    volume = form(lift)(*one_point(1.0, 2.25, 0.0))[0, 0]  # [Y, X, Z]
    assert volume.sum() == 3.0
    # y = 2.25 m lies between nodes 4 (2.0 m) and 5 (2.5 m); x = 1 m on node 1.
    assert volume[4, 1, 0] == 1.5 and volume[5, 1, 0] == 1.5


def test_at_the_border_what_belongs_to_nodes_outside_is_lost(form):
    volume = form(lift)(*one_point(-0.25, 0.0, 2.0))[0, 0]
    assert volume.sum() == volume[0, 0, 2] == 0.75 * 3.0
    volume = form(lift)(*one_point(3.0, 2.75, 2.5))[0, 0]  # half over in y, half over in z
    assert volume.sum() == volume[5, 3, 2] == 0.25 * 3.0


def test_it_keeps_nothing_of_earlier_calls(form):
    arguments = case(0)
    moved = arguments._replace(origin=arguments.origin + 0.3)
    shifted = moved._replace(lower=[-4.1, -5.0, -1.0])
    for one in (arguments, moved, shifted, arguments):
        assert_close(form(lift)(*one), lift_reference(*one))


def test_gradients_are_those_of_the_reference():
    arguments = case(1, samples=2)._replace(
        camera_mask=torch.tensor([True, False, True, True, True, True])
    )
    reference = gradients(lift_reference, arguments, DIFFERENTIABLE)
    assert all(g.abs().max() > 0 for g in reference)
    for one in (arguments, arguments.placed()):
        for own, theirs in zip(gradients(lift, one, DIFFERENTIABLE), reference, strict=True):
            assert_close(own, theirs)


@pytest.mark.parametrize("cameras", [1, 3])
def test_threads_change_nothing(compiled, cameras):
    volumes = []
    for count in (1, 2, 3, 7):
        with threads(count):
            volumes.append(lift(*case(0, cameras=cameras, samples=2)))
    assert all(torch.equal(volumes[0], v) for v in volumes)
