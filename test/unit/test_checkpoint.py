# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn

from alocc_ros.errors import CheckpointError
from alocc_ros.network.checkpoint import (
    likely_variant,
    load_weights,
    read_state_dict,
    read_weights,
    save_safetensors,
)
from alocc_ros.network.model import Alocc
from alocc_ros.network.variants import VARIANTS
from alocc_ros.training.checkpoint import load_state

SCHEMAS = Path(__file__).parents[3] / "shared" / "golden" / "schema"


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Linear(3, 4))


def equal(a, b) -> bool:
    return list(a) == list(b) and all(torch.equal(a[k], b[k]) for k in a)


# --- reading --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrap",
    [
        lambda sd: sd,
        lambda sd: {"state_dict": sd, "epoch": 12, "updates": 3, "meta": {"env": "text"}},
        lambda sd: {"model": {"state_dict": sd}, "optimizer": {"state": {0: torch.ones(1)}}},
        lambda sd: {"state_dict": {k: v + 1 for k, v in sd.items()}, "ema": sd},
        lambda sd: {f"module.{k}": v for k, v in sd.items()},
        lambda sd: {"state_dict": {f"module.teacher.{k}": v for k, v in sd.items()}},
        lambda sd: {"state_dict": {k: nn.Parameter(v, requires_grad=False) for k, v in sd.items()}},
        lambda sd: {"state_dict": sd, "meta": {"best": np.float64(3), "palette": np.zeros((2, 3))}},
    ],
    ids=["bare", "wrapped", "nested", "ema", "module", "teacher", "parameters", "numpy"],
)  # fmt: skip
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_official_ways_to_save_are_read(tmp_path, wrap, zipped):
    weights = small().state_dict()
    path = tmp_path / "net.pth"
    torch.save(wrap(weights), path, _use_new_zipfile_serialization=zipped)
    assert equal(read_state_dict(path), weights)


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_one_flipped_bit_in_the_weights_of_a_pth_is_noticed(tmp_path, place):
    path = tmp_path / "net.pth"
    weights = {"a": torch.arange(40000.0), "b": torch.ones(3)}
    torch.save({"state_dict": weights}, path)
    data = bytearray(path.read_bytes())
    begin = data.index(weights["a"].numpy().tobytes())
    data[begin + int(place * 160000)] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"net\.pth: damaged: the checksum of .*/data/"):
        read_state_dict(path)


def test_an_old_torch_reads_neither_weights_nor_training_checkpoints(tmp_path, monkeypatch):
    path = tmp_path / "state.pt"
    torch.save({"a": torch.ones(3)}, path)
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    for read in (read_state_dict, lambda p: load_state(p.parent)):
        with pytest.raises(CheckpointError, match=r"update torch to 2\.10") as raised:
            read(path)
        assert "delete" not in str(raised.value)


def test_a_prefix_that_only_some_names_have_stays(tmp_path):
    path = tmp_path / "net.pth"
    torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, path)
    assert list(read_state_dict(path)) == ["module.a", "b"]


def test_numpy_scalars_of_either_numpy_are_discarded_unread(tmp_path):
    """As mmcv leaves them in ``meta``; older numpy names its module differently."""
    path = tmp_path / "net.pth"
    torch.save({"state_dict": {"a": torch.ones(2)}, "meta": {"best": np.float64(3)}}, path,
               _use_new_zipfile_serialization=False)  # fmt: skip
    data = path.read_bytes()
    old, new = b"numpy.core.multiarray", b"numpy._core.multiarray"
    assert old in data or new in data
    path.write_bytes(data.replace(new, old) if new in data else data.replace(old, new))
    assert equal(read_state_dict(path), {"a": torch.ones(2)})


def test_safetensors_survive_a_round_trip_also_under_another_suffix(tmp_path):
    weights = small().state_dict()
    tied = weights["0.weight"]
    path = tmp_path / "net.safetensors"
    save_safetensors(path, {**weights, "again": tied}, {"model": "alocc_2d"})
    assert equal(dict(sorted(read_state_dict(path).items())),
                 dict(sorted({**weights, "again": tied}.items())))  # fmt: skip
    renamed = path.rename(tmp_path / "net.pth")
    assert set(read_state_dict(renamed)) == {*weights, "again"}


def test_equal_weights_are_equal_files(tmp_path):
    words = {name: "1" for name in ("step", "model", "mIoU", "RayIoU", "IoU", "é")}
    files = []
    for n, entries in enumerate((words, dict(reversed(words.items())), words)):
        path = tmp_path / f"{n}.safetensors"
        save_safetensors(path, small().state_dict(), entries)
        files.append(path.read_bytes())
    assert files[0] == files[1] == files[2]
    with safe_open(path, "pt") as file:
        assert file.metadata() == words
    assert equal(dict(sorted(read_state_dict(path).items())),
                 dict(sorted(small().state_dict().items())))  # fmt: skip


