# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Every number of the recorded runs of the reference's own metrics, reproduced."""

from __future__ import annotations

import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from alocc_ros.geometry import pose_matrix
from alocc_ros.grid import OCC3D_GRID
from alocc_ros.labels import OCC3D, OPENOCC
from alocc_ros.metrics.f_score import f_score
from alocc_ros.metrics.ray_scores import RayScores
from alocc_ros.metrics.rays import (
    Hits,
    in_voxels,
    lidar_origins,
    ray_directions,
    raycast,
    raycast_reference,
)
from alocc_ros.metrics.voxels import WITHOUT_OTHERS, SurroundOccReference, VoxelScores

FOLDER = Path(__file__).parents[3] / "shared" / "golden" / "metrics"
pytestmark = [
    pytest.mark.golden,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="no golden vectors of the metrics here"),
]
RAYS = np.load(FOLDER / "rays.npz") if FOLDER.is_dir() else {}
VOXELS = np.load(FOLDER / "voxels.npz") if FOLDER.is_dir() else {}
CASES = sorted(k.removesuffix(".kind") for k in RAYS if k.endswith(".kind"))
FLOW_CASES = [c for c in CASES if f"{c}.gt_flow" in RAYS]
SIDES = ("gt", "pred")


def directions(case: str) -> np.ndarray:
    return RAYS[f"{case}.dirs"] if f"{case}.dirs" in RAYS else ray_directions()


def free(case: str) -> int:
    return (OCC3D if RAYS[f"{case}.kind"] == "o3" else OPENOCC).free


def crc(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).tobytes())


def assert_hits(case: str, side: str, hits: Hits) -> None:
    labels = RAYS[f"{case}.{side}"]
    voxel = np.unravel_index(np.maximum(hits.voxel, 0), labels.shape)
    arrays = {
        "dist": hits.distance,
        "label": hits.take(labels),
        "coord": np.stack(voxel, axis=1).astype(np.uint8),
    }
    if f"{case}.{side}_flow" in RAYS:
        arrays["flow"] = hits.take(RAYS[f"{case}.{side}_flow"])
    stride = int(RAYS[f"{case}.stride"])
    for name, array in arrays.items():
        recorded = RAYS[f"{case}.ray_{side}_{name}"]
        assert array.dtype == recorded.dtype
        assert array[::stride].tobytes() == recorded.tobytes()
        assert crc(array) == RAYS[f"{case}.ray_{side}_{name}_crc32"]
    assert hits.distance.astype(np.float64).sum() == RAYS[f"{case}.ray_{side}_dist_sum"]


def test_the_rays_are_the_benchmarks():
    assert len(CASES) == 21
    assert ray_directions().tobytes() == RAYS["ray_dirs"].tobytes()


def test_origins_are_the_benchmarks():
    def poses(name: str) -> np.ndarray:
        turns = RAYS[f"pose.{name}_rotation"][:, [1, 2, 3, 0]]
        return np.stack(
            [
                pose_matrix(t, q)
                for t, q in zip(RAYS[f"pose.{name}_translation"], turns, strict=True)
            ]
        )

    map_T_base, base_T_lidar = poses("ego2global"), poses("lidar2ego")
    scenes, recorded = RAYS["pose.scene_name"], RAYS["pose.origins"]
    ends = np.cumsum(RAYS["pose.count"])
    for i, (scene, end, count) in enumerate(zip(scenes, ends, RAYS["pose.count"], strict=True)):
        frames = np.flatnonzero(scenes == scene)
        own = int(np.flatnonzero(frames == i)[0])
        origins = lidar_origins(map_T_base[frames], base_T_lidar[frames], own)
        # Quaternions go through another library here: the last bit of a double.
        np.testing.assert_allclose(origins, recorded[end - count : end], rtol=0, atol=1e-13)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("case", CASES)
def test_every_ray_ends_where_it_did(case, side):
    origins = RAYS[f"{case}.origins"]
    assert_hits(case, side, raycast(RAYS[f"{case}.{side}"], origins, directions(case), free(case)))


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.startswith("cr_") or c in ("o3_borders", "oo_selfpred")]
)
def test_every_ray_of_the_twin_ends_where_it_did(case):
    start, direction = in_voxels(RAYS[f"{case}.origins"], directions(case), OCC3D_GRID)
    for side in SIDES:
        voxel, distance = raycast_reference(RAYS[f"{case}.{side}"], start, direction, free(case))
        assert_hits(case, side, Hits(voxel, distance * np.float32(OCC3D_GRID.resolution)))


