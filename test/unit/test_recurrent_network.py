# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What a recurrent network remembers: between key frames, over hours, without a camera."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_networks import Stream, network_of, small

from alocc_ros.bags.sample import rig
from alocc_ros.bench.scene import example_frame
from alocc_ros.network.lifting import lidar_bins
from alocc_ros.network.model import Alocc, Measured
from alocc_ros.network.plan import times_told
from alocc_ros.network.state import KEYFRAME_PARTS
from alocc_ros.network.variants import VARIANTS
from alocc_ros.planning import plan_frame
from alocc_ros.runtime.runner import inference
from alocc_ros.stream.keyframes import KeyframePolicy
from alocc_ros.types import CAMERAS, CameraImage, FrameSet

NAME = "alocc_3d_gf"


def trained_like(network: Alocc) -> Alocc:
    """With statistics of its own features: they neither die nor grow from frame to frame."""
    stream = Stream(network, "reference")
    core = stream.runner.core
    for module in core.modules():
        if hasattr(module, "running_mean") and module is not core.depth_net.bn:
            module.momentum = None  # the mean over all that was seen
            module.reset_running_stats()
            module.train()
    for t in range(4):
        stream.step(seed=t)
    network.load_state_dict(core.state_dict())
    return network


def held(stream: Stream) -> dict[str, torch.Tensor]:
    parts = stream.state._tensors()
    return {name: parts[name] for name in KEYFRAME_PARTS}


def test_a_frame_between_key_frames_reads_all_four_and_writes_none():
    network = network_of(small(NAME))
    stream, other = Stream(network), Stream(network)
    for t in range(3):
        stream.step(seed=t)
        other.step(seed=t)
    before = {n: t.clone() for n, t in held(stream).items()}
    assert all(t.abs().max() > 0 for t in before.values())
    between = stream.step(seed=7, keyframe=False)
    assert stream.state.ages.tolist() == [[1.0]]
    assert all(torch.equal(t, before[n]) for n, t in held(stream).items())
    as_key_frame = other.step(seed=7)
    assert other.state.ages.tolist() == [[1.5]]
    assert torch.equal(between.logits, as_key_frame.logits)
    assert torch.equal(stream.step(seed=7).logits, as_key_frame.logits)
    for name in KEYFRAME_PARTS:  # and what is read matters
        stream = Stream(network)
        stream.step(seed=0)
        stream.step(seed=1)
        held(stream)[name].mul_(0.5)
        assert not torch.equal(stream.step(seed=2).logits, other_at(network, 2))


def other_at(network: Alocc, t: int) -> torch.Tensor:
    stream = Stream(network)
    return [stream.step(seed=s).logits for s in range(t + 1)][-1]


def test_time_goes_back_to_the_middle_of_the_longest_scene_and_stays():
    v = VARIANTS[NAME]
    ages, told, kept = torch.zeros(1, 1), [], []
    for number in range(100):
        elapsed = torch.tensor([0.5 if number else 0.0])
        times, keep = times_told(v, ages, elapsed)
        told.append(times[0].tolist())
        kept.append(float(keep))
        ages = ages + elapsed[:, None]
    assert told[:3] == [[0.0, 0.0], [0.5, 0.0], [1.0, 0.5]]
    # Up to the longest scenes of nuScenes, 41 key frames, as the reference counts.
    assert told[40] == [20.0, 19.5] and kept[:41] == [1.0] * 41
    assert told[41:] == [[10.0, 9.5]] * 59
    assert kept[41:] == pytest.approx([20 / 41] + [20 / 21] * 58)
    # A frame between key frames is told what the next one will be.
    times, keep = times_told(v, torch.tensor([[20.0], [50.0], [1.0]]), torch.full((3,), 0.1))
    assert times.flatten().tolist() == pytest.approx([9.6, 9.5, 9.6, 9.5, 1.1, 1.0])
    assert keep.tolist() == pytest.approx([20 / 41, 20 / 21, 1.0])


