# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Training on lifted volumes that were computed once: the same network, the same answers."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace

import numpy as np
import pytest
import torch
from training_frames import MEAN, PLAIN, STD, normalised, training_frame
from training_source import VARIANT, DrawnSource, trainer

from alocc_ros.errors import DataError, ParameterError
from alocc_ros.network.model import Alocc
from alocc_ros.network.state import State
from alocc_ros.network.variants import VARIANTS
from alocc_ros.training.augmentation import GridFlip
from alocc_ros.training.forward import TrainingForward
from alocc_ros.training.source import JoinedSource
from alocc_ros.training.stripes import StripeForward, check_stripes
from alocc_ros.training.volumes import IMAGE_PARTS, VolumeStore


def with_volumes(frames, forward):
    """The same frames, lifted; volumes are made in a grid that is not mirrored."""
    plain = torch.eye(3, dtype=torch.float64)
    for frame in frames:
        flipped = frame.cameras.augmentation
        still = replace(frame, cameras=replace(frame.cameras, augmentation=plain))
        x, y, _ = (bool(v < 0) for v in flipped.diagonal())
        mirrored = np.ascontiguousarray(GridFlip(x, y).volume(forward.lift([still])[0].numpy()))
        yield replace(frame, volume=torch.from_numpy(mirrored))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Alocc(VARIANT).eval()


@torch.no_grad()
def test_the_whole_grid_is_what_images_give(network):
    """Over several frames with history, two streams at once."""
    images = TrainingForward(network, MEAN, STD, "bgr")
    volumes = StripeForward(network, MEAN, STD, "bgr")
    expected_memories = memories = [None, None]
    for t in range(3):
        frames = [training_frame(VARIANT, t, s) for s in (0, 1)]
        expected, expected_memories = images(frames, expected_memories, PLAIN)
        got, memories = volumes(list(with_volumes(frames, images)), memories, PLAIN)
        torch.testing.assert_close(got.logits, expected.logits)
        torch.testing.assert_close(got.flow_cost, expected.flow_cost)
        for a, b in zip(memories, expected_memories, strict=True):
            torch.testing.assert_close(a.history, b.history)
            torch.testing.assert_close(a.flow_bev, b.flow_bev)
    assert expected.logits.std() > 1e-3  # of something


@torch.no_grad()
def test_the_whole_grid_is_the_same_from_images(network):
    """With measured depth in it, as in training's beginning."""
    phase = replace(PLAIN, depth_truth=0.5)
    forwards = [kind(network, MEAN, STD, "bgr") for kind in (TrainingForward, StripeForward)]
    memories = [[None], [None]]
    for t in range(2):
        said = []
        for n, forward in enumerate(forwards):
            prediction, memories[n] = forward([training_frame(VARIANT, t)], memories[n], phase)
            said.append(prediction)
        for name in ("depth", "image_logits", "logits", "voxels", "flow_cost"):
            torch.testing.assert_close(*(getattr(p, name) for p in said[::-1]))
    assert said[0].logits.std() > 1e-3  # of something


@torch.no_grad()
@pytest.mark.parametrize("signs", [(-1, 1), (1, -1), (-1, -1)])
def test_a_mirrored_volume_is_what_is_lifted_in_a_mirrored_grid(network, signs):
    forward = TrainingForward(network, MEAN, STD, "bgr")
    frame = training_frame(VARIANT, 1)
    mirror = torch.diag(torch.tensor([*signs, 1], dtype=torch.float64))
    flipped = replace(frame, cameras=replace(frame.cameras, augmentation=mirror))
    plain, moved = (
        forward._plan([f], [None], [torch.eye(4, dtype=torch.float64)], frame.images.device)[0]
        for f in (frame, flipped)
    )
    # The depth network is told how the grid is mirrored, which it is not outside training.
    depth, _ = network.encode_images(
        normalised(frame.images), plain, State(stereo=forward._stereo([frame]))
    )
    expected = network.lift(depth, moved, None, None)[0]
    (got,) = with_volumes([flipped], forward)
    inner = [slice(1, None) if s < 0 else slice(None) for s in signs[::-1]]  # y, x
    torch.testing.assert_close(
        got.volume[(slice(None), *inner)],
        expected[(slice(None), *inner)],
        rtol=1e-4,
        atol=1e-5 * float(expected.max()),
    )


@torch.no_grad()
def test_rows_are_a_stripe_of_it_that_stays_on_the_ground(network):
    images, whole, stripe = (
        TrainingForward(network, MEAN, STD, "bgr"),
        StripeForward(network, MEAN, STD, "bgr"),
        StripeForward(network, MEAN, STD, "bgr", rows=16, seed=3),
    )
    mirror = torch.diag(torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64))
    memories, all_memories, places = [None], [None], []
    for t in range(3):
        frame = training_frame(VARIANT, t)
        if t == 1:
            frame = replace(frame, cameras=replace(frame.cameras, augmentation=mirror))
        frames = list(with_volumes([frame], images))
        expected, all_memories = whole(frames, all_memories, PLAIN)
        got, memories = stripe(frames, memories, PLAIN)
        (rows,) = got.rows
        places.append((rows.start, rows.stop))
        assert got.logits.shape[3] == got.flow_cost.shape[2] == 16
        # A convolution sees nothing beyond the stripe; where it does not look there, all is equal.
        middle, inner = slice(rows.start + 8, rows.start + 9), slice(8, 9)
        difference = (got.logits[:, :, :, inner] - expected.logits[:, :, :, middle]).abs().mean()
        assert difference < 0.2 * expected.logits.std()
    count = VARIANT.grid.shape[1]
    assert places[0] == places[2] and places[1] == tuple(count - p for p in places[0][::-1])