def scored(case: str, reference_exact: bool) -> RayScores:
    classes, flow = (OPENOCC, True) if case in FLOW_CASES else (OCC3D, False)
    grids = {
        side: SimpleNamespace(
            labels=RAYS[f"{case}.{side}"], flow=RAYS[f"{case}.{side}_flow"] if flow else None
        )
        for side in SIDES
    }
    scores = RayScores(classes, flow, directions=directions(case), reference_exact=reference_exact)
    scores.update(grids["pred"], grids["gt"], RAYS[f"{case}.origins"])
    return scores


def equal(ours, recorded, scale: float = 1.0) -> None:
    """Equal but for the rounding of a division that is done in another order."""
    np.testing.assert_allclose(np.asarray(ours) / scale, recorded, rtol=1e-14, atol=0)


@pytest.mark.parametrize("case", CASES)
def test_every_count_and_score_of_rays(case):
    scores = scored(case, reference_exact=True)
    state, result, end = scores.state(), scores.result(), scores.classes.free
    assert np.array_equal(state["true"][:end], RAYS[f"{case}.gt_cnt"][:end])
    assert np.array_equal(state["said"], RAYS[f"{case}.pred_cnt"])
    assert np.array_equal(state["hit"][:, :end], RAYS[f"{case}.tp_cnt"][:, :end])
    equal(result.class_iou, RAYS[f"{case}.iou"], 100)
    equal(result.rayiou_at, RAYS[f"{case}.rayiou_t"], 100)
    equal(result.rayiou, RAYS[f"{case}.rayiou"], 100)


@pytest.mark.parametrize("case", FLOW_CASES)
def test_every_velocity_error(case):
    scores = scored(case, reference_exact=True)
    state, flow = scores.state(), scores.result().flow
    moving = list(OPENOCC.flow)
    hit, ray = (state[f"flow_{k}_error"][..., moving] for k in ("hit", "ray"))
    assert np.array_equal(hit, RAYS[f"{case}.ave_tp_sum"][:, moving])
    assert np.array_equal(ray, RAYS[f"{case}.ave_gt_ray_sum"][1, moving])
    hit, ray = (state[f"flow_{k}_count"][..., moving] for k in ("hit", "ray"))
    assert np.array_equal(hit, RAYS[f"{case}.ave_tp_count"][:, moving])
    assert np.array_equal(ray, RAYS[f"{case}.ave_gt_ray_count"][1, moving])
    for ours, name in (
        (flow.ave_tp, "ave_tp"),
        (flow.ave_ray, "ave_gt_ray"),
        (flow.ave_voxel, "ave"),
    ):
        equal(ours, RAYS[f"{case}.{name}"][moving])
    equal(flow.mave_tp, RAYS[f"{case}.mave_tp"])
    equal(flow.mave_ray, RAYS[f"{case}.mave_gt_ray"])
    equal(flow.mave, RAYS[f"{case}.mave"])
    equal(scores.result().occ_score, RAYS[f"{case}.occ_score"], 100)


@pytest.mark.parametrize("case", FLOW_CASES)
def test_right_velocity_errors_differ_only_by_rounding(case):
    exact, right = (scored(case, reference_exact=r).result().flow for r in (True, False))
    for name in ("ave_tp", "ave_ray"):
        np.testing.assert_allclose(getattr(right, name), getattr(exact, name), rtol=1e-6)
    # float16 sums are off by up to 4.4e-4 of a class in these cases.
    np.testing.assert_allclose(right.ave_voxel, exact.ave_voxel, rtol=1e-3)


@pytest.mark.parametrize("case", [c for c in CASES if c not in ("o3_gt255", "cr_full_out")])
def test_without_the_accidents_rays_count_as_before(case):
    right, exact = (scored(case, reference_exact=r).state() for r in (False, True))
    lost = (
        raycast(RAYS[f"{case}.gt"], RAYS[f"{case}.origins"], directions(case), free(case))
    ).voxel
    same = np.array_equal(right["true"], exact["true"])
    assert same or (lost < 0).any()


# --- voxels ---------------------------------------------------------------------------------