def test_the_streams_own_time_goes_on():
    frame, told, ages = example_frame(VARIANTS[NAME]), [], None
    for _ in range(45):
        plan = frame.plan(ages)
        told.append(plan.tensors("cpu").ages[0].tolist())
        ages = plan.ages
    assert ages.tolist() == [[22.0]] and told[-1] == [10.0, 9.5]


def test_sums_of_the_scene_layer_are_as_heavy_as_the_time_says():
    network = network_of(replace(small(NAME), memory_length=6))
    scene, c = network.scene, network.variant.context_channels
    learned = torch.randn(1, c, c + 1, generator=torch.Generator().manual_seed(0))
    # Every frame teaches the same: what is left is how long it counts.
    scene.update.forward = lambda rows, sums, keep: type_of_step(rows, sums, keep, learned)
    frame = example_frame(network.variant)
    volume = torch.zeros(1, c, 2, 2, 2)
    state, ages, weights, told = None, None, [], []
    for _ in range(60):
        plan = frame.plan(ages)
        tensors, ages = plan.tensors("cpu"), plan.ages
        out = network.empty_state()
        _, sums = scene(volume, state, tensors, out, True)
        state = out._replace(scene=sums)
        weights.append(float((sums / learned).mean()))
        told.append(float(tensors.ages[0, 0]))
    assert told[:9] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 1.5, 1.5, 1.5]
    # One of each key frame so far, and as many as there have been by the time that is told.
    assert weights == pytest.approx([1 + 2 * t for t in told])


def type_of_step(rows, sums, keep, learned):
    from alocc_ros.ops.recurrent import SceneStep

    return SceneStep(rows, sums * keep[:, None, None] + learned, learned[:, :2])


@pytest.mark.slow
def test_nothing_grows_over_four_hundred_key_frames():
    network = trained_like(network_of(small(NAME)))
    stream, largest, spread = Stream(network), [], []
    for t in range(400):
        output = stream.step(seed=t % 23)
        largest.append({n: float(x.abs().max()) for n, x in held(stream).items()})
        spread.append(float(output.logits.std()))
        assert torch.isfinite(output.logits).all()
    scene = slice(20, 40)  # the second half of what the authors have tried
    for name in KEYFRAME_PARTS:
        usual = max(values[name] for values in largest[scene])
        assert max(values[name] for values in largest[100:]) <= 2 * usual + 1e-6, name
    assert 0.5 * np.mean(spread[scene]) <= np.mean(spread[200:]) <= 2 * np.mean(spread[scene])
    assert float(stream.state.ages) == 199.5


def frame_at(seconds: float, x: float, without: tuple[str, ...] = ()) -> FrameSet:
    cameras, stamp = rig(160, 90), round(seconds * 1e9)
    pose = np.eye(4)
    pose[0, 3] = x
    images = {
        c: CameraImage(c, stamp, np.zeros((90, 160, 3), np.uint8), "rgb8")
        for c in CAMERAS
        if c not in without
    }
    return FrameSet(
        stamp=stamp,
        images=images,
        missing=dict.fromkeys(without, "no image"),
        calibration=cameras,
        map_T_base=pose,
        map_T_base_at=dict.fromkeys(CAMERAS, pose),
        map_frame="map",
        base_frame="base_link",
    )


def planned(frames: list[FrameSet], variant=None, base_T_grid=None):
    """The plans of a stream of frames, the ages carried."""
    variant, policy, plans = variant or small(NAME), KeyframePolicy(), []
    ages = torch.zeros(1, variant.history)
    for frame in frames:
        decision = policy.plan(frame)
        grid = np.eye(4) if base_T_grid is None else base_T_grid
        plans.append(plan_frame(replace(frame, base_T_grid=grid), decision, variant, ages))
        policy.update(frame)
        if plans[-1].keyframe:
            ages = plans[-1].ages
    return plans