def test_a_failed_save_leaves_nothing(tmp_path):
    path = tmp_path / "net.safetensors"
    path.mkdir()
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_safetensors(path, {"a": torch.ones(1)})
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]


class _Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = str(victim)

    def __reduce__(self):
        return os.mkdir, (self.victim,)


def _malicious(kind: str, path: Path, victim: Path) -> None:
    content = {"state_dict": {"a": torch.ones(1)}, "meta": _Evil(victim)}
    if kind == "zip":
        torch.save(content, path)
    elif kind == "legacy":
        torch.save(content, path, _use_new_zipfile_serialization=False)
    elif kind == "plain pickle":
        path.write_bytes(pickle.dumps(content))
    elif kind == "new protocol":
        path.write_bytes(pickle.dumps(_Evil(victim), protocol=5))
    elif kind == "eval":
        path.write_bytes(b"\x80\x02cbuiltins\neval\nX\x0c\x00\x00\x00print('hey')\x85R.")
    elif kind == "tar":
        member = pickle.dumps(_Evil(victim))
        with tarfile.open(path, "w") as archive:
            for name in ("\x80storages", "tensors", "pickle"):
                info = tarfile.TarInfo(name)
                info.size = len(member)
                archive.addfile(info, io.BytesIO(member))


@pytest.mark.parametrize("kind", ["zip", "legacy", "plain pickle", "new protocol", "eval", "tar"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_in_a_file_is_never_run(tmp_path, monkeypatch, kind, suffix):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    victim, path = tmp_path / "victim", tmp_path / f"net{suffix}"
    _malicious(kind, path, victim)
    with pytest.raises(CheckpointError):
        read_state_dict(path)
    assert not victim.exists()


def test_the_malicious_file_of_these_tests_would_run(tmp_path):
    victim, path = tmp_path / "victim", tmp_path / "net.pth"
    _malicious("zip", path, victim)
    torch.load(path, weights_only=False)
    assert victim.exists()


def test_what_a_file_wanted_to_run_is_named(tmp_path):
    path = tmp_path / "net.pth"
    _malicious("zip", path, tmp_path / "victim")
    with pytest.raises(CheckpointError, match=r"net.pth: refused, it wants to run \w+\.mkdir;"):
        read_state_dict(path)
    torch.save({"state_dict": {"a": torch.ones(1)}, "meta": small()}, path)
    with pytest.raises(CheckpointError, match=r"wants to run torch.nn.modules\S+Sequential;"):
        read_state_dict(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(1)], "holds list, not a dict"),
        ({}, "no weights in it, only nothing"),
        ({"epoch": 3}, "no weights in it, only epoch"),
        ({"state_dict": {"a": torch.ones(1), "b": 3}}, "state_dict: not tensors among.*: b"),
        ({"a": torch.ones(1), "b": 3}, "not tensors among the weights: b"),
        ({"state_dict": {1: torch.ones(1)}}, "not plain named tensors: 1"),
        ({"a": torch.ones(2, 2).to_sparse()}, "not plain named tensors: a"),
        ({"a": torch.ones(2, device="meta")}, "not plain named tensors: a"),
    ],
)
def test_a_file_without_plain_weights_says_what_it_holds(tmp_path, content, message):
    path = tmp_path / "net.pth"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=message):
        read_state_dict(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a checkpoint"),
        (b"<!DOCTYPE html>", "not a checkpoint .it begins with b'<!DOCTYPE'"),
        (b"version https://git-lfs", "not a checkpoint"),
        (b"PK\x03\x04 and so on", "damaged checkpoint"),
        (b"\x80\x02X\xff\xff\xff\xff", "damaged checkpoint"),
        ((1 << 40).to_bytes(8, "little") + b"{}", "not a whole .safetensors"),
    ],
)
def test_other_bytes_are_refused_in_one_line(tmp_path, data, message):
    path = tmp_path / "net.pth"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_state_dict(path)
    assert "\n" not in str(caught.value)


def test_a_path_without_a_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere.pth: cannot be read: No such file"):
        read_state_dict(tmp_path / "nowhere.pth")
    with pytest.raises(CheckpointError, match="cannot be read: Is a directory"):
        read_state_dict(tmp_path)


