# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The whole network, small: fast forms against twins, memory, geometry, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_networks import GRID, NETWORK_TOLERANCE, drive, network_of, small

from alocc_ros.bench.flops import count_twin, parameters
from alocc_ros.bench.scene import example_frame
from alocc_ros.engine import resolve_device, running
from alocc_ros.errors import DeviceError, ModelError, TemporalMemoryError
from alocc_ros.network.model import Alocc
from alocc_ros.network.cameras import depth_bins
from alocc_ros.network.lifting import lidar_bins
from alocc_ros.network.memory import Memory
from alocc_ros.network.observe import observing
from alocc_ros.network.variants import VARIANTS, find_variant


@pytest.mark.parametrize("name", VARIANTS)
def test_the_fast_network_is_the_obvious_network(name):
    network = network_of(small(name))
    ours, twin = drive(network, 4), drive(network, 4, backend="twin")
    for a, b in zip(ours, twin, strict=True):
        scale = float(b.logits.abs().max())
        assert float((a.logits - b.logits).abs().max()) <= NETWORK_TOLERANCE * scale
        assert float((a.labels == b.labels).float().mean()) >= 0.999
        assert a.labels.dtype == torch.uint8 and a.labels.shape == GRID.shape
        if b.flow is None:
            assert a.flow is None
        else:
            assert a.flow.shape == (*GRID.shape, 2)
            assert float((a.flow - b.flow).abs().max()) <= 22 * NETWORK_TOLERANCE
    assert float(ours[-1].logits.std()) > 1e-3


@pytest.mark.parametrize("name", ["alocc_2d", "alocc_flow_3d"])
def test_memory_matters_and_recycling_its_buffers_does_not(name):
    network = network_of(small(name))
    plain, recycled = drive(network, 4, recycle=False), drive(network, 4)
    for a, b in zip(plain, recycled, strict=True):
        assert torch.equal(a.logits, b.logits)
    with running():
        alone = network(example_frame(network.variant, seed=3))
    assert not torch.equal(alone.logits, plain[3].logits)


def test_the_same_input_gives_the_same_bits_on_any_number_of_our_threads():
    network = network_of(small("alocc_flow_2d"))
    first, second = drive(network, 2), drive(network, 2)
    assert torch.equal(first[1].logits, second[1].logits)
    assert torch.equal(first[1].flow, second[1].flow)


def test_a_frame_between_key_frames_uses_the_memory_without_moving_it_on():
    network = network_of(small("alocc_3d"))
    memory = drive(network, 2)[-1].memory
    before = memory.history.clone()
    with running():
        between = network(example_frame(network.variant, seed=7), memory, keep=False)
        pushed = network(example_frame(network.variant, seed=7), memory)
    assert between.memory.history is memory.history and torch.equal(memory.history, before)
    assert torch.equal(between.memory.stereo, pushed.memory.stereo)
    assert torch.equal(between.logits, pushed.logits)
    assert pushed.memory.ages.tolist() == [0.0, 0.5, 1.0]


def test_slot_ages_follow_the_reference():
    memories = [o.memory for o in drive(network_of(small("alocc_2d")), 3, recycle=False)]
    assert [m.ages.tolist() for m in memories] == [[0, 0, 0], [0, 0.5, 0.5], [0, 0.5, 1.0]]


def test_memory_survives_a_file_and_a_move(tmp_path):
    network = network_of(small("alocc_flow_3d"))
    memory = drive(network, 2)[-1].memory
    memory.save(tmp_path / "memory.safetensors")
    loaded = Memory.load(tmp_path / "memory.safetensors").to("cpu")
    assert loaded.nbytes == memory.nbytes > 0
    assert [p.name for p in tmp_path.iterdir()] == ["memory.safetensors"]
    frame = example_frame(network.variant, seed=5)
    with running():
        assert torch.equal(network(frame, memory).logits, network(frame, loaded).logits)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x08" + b"\0" * 7 + b"{}      "])
def test_a_file_that_is_no_memory_is_refused(tmp_path, content):
    path = tmp_path / "memory.safetensors"
    path.write_bytes(content)
    with pytest.raises(TemporalMemoryError, match="not a saved memory"):
        Memory.load(path)


def test_a_memory_of_another_network_or_form_is_refused():
    network = network_of(small("alocc_3d"))
    memory = drive(network, 1)[0].memory
    frame = example_frame(network.variant)
    with running("twin"), pytest.raises(TemporalMemoryError, match="made by the fast form"):
        network(frame, memory)
    wider = network_of(replace(small("alocc_3d"), context_channels=10))
    with running(), pytest.raises(TemporalMemoryError, match="remembers"):
        wider(frame, memory)