def test_geometry_looks_back_to_the_key_frame_and_stereo_to_the_reference():
    frames = [frame_at(0.1 * k, x=1.0 * k) for k in range(9)]
    plans = [p.tensors("cpu") for p in planned(frames)]
    # At 0.7 s the last key frame is 0.2 s old, the reference frame half a second.
    front = CAMERAS.index("cam_front")
    assert plans[7].key_offset[front, 2] == pytest.approx(2.0)  # metres ahead of the key frame's
    assert plans[7].offset[front, 2] == pytest.approx(5.0)
    assert plans[7].ages.tolist() == [[pytest.approx(0.7), 0.5]]
    assert plans[5].ages.tolist() == [[0.5, 0.0]]


def test_a_camera_that_was_missing_at_the_key_frame_is_not_looked_back_to():
    frames = [frame_at(0.0, 0.0, without=("cam_back",)), frame_at(0.5, 1.0)]
    first, second = (p.tensors("cpu") for p in planned(frames))
    gone = [float(z) < -1e5 for z in second.key_offset[:, 2]]
    assert gone == [c == "cam_back" for c in CAMERAS]
    assert first.camera_mask.tolist() == [c != "cam_back" for c in CAMERAS]
    network = network_of(small(NAME))
    seen = []
    network.geometry.warp.register_forward_hook(lambda *args: seen.append(args[2]))
    images = example_frame(network.variant).images
    with inference():
        _, state = network(images, first)
        network(images, second, state)
    empty = [bool((camera == 0).all()) for camera in seen[0]]
    assert empty == gone


@pytest.mark.parametrize("spoiled", ["stamp", "jump"])
def test_a_bag_that_loops_and_a_teleport_begin_anew(spoiled):
    last = frame_at(0.0, 0.0) if spoiled == "stamp" else frame_at(1.5, 900.0)
    plans = planned([frame_at(0.5 * k, 4.0 * k) for k in range(3)] + [last])
    assert [p.first for p in plans] == [True, False, False, True]
    assert plans[3].ages.tolist() == [[0.0]]
    again = plans[3].tensors("cpu")
    assert again.ages.tolist() == [[0.0, 0.0]]


def test_of_surroundocc_the_history_moves_as_the_base_does():
    turned = np.array([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 1.8], [0, 0, 0, 1]])
    frames = [frame_at(0.0, 0.0), frame_at(0.5, 1.6)]
    as_trained, right = (
        planned(frames, replace(small(n), base_motion=n != NAME), turned)[1].tensors("cpu").motion
        for n in ("alocc_3d_gf_surroundocc", NAME)
    )
    # 1.6 m forward are two cells: along x of the base, along -y of a grid that is turned.
    assert as_trained[0, :, 3].tolist() == pytest.approx([2.0, 0.0, 0.0])
    assert right[0, :, 3].tolist() == pytest.approx([0.0, -2.0, 0.0], abs=1e-9)


def test_lidar_stands_in_the_memory_but_the_gates_do_not_see_it():
    network = network_of(small(NAME))
    v, gates = network.variant, []
    network.depth_net.gate_net[2].register_forward_hook(lambda *args: gates.append(args[2]))
    depth = torch.zeros(6, *v.input_size)
    depth[1, 30:60, 40:100] = 8.0
    bins = lidar_bins(depth, v)
    frame = example_frame(v)
    with inference():
        plain, without = network(frame.images, frame.plan(None).tensors("cpu"))
        told, state = network(
            frame.images, frame.plan(None).tensors("cpu"), measured=Measured(bins)
        )
    assert torch.equal(gates[0], gates[1])
    assert not torch.equal(plain.logits, told.logits)
    known = (bins >= 0)[:, None].expand_as(state.geometry)
    one_hot = torch.nn.functional.one_hot(bins.clamp(min=0), v.depth_bins).movedim(-1, 1).float()
    assert known.any() and torch.equal(state.geometry[known], one_hot[known])
    assert torch.equal(state.geometry[~known], without.geometry[~known])