def test_a_run_makes_its_volumes_once_and_learns_from_them(tmp_path):
    settings = {"frozen": IMAGE_PARTS, "volumes": str(tmp_path / "volumes"), "crop_rows": 20}
    settings |= {"mask_weight": 0.0, "dice_weight": 0.0, "entropy_weight": 1.0, "image_flip": 1.0}
    run = trainer(tmp_path / "a", **settings, steps=4, save_every=2)
    before = {n: p.clone() for n, p in run.network.state_dict().items()}
    told = []
    run.fill_volumes(lambda done, of: told.append((done, of)))
    frames = sum(map(len, DrawnSource().scenes))
    assert told[-1] == (frames, frames)
    files = sorted((tmp_path / "volumes").rglob("*.npy"))
    assert len(files) == frames and np.load(files[0]).dtype == np.float16
    losses = []
    run.run(lambda report: losses.append(report.losses))
    assert set(losses[0]) == {"entropy", "flow_bin", "flow", "flow_angle"}
    changed = {n for n, p in run.network.state_dict().items() if not torch.equal(p, before[n])}
    assert any(n.startswith("alocc_head.flow_predicter") for n in changed)
    assert not any(n.startswith(IMAGE_PARTS) for n in changed)

    files[3].unlink()
    again = trainer(tmp_path / "b", **settings, steps=4)
    again.fill_volumes(lambda done, of: told.append((done, of)))
    assert told[-1] == (1, 1)
    # The command begins with any weights before it reads the checkpoint.
    resumed = trainer(tmp_path / "a", weights=1, **settings, steps=5)
    resumed.resume()
    told.clear()
    resumed.fill_volumes(lambda done, of: told.append((done, of)))
    assert told == []
    rest = []
    resumed.run(lambda report: rest.append(report.step))
    assert rest == [4]

    for file in files:
        file.write_bytes(file.read_bytes()[:1000])
    damaged = trainer(tmp_path / "c", **settings, steps=4, workers=1)
    with pytest.raises(DataError, match="delete it, and it is made again") as told_why:
        damaged.run()
    # While the error is alive its traceback holds the loader; whose processes have to be gone.
    assert multiprocessing.active_children() == [] and told_why.value.__traceback__ is not None


def test_images_learn_from_a_stripe_of_the_grid(tmp_path):
    settings = {"crop_rows": 20, "mask_weight": 0.0, "dice_weight": 0.0, "entropy_weight": 1.0}
    settings |= {"image_entropy_weight": 0.5, "jaccard_weight": 1.0, "image_steps": 1}
    run = trainer(tmp_path, **settings, steps=3)
    before = {n: p.clone() for n, p in run.network.state_dict().items()}
    reports = []
    run.run(lambda report: reports.append(report.losses))
    pixels = {"image_mask", "image_dice", "image_entropy", "depth"}
    assert set(reports[0]) == pixels
    voxels = {"entropy", "jaccard", "flow_bin", "flow", "flow_angle"}
    assert set(reports[-1]) == pixels | voxels
    assert reports[-1]["image_entropy"] > 0 < reports[-1]["jaccard"]
    changed = {n for n, p in run.network.state_dict().items() if not torch.equal(p, before[n])}
    for part in (*IMAGE_PARTS, "final_conv", "alocc_head.flow_predicter"):
        assert any(n.startswith(part) for n in changed)


def test_on_a_stripe_activations_can_be_computed_a_second_time(tmp_path):
    settings = {"crop_rows": 20, "entropy_weight": 1.0, "steps": 1}
    losses, calls = [], []
    for name, again in (("plain", False), ("recomputed", True)):
        run = trainer(tmp_path / name, **settings, checkpointing=again)
        conv = next(m for m in run.network.img_neck.modules() if isinstance(m, torch.nn.Conv2d))
        count = []
        conv.register_forward_hook(lambda *_, count=count: count.append(1))
        run.run(lambda report: losses.append(report.losses))
        calls.append(len(count))
    assert calls == [1, 2]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize("name", ["alocc_3d_gf", "alocc_3d_surroundocc"])
def test_networks_without_a_history_of_volumes_know_no_stripes(name):
    with pytest.raises(ParameterError, match=f"crop_rows: {name} has no history"):
        check_stripes(VARIANTS[name])


def test_what_cannot_learn_from_volumes_is_told(tmp_path):
    with pytest.raises(ParameterError, match="img_neck, depth_net would learn"):
        trainer(tmp_path, volumes=str(tmp_path), frozen=("img_backbone",))
    store = VolumeStore(tmp_path, Alocc(VARIANT))
    store.path("x").parent.mkdir(parents=True)
    store.path("x").write_bytes(b"\x93NUMPY")
    with pytest.raises(DataError, match="delete it"):
        store.read("x")


def test_several_data_sets_are_one_source():
    one, two = DrawnSource(2, 3), DrawnSource(1, 2)
    for source, name in ((one, "one"), (two, "two")):
        source.has_point_labels = name == "one"
        source.key = lambda index, name=name: f"{name}/{index}"
    joined = JoinedSource([one, two])
    assert joined.scenes == [(0, 1, 2), (3, 4, 5), (6, 7)] and not joined.has_point_labels
    assert joined.key(7) == "two/1" and joined.read(7).name == two.read(1).name