def test_a_dead_camera_lifts_nothing():
    variant = small("alocc_2d_mini")
    network = network_of(variant)
    frame = example_frame(variant)
    seen: list[torch.Tensor] = []

    def look(stage, value):
        if stage == "view_transformer/lifted":
            seen.append(value().clone())

    alive = torch.tensor([True, False, True, True, True, True])
    loud = frame.images.clone()
    loud[1] = 100.0
    with running(), observing(look):
        for images, mask in ((frame.images, None), (frame.images, alive), (loud, alive)):
            network(replace(frame, images=images, alive=mask))
    everything, dead, dead_and_loud = seen
    assert torch.equal(dead, dead_and_loud)
    # The front camera's part of the grid, straight ahead.
    ahead = (slice(None), slice(None), slice(18, 23), slice(30, 38))
    assert float(dead[ahead].abs().max()) < float(everything[ahead].abs().max())


def test_fewer_cameras_than_six_run():
    variant = small("alocc_2d")
    frame = example_frame(variant)
    cameras = type(frame.cameras)(*(
        v[:4] if v.dim() == 3 or v.shape == (6, 3) else v
        for v in vars(frame.cameras).values()
    ))  # fmt: skip
    with running():
        output = network_of(variant)(replace(frame, images=frame.images[:4], cameras=cameras))
    assert output.labels.shape == GRID.shape


def test_lidar_depth_becomes_the_nearest_bin_of_each_block():
    variant = replace(
        small("alocc_3d"), input_size=(32, 32), depth_range=(1.0, 5.0), depth_step=1.0
    )
    depth = torch.zeros(1, 32, 32)
    depth[0, 3, 4], depth[0, 9, 9] = 4.9, 2.5  # the nearer of two in one block
    depth[0, 20, 3] = 0.5  # before the first bin
    depth[0, 3, 20] = 5.0  # beyond the last
    depth[0, 31, 31] = 1.0  # the lower edge of the first
    one_hot, known = lidar_bins(depth, variant)
    assert known[0, 0].tolist() == [[True, False], [False, True]]
    assert one_hot[0, :, 0, 0].tolist() == [0, 1, 0, 0]
    assert one_hot[0, :, 1, 1].tolist() == [1, 0, 0, 0]


def test_lidar_depth_changes_the_result_only_where_there_is_lidar():
    network = network_of(small("alocc_3d"))
    frame = example_frame(network.variant)
    none = torch.zeros(6, *network.variant.input_size)
    some = none.clone()
    some[1, 30:60, 40:100] = 8.0
    with running():
        plain = network(frame).logits
        assert torch.equal(network(replace(frame, lidar_depth=none)).logits, plain)
        assert not torch.equal(network(replace(frame, lidar_depth=some)).logits, plain)


def test_the_side_copies_reach_as_far_as_the_switch_allows():
    variant = small("alocc_2d")
    released, paper = (
        network_of(variant),
        network_of(variant, inter_index_max=variant.depth_bins - 1),
    )
    frame = example_frame(variant)
    with running():
        assert not torch.equal(released(frame).logits, paper(frame).logits)
    with pytest.raises(ModelError, match="inter_index_max"):
        Alocc(variant, inter_index_max=variant.depth_bins)


def test_wrong_images_are_refused():
    network = network_of(small("alocc_2d_mini"))
    frame = example_frame(network.variant)
    with running(), pytest.raises(ModelError, match=r"takes images \[N, 3, 64, 160\]"):
        network(replace(frame, images=frame.images[:, :, :32]))
    with running(), pytest.raises(ModelError, match="5 images but 6 cameras"):
        network(replace(frame, images=frame.images[:5]))
    with running(), pytest.raises(ModelError, match="alive"):
        network(replace(frame, alive=torch.ones(5, dtype=torch.bool)))
    with running(), pytest.raises(ModelError, match="lidar_depth"):
        network(replace(frame, lidar_depth=torch.zeros(6, 32, 32)))


def test_a_memory_of_fewer_cameras_is_refused():
    network = network_of(small("alocc_2d"))
    memory = drive(network, 1)[0].memory
    frame = example_frame(network.variant)
    with running(), pytest.raises(TemporalMemoryError, match="needs a stereo feature"):
        network(frame, replace(memory, stereo=memory.stereo[:4]))
    with running(), pytest.raises(TemporalMemoryError, match="the memory holds none"):
        network(frame, replace(memory, stereo=None))