def _bytes_of(kind: str) -> bytes:
    weights, buffer = {"state_dict": small().state_dict(), "meta": {"a": 1}}, io.BytesIO()
    if kind == "safetensors":
        import safetensors.torch

        return safetensors.torch.save(weights["state_dict"])
    torch.save(weights, buffer, _use_new_zipfile_serialization=kind == "zip")
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@given(data=st.data())
@settings(deadline=None, max_examples=80)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_any_damage_gives_weights_or_a_checkpoint_error(tmp_path_factory, kind, data):
    content = bytearray(_bytes_of(kind))
    if data.draw(st.booleans(), label="truncate"):
        del content[data.draw(st.integers(0, len(content))) :]
    for _ in range(data.draw(st.integers(0, 8), label="flips")):
        if content:
            # Most bytes are zip padding or numbers; the first ones are where structure is.
            end = data.draw(st.sampled_from([len(content), min(len(content), 600)]))
            content[data.draw(st.integers(0, end - 1))] ^= data.draw(st.integers(1, 255))
    _read_or_refuse(tmp_path_factory, bytes(content))


@given(
    st.binary(max_size=300), st.sampled_from([b"", b"\x80\x02", b"PK\x03\x04", b"\x09" + bytes(7)])
)
@settings(deadline=None, max_examples=150)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_random_bytes_give_a_checkpoint_error(tmp_path_factory, junk, start):
    _read_or_refuse(tmp_path_factory, start + junk)


def _read_or_refuse(tmp_path_factory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "net.pth"
    path.write_bytes(content)
    try:
        weights = read_state_dict(path)
    except CheckpointError as error:
        assert "net.pth" in str(error) and "\n" not in str(error)
    else:
        assert all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in weights.items())
    finally:
        path.unlink()


# --- loading --------------------------------------------------------------------------


def test_weights_arrive_and_are_counted():
    source, target = small().state_dict(), small()
    nn.init.zeros_(target[0].weight)
    report = load_weights(target, source)
    assert equal(target.state_dict(), source)
    assert report.loaded == 9 and report.unexpected == report.converted == ()
    assert report.summary() == "9 tensors loaded"


def test_missing_and_misshaped_weights_are_named_and_nothing_is_changed():
    target = small()
    before = {k: v.clone() for k, v in target.state_dict().items()}
    source = {k: v + 1 for k, v in before.items()}
    del source["1.bias"]
    source["0.weight"] = torch.ones(5, 2, 1, 1)
    with pytest.raises(
        CheckpointError, match=r"missing: 1.bias; wrong shape: 0.weight 5x2x1x1 instead of 3x2x1x1"
    ):
        load_weights(target, source)
    assert equal(target.state_dict(), before)


def test_many_missing_weights_are_counted_after_ten():
    target = nn.Sequential(*(nn.Linear(1, 1) for _ in range(10)))
    with pytest.raises(CheckpointError, match=r"4.bias and 10 more$"):
        load_weights(target, {})


def test_unexpected_weights_are_reported_not_fatal():
    report = load_weights(small(), {**small().state_dict(), "cls_embed": torch.ones(1)})
    assert report.unexpected == ("cls_embed",)
    assert "not used: cls_embed" in report.summary()


@pytest.mark.parametrize(
    ("wrap", "source"),
    [
        (lambda sd: sd, "the file's only ones"),
        (
            lambda sd: {"state_dict": {k: v + 1 for k, v in sd.items()}, "ema_state_dict": sd},
            "ema_state_dict, the averaged (EMA) ones; not used: state_dict",
        ),
        (
            lambda sd: {"step": 3, "network": {k: v + 1 for k, v in sd.items()}, "average": sd},
            "average, the averaged (EMA) ones; not used: network",
        ),
        (lambda sd: {"model": {"state_dict": sd}}, "model: state_dict, as trained"),
    ],
    ids=["bare", "both", "own", "nested"],
)
def test_which_tensors_are_taken_is_said(tmp_path, wrap, source):
    weights = small().state_dict()
    torch.save(wrap(weights), tmp_path / "file.pth")
    found = read_weights(tmp_path / "file.pth")
    assert equal(found.tensors, weights) and found.source() == source


def test_weights_of_one_number_are_refused_or_named():
    zeros = {k: torch.zeros_like(v) for k, v in small().state_dict().items()}
    with pytest.raises(CheckpointError, match=r"2 of 2 matrices hold one .*: 0.weight, 2.weight"):
        load_weights(small(), zeros)
    report = load_weights(small(), {**small().state_dict(), "2.weight": torch.ones(4, 3)})
    assert report.constant == ("2.weight",)
    assert "of one number only: 2.weight" in report.summary()


