# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The same street in another light, through other cameras, over the own bonnet."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from training_source import VARIANT, DrawnSource

from alocc_ros.labels import OPENOCC
from alocc_ros.training.looks import Look
from alocc_ros.training.samples import Preparation
from alocc_ros.training.streams import Visit
from alocc_ros.types import CAMERAS


def test_another_light_changes_pixels_and_nothing_else():
    preparation = Preparation(DrawnSource(), VARIANT, OPENOCC, seed=0)
    dark = replace(preparation, light=1.0)
    for visit in (Visit(0, 0, 0, True), Visit(1, 0, 1, False)):
        a, b, again = preparation[visit], dark[visit], dark[visit]
        assert torch.equal(b.images, again.images)
        assert (a.images.float() - b.images.float()).abs().mean() > 2
        for name in ("labels", "depth_bins", "image_labels"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert replace(preparation, light=0.0)[visit].images.equal(a.images)


def test_what_the_own_bonnet_covers_is_not_learned():
    preparation = Preparation(DrawnSource(), VARIANT, OPENOCC, seed=0)
    a, b = (replace(preparation, bonnet=p)[Visit(0, 0, 0, True)] for p in (0.0, 1.0))
    front, left = CAMERAS.index("cam_front"), CAMERAS.index("cam_front_left")
    changed = (a.images != b.images).any(-1)
    assert changed[front, -1].float().mean() > 0.9 and not changed[front, :40].any()
    assert not changed[left].any()
    look = Look(bonnet={"cam_front": 0.5})
    blocks = look.covered_blocks("cam_front", VARIANT.input_size)
    assert blocks[-1].all() and not blocks[0].any()
    assert not look.covered_blocks("cam_front_left", VARIANT.input_size).any()


def test_the_sun_shines_into_one_lens():
    random, grey = np.random.default_rng(0), np.full((60, 80, 3), 50, np.uint8)
    look = Look(flare="cam_front", sun=(0.25, 0.2, 150.0))
    assert np.array_equal(look.apply(grey, "cam_back", random), grey)
    glare = look.apply(grey, "cam_front", random)[..., 0].astype(int) - 50
    brightest = np.unravel_index(glare.argmax(), glare.shape)
    assert np.abs(np.subtract(brightest, (12, 20))).max() <= 1 and glare.max() > 140
    assert glare[40:, 60:].mean() < 15


def test_a_rack_hangs_into_view_from_above():
    look = Look(rack={"cam_back": 0.25}, paint=(9.0, 9.0, 9.0))
    covered = look.covered("cam_back", (64, 96))
    assert covered[:16].all() and not covered[16:].any()
    assert look.covered_blocks("cam_back", (64, 96))[0].all()
    assert not look.covered("cam_front", (64, 96)).any()


def test_draws_are_of_every_kind():
    looks = [Look.sample(1.0, 1.0, np.random.default_rng(s)) for s in range(200)]
    assert 10 < sum(bool(look.flare) for look in looks) < 40
    assert 35 < sum(bool(look.rack) for look in looks) < 90
    assert all(look.bonnet for look in looks) and {look.blur for look in looks} == {1, 2, 3}
    assert {look.flare for look in looks} - {""} <= set(CAMERAS)
    assert all(Look.sample(0.0, 0.0, np.random.default_rng(s)) == Look() for s in range(5))


def test_noise_and_gamma_are_as_strong_as_they_say():
    random, grey = np.random.default_rng(0), np.full((60, 80, 3), 128, np.uint8)
    assert Look().apply(grey, "cam_front", random) is grey
    dark = Look(gain=0.5, gamma=2.0).apply(grey, "cam_front", random)
    assert abs(dark.mean() - 255 * (64 / 255) ** 2) < 1
    noisy = Look(noise=10.0).apply(grey, "cam_front", random)
    assert 7 < noisy.std() < 10 and abs(noisy.mean() - 128) < 1