def occ3d(sample: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Prediction, truth and camera mask of a sample."""
    if sample == "b":
        rng = np.random.Generator(np.random.PCG64(int(VOXELS["occ3d.b.seed"])))
        shape = (200, 200, 16)
        gt, pred = (rng.integers(0, 18, shape, dtype=np.uint8) for _ in range(2))
        mask = rng.integers(0, 2, shape, dtype=np.uint8)
    else:
        gt, pred, mask = (VOXELS[f"occ3d.{sample}.{k}"] for k in ("gt", "pred", "mask_camera"))
    for name, array in (("gt", gt), ("pred", pred), ("mask_camera", mask)):
        assert crc(array) == VOXELS[f"occ3d.{sample}.{name}_crc32"]
    return pred, gt, mask


@pytest.mark.parametrize("masked", [True, False], ids=["masked", "unmasked"])
@pytest.mark.parametrize("samples", ["a", "b", "c", "d", "e", "abc"])
def test_every_count_and_score_of_voxels(samples, masked):
    exact, right = VoxelScores(reference_exact=True), VoxelScores()
    for sample in samples:
        pred, gt, mask = occ3d(sample)
        exact.update(pred, gt, mask if masked else None)
        right.update(pred, gt, mask if masked else None)
    key = f"occ3d.set_{samples}.{'masked' if masked else 'unmasked'}"
    state, result = exact.state(), exact.result()
    assert np.array_equal(state["matrix"], VOXELS[f"{key}.hist"])
    assert np.array_equal(state["occupied"], VOXELS[f"{key}.hist_occ"])
    assert result.frames == VOXELS[f"{key}.samples"]
    equal(result.class_iou, VOXELS[f"{key}.iou"])
    equal(result.miou, VOXELS[f"{key}.mIoU"])
    equal(result.miou_dynamic, VOXELS[f"{key}.mIoU_D"])
    equal(result.iou, VOXELS[f"{key}.iou_occ"][1])
    rounded = [round(v, 2) for v in (result.miou, result.miou_dynamic, result.iou)]
    equal(rounded, VOXELS[f"{key}.rounded"])
    equal(np.round(result.class_iou, 2), VOXELS[f"{key}.rounded_classes"])
    # The only accident that these samples touch is unknown voxels as occupied, in e.
    assert np.array_equal(right.state()["matrix"], state["matrix"])
    matrix = state["matrix"]
    collapsed = [
        [matrix[17, 17], matrix[17, :17].sum()],
        [matrix[:17, 17].sum(), matrix[:17, :17].sum()],
    ]
    assert np.array_equal(right.state()["occupied"], collapsed)
    assert np.array_equal(right.state()["occupied"], state["occupied"]) == (samples != "e")


@pytest.mark.parametrize("sample", "ac")
def test_the_f_score(sample):
    exact = f_score(*occ3d(sample), reference_exact=True)
    recorded = VOXELS[f"occ3d.{sample}.fscore"]
    equal([exact.f_score, exact.precision, exact.completeness], recorded)
    # All direct neighbours are near, not only those that rounding brings nearer.
    assert f_score(*occ3d(sample)).f_score > exact.f_score


@pytest.mark.parametrize("name", ["p", "q", "r", "pqr", "r3", "big"])
def test_every_count_and_score_of_surroundocc(name):
    frames = {"r3": "rrr", "big": "pqr" * 2006 + "p"}.get(name, name)
    frames = frames[: int(VOXELS[f"surround.set_{name}.samples"])]
    counted = {}
    for sample in set(frames):
        scores = SurroundOccReference()
        scores.update(VOXELS[f"surround.{sample}.pred"], VOXELS[f"surround.{sample}.gt"])
        counts = scores.state()["counts"]
        assert np.array_equal(counts[0, :18], VOXELS[f"surround.{sample}.counts"])
        assert np.array_equal(counts[0, 18:], VOXELS[f"surround.{sample}.counts_occ"])
        counted[sample] = counts
    total = SurroundOccReference()
    total.merge({"counts": np.concatenate([counted[f] for f in frames])})
    result, key = total.result(), f"surround.set_{name}"
    assert np.array_equal(result.class_iou[1:].astype(np.float32), VOXELS[f"{key}.iou_f32"])
    assert np.float32(result.iou) == VOXELS[f"{key}.iou_occ_f32"][0]
    rounded = [round(v, 2) for v in (result.miou, result.miou_dynamic, result.iou)]
    np.testing.assert_allclose(rounded, VOXELS[f"{key}.rounded"], rtol=0, atol=1e-9)
    classes = np.round(result.class_iou[1:], 2)
    np.testing.assert_allclose(classes, VOXELS[f"{key}.rounded_classes"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["p", "pqr", "r3"])
def test_the_right_value_of_surroundocc(name):
    scores = VoxelScores(OCC3D, scored=WITHOUT_OTHERS)
    for sample in {"r3": "rrr"}.get(name, name):
        scores.update(VOXELS[f"surround.{sample}.pred"], VOXELS[f"surround.{sample}.gt"])
    result = scores.result()
    _, miou_dynamic, iou, miou = VOXELS[f"surround.set_{name}.recomputed"]
    ours = [result.miou, result.miou_dynamic, result.iou]
    np.testing.assert_allclose(ours, [miou, miou_dynamic, iou], rtol=1e-9)
    if name == "pqr":
        matrix = VOXELS["surround.set_pqr.file_path.hist"]
        assert np.array_equal(scores.state()["matrix"], matrix)
        assert np.array_equal(
            scores.state()["occupied"], VOXELS["surround.set_pqr.file_path.hist_occ"]
        )