def test_batch_counters_may_be_absent():
    source = small().state_dict()
    del source["1.num_batches_tracked"]
    assert load_weights(small(), source).loaded == 8


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_formats_become_the_network_s(dtype):
    source, target = small().to(dtype).state_dict(), small()
    report = load_weights(target, source)
    assert len(report.converted) == 8
    assert torch.equal(target[0].weight, source["0.weight"].float())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(bad):
    source = small().state_dict()
    source["2.weight"] = torch.full((4, 3), bad)
    with pytest.raises(CheckpointError, match="NaN or inf: 2.weight$"):
        load_weights(small(), source)


def test_integers_are_no_weights():
    source = small().state_dict()
    source["2.weight"] = torch.ones(4, 3, dtype=torch.int32)
    with pytest.raises(CheckpointError, match=r"2.weight holds torch.int32.*float32"):
        load_weights(small(), source)


# --- the networks ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def mini() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return Alocc(VARIANTS["alocc_2d_mini"]).state_dict()


@pytest.fixture(scope="module")
def flow() -> dict[str, torch.Tensor]:
    return Alocc(VARIANTS["alocc_flow_2d"]).state_dict()


SCHEMA_OF = {
    "alocc_2d": "alocc_2d",
    "alocc_2d_mini": "alocc_2d_mini",
    "alocc_2d_mini_wo_mask": "alocc_2d_mini",
    "alocc_2d_wo_mask": "alocc_2d",
    "alocc_3d": "alocc_3d",
    "alocc_3d_gf": "alocc_3d_gf",
    "alocc_3d_gt_depth": "alocc_3d",
    "alocc_3d_surroundocc": "alocc_3d_surroundocc",
    "alocc_3d_wo_mask": "alocc_3d",
    "aloccflow_2d": "alocc_flow_2d",
    "aloccflow_3d": "alocc_flow_3d",
}


@pytest.mark.parametrize("schema", sorted(SCHEMA_OF))
def test_every_official_manifest_is_strictly_its_network(schema):
    """Names and shapes of the reference's state_dict, both ways."""
    path = SCHEMAS / f"{schema}.json"
    if not path.is_file():
        pytest.skip("needs the schemas of the shared folder")
    entries = json.loads(path.read_text())["state_dict"]
    official = {name: torch.empty(shape, device="meta") for name, shape, *_ in entries}
    with torch.device("meta"):
        network = Alocc(VARIANTS[SCHEMA_OF[schema]]).state_dict()
    assert {k: v.shape for k, v in official.items()} == {k: v.shape for k, v in network.items()}
    assert likely_variant(official) == (SCHEMA_OF[schema], 1.0)


def test_an_official_looking_checkpoint_goes_through_file_and_network(mini, tmp_path):
    path = tmp_path / "alocc_2d_mini.pth"
    torch.save({"state_dict": OrderedDict(mini), "iter": 1, "updates": 2}, path)
    network = Alocc(VARIANTS["alocc_2d_mini"])
    report = load_weights(network, read_state_dict(path))
    assert report.loaded == len(mini) == 602 and not report.unexpected
    assert equal(network.state_dict(), mini)


def test_another_network_s_weights_are_recognised(flow):
    with torch.device("meta"):
        network = Alocc(VARIANTS["alocc_3d"])
    with pytest.raises(CheckpointError, match=r"do not fit alocc_3d: .*looks like alocc_flow_2d"):
        load_weights(network, flow)


def test_the_training_only_branch_may_be_absent(mini):
    source = {k: v for k, v in mini.items() if "mask_embed2" not in k}
    report = load_weights(Alocc(VARIANTS["alocc_2d_mini"]), source)
    assert len(report.untrained) == 6


def test_grid_constants_may_be_absent_but_not_contradict(mini):
    network = Alocc(VARIANTS["alocc_2d_mini"])
    load_weights(network, {k: v for k, v in mini.items() if "view_transformer" not in k})
    wrong = {**mini, "view_transformer.bx": torch.tensor([-49.75, -49.75, -4.75])}
    with pytest.raises(CheckpointError, match=r"another voxel grid: view_transformer.bx is \[-49"):
        load_weights(network, wrong)


def test_one_of_two_tied_names_is_enough(flow):
    network = Alocc(VARIANTS["alocc_flow_2d"])
    pair = ("depth_net.depth_conv.0.downsample.weight", "depth_net.occ_conv.0.downsample.weight")
    for absent, present in (pair, pair[::-1]):
        source = {k: v for k, v in flow.items() if k != absent}
        assert not load_weights(network, source).unexpected
        assert torch.equal(network.state_dict()[absent], flow[present])
    with pytest.raises(CheckpointError, match="are one tensor, but differ"):
        load_weights(network, {**flow, pair[1]: flow[pair[0]] + 1})