def test_devices_that_are_not_there_are_refused():
    assert resolve_device("cpu").type == "cpu"
    for name in ("gpu", "cuda:99", "meta"):
        with pytest.raises(DeviceError, match=name):
            resolve_device(name)
    with pytest.raises(DeviceError, match="unknown backend"), running("magic"):
        pass


def test_unknown_variants_are_refused_by_name():
    with pytest.raises(ModelError, match="alocc_flow_3d"):
        find_variant("alocc_4d")


# Trainable numbers of the published networks (paper, and the reference's own count).
PARAMETERS = {
    "alocc_2d_mini": 36_228_105,
    "alocc_2d": 63_704_938,
    "alocc_3d": 52_854_730,
    "alocc_flow_2d": 63_846_234,
    "alocc_flow_3d": 52_996_026,
    "alocc_3d_surroundocc": 53_101_124,
}
ENTRIES = {
    "alocc_2d_mini": 602,
    "alocc_2d": 688,
    "alocc_3d": 700,
    "alocc_flow_2d": 701,
    "alocc_flow_3d": 713,
    "alocc_3d_surroundocc": 686,
}
# The lattice (9 numbers) counts as parameters there and is a buffer here.
_LATTICE = 9


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_published_networks_have_their_published_size(name):
    assert parameters(VARIANTS[name]) + _LATTICE == PARAMETERS[name]
    with torch.device("meta"):
        assert len(Alocc(VARIANTS[name]).state_dict()) == ENTRIES[name]


# GFLOP a frame as counted on the reference, less the stem and layer1 of the previous images (33.87,
# not in mini), which are remembered here instead of computed again.
GFLOP = {
    "alocc_2d_mini": 352.6,
    "alocc_2d": 766.3 - 33.9,
    "alocc_3d": 763.9 - 33.9,
    "alocc_flow_2d": 913.7 - 33.9,
    "alocc_flow_3d": 911.4 - 33.9,
}


@pytest.mark.parametrize("name", GFLOP)
def test_operations_are_those_of_the_reference(name):
    total = sum(count_twin(VARIANTS[name]).values()) / 1e9
    assert total == pytest.approx(GFLOP[name], rel=0.003)


def test_depth_bins_stand_at_their_lower_edges():
    assert depth_bins(VARIANTS["alocc_2d"])[[0, 1, 87]].tolist() == [1.0, 1.5, 44.5]
    assert depth_bins(VARIANTS["alocc_2d_mini"])[[0, 43]].tolist() == [1.0, 44.0]
    assert len(depth_bins(VARIANTS["alocc_3d_surroundocc"])) == 118


@pytest.mark.parametrize("name", ["alocc_flow_2d", "alocc_flow_3d"])
@pytest.mark.parametrize("backend", ["eager", "twin"])
def test_every_tensor_is_on_the_device_it_should_be_on(name, backend):
    # "meta" refuses to mix with the CPU as a GPU does, so this finds forgotten moves without one.
    variant = small(name)
    frame = example_frame(variant, device="meta")
    with torch.device("meta"):
        network = Alocc(variant).eval()
    memory = None
    with running(backend):
        for _ in range(2):
            output = network(frame, memory)
            memory = output.memory
    for tensor in (output.labels, output.logits, output.flow, memory.history, memory.stereo):
        assert tensor.device.type == "meta"


def test_projection_of_a_lifted_point_returns_to_its_pixel():
    variant = small("alocc_2d")
    frame = example_frame(variant)
    frustum = frame.cameras.frustum(variant)
    points = frustum.points() * 7.0 + frustum.origin[:, None, None]  # [N, h, w, 3]
    cameras = frame.cameras
    for n in range(6):
        camera_T_grid = np.linalg.inv(cameras.grid_T_camera[n].numpy())
        p = points[n].numpy() @ camera_T_grid[:3, :3].T + camera_T_grid[:3, 3]
        assert np.allclose(p[..., 2], 7.0)
        pixel = p @ cameras.intrinsics[n].numpy().T / p[..., 2:]
        pixel = pixel @ cameras.post_rotation[n].numpy().T + cameras.post_translation[n].numpy()
        assert np.allclose(pixel[..., 0], frustum.us.numpy(), atol=1e-6)
        assert np.allclose(pixel[..., 1], frustum.vs.numpy()[:, None], atol=1e-6)
