# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Whole scenes scored: answers counted by hand, runs that are stopped, files that are wrong."""

from __future__ import annotations

import gzip
import json
import pickle
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from benchmark_labels import VAL, WALL, labelled_nuscenes
from PIL import Image

from alocc_ros.bags.results import read_npz
from alocc_ros.cli._predictions import Pages, Predictions
from alocc_ros.cli.evaluate import default_folder
from alocc_ros.cli.main import main
from alocc_ros.datasets.nuscenes import NuScenes
from alocc_ros.datasets.truth import Truth, missing_files, read_truth
from alocc_ros.distributed import process_group
from alocc_ros.errors import DataError, ModelError, OutputError, ParameterError
from alocc_ros.evaluation.baselines import class_prior
from alocc_ros.evaluation.evaluate import Task, evaluate, write_report
from alocc_ros.evaluation.scoring import SCORINGS, find_scoring, ray_origins, scoring_of
from alocc_ros.evaluation.store import ResultStore
from alocc_ros.evaluation.submission import write_submission
from alocc_ros.evaluation.true_boxes import boxes_of
from alocc_ros.grid import OCC3D_GRID
from alocc_ros.labels import OCC3D, OPENOCC
from alocc_ros.metrics.rays import ray_directions, raycast
from alocc_ros.records import find, load_records
from alocc_ros.types import Occupancy


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return labelled_nuscenes(tmp_path_factory.mktemp("nuscenes"))


def task_of(dataset, benchmark: str, **options) -> Task:
    scenes, scoring = dataset.split("val"), find_scoring(benchmark)
    boxes = boxes_of(dataset, scenes) if scoring.objects else {}
    return Task(dataset.root, scenes, scoring, images=False, boxes=boxes, **options)


def from_truth(task: Task, change=lambda truth: truth, calls: list | None = None):
    """A predictor that knows the truth, and ``change``s it."""

    def predictor(scene):
        def predict(sample):
            if calls is not None:
                calls.append(sample.token)
            truth = change(read_truth(task.root, sample, task.scoring.labels))
            pose = sample.map_T_base
            return Occupancy(
                truth.labels, truth.flow, truth.grid, truth.classes, sample.stamp, "base", pose
            )

        return predict

    return predictor


def all_free(truth: Truth) -> Truth:
    flow = None if truth.flow is None else np.zeros_like(truth.flow)
    return replace(truth, labels=np.full_like(truth.labels, truth.classes.free), flow=flow)


def only_the_wall(truth: Truth) -> Truth:
    wall = truth.classes.names.index("manmade")
    return replace(truth, labels=np.where(truth.labels == wall, wall, truth.classes.free))


def shifted(truth: Truth) -> Truth:
    """4.4 m away from us: no ray ends within 4 m of where it should."""
    labels = np.full_like(truth.labels, truth.classes.free)
    labels[11:] = only_the_wall(truth).labels[:-11]
    return replace(truth, labels=labels.astype(np.uint8))


# --- numbers -------------------------------------------------------------------------------


@pytest.mark.parametrize("reference_exact", [False, True])
@pytest.mark.parametrize("benchmark", SCORINGS)
def test_the_truth_scores_everything(dataset, benchmark, reference_exact):
    task = task_of(dataset, benchmark, reference_exact=reference_exact)
    report = evaluate(task, from_truth(task))
    assert report.frames == 6
    if "voxels" in report.results:
        voxels = report.results["voxels"]
        # SurroundOcc's own code counts the fourteen classes that are absent as 0.
        present = 2 / 16 if benchmark == "surroundocc" and reference_exact else 1
        assert voxels.miou == pytest.approx(100 * present)
        dynamic = 1 / 8 if present < 1 else 1
        assert voxels.miou_dynamic == pytest.approx(100 * dynamic)
        assert voxels.iou == pytest.approx(100)
    if "rays" in report.results:
        assert report.results["rays"].rayiou == 100
    if task.scoring.flow:
        rays = report.results["rays"]
        assert (rays.flow.mave, rays.flow.mave_tp, rays.occ_score) == (0, 0, 100)
    assert report.scenes.keys() == set(VAL)


@pytest.mark.parametrize("benchmark", SCORINGS)
def test_seeing_nothing_scores_nothing(dataset, benchmark):
    task = task_of(dataset, benchmark)
    results = evaluate(task, from_truth(task, all_free)).results
    if "voxels" in results:
        assert (results["voxels"].miou, results["voxels"].iou) == (0, 0)
    if "rays" in results:
        assert results["rays"].rayiou == 0
    if task.scoring.flow:
        rays = results["rays"]
        assert rays.flow.mave == 5, "the car's speed"
        assert np.isnan(rays.flow.mave_tp)
        assert rays.occ_score == 0


@pytest.mark.parametrize("benchmark", ["occ3d", "occ3d-mask", "surroundocc", "openoccupancy"])
def test_a_shifted_wall_scores_what_overlaps(dataset, benchmark):
    task = task_of(dataset, benchmark)
    results = evaluate(task, from_truth(task, shifted)).results
    wall, classes = OCC3D.names.index("manmade"), results["voxels"].class_iou
    thick = WALL.stop - WALL.start
    assert classes[wall] == pytest.approx(100 * (thick - 11) / (thick + 11))
    assert classes[OCC3D.names.index("car")] == 0
    assert results["voxels"].miou == pytest.approx(classes[wall] / 2)
    # Six frames of a wall 16 high, 200 or (with the mask) 100 wide, and a car of 10 x 20 x 6.
    wide = 100 if task.scoring.masked else 200
    both, either = (thick - 11) * wide * 16, (thick + 11) * wide * 16 + 1200
    assert results["voxels"].iou == pytest.approx(100 * both / either)
    if "rays" in results:
        assert results["rays"].rayiou == 0


# --- baselines -----------------------------------------------------------------------------


@pytest.mark.parametrize("benchmark", ["openocc", "openocc-mask"])
def test_the_class_prior_is_what_a_voxel_mostly_is(dataset, benchmark):
    task = task_of(dataset, benchmark)
    prior = class_prior(task.root, task.scenes, task.scoring)
    seen = np.zeros(OCC3D_GRID.shape, bool)
    seen[:, 50:150] = True
    if not task.scoring.masked:
        seen[:] = True
    wall, car = OPENOCC.names.index("manmade"), OPENOCC.names.index("car")
    assert (prior.labels[WALL][seen[WALL]] == wall).all()
    assert (prior.labels[~seen] == OPENOCC.free).all(), "nothing is known of what nobody sees"
    # The car begins at 70, 69, ... 65 and is 10 long: at 74 it stands in every frame, at 66 in
    # two of six.
    assert prior.labels[74, 100, 0] == car and prior.labels[66, 100, 0] == OPENOCC.free
    np.testing.assert_allclose(prior.flow[74, 100, 0], (3, 4))
    assert (prior.flow[WALL] == 0).all()
    rays = evaluate(task, prior.predictor()).results["rays"]
    assert 0 < rays.rayiou < 100


def test_a_prior_of_nothing_is_one_line(dataset):
    with pytest.raises(DataError, match="needs scenes to count in"):
        class_prior(dataset.root, (), find_scoring("openocc"))


def test_openocc_labels_take_the_camera_mask_of_occ3d(dataset, tmp_path):
    task = task_of(dataset, "openocc-mask")
    hidden = evaluate(task, from_truth(task, blind_where_no_camera_looks)).results
    assert hidden["voxels"].miou == pytest.approx(100), "what no camera sees does not count"
    assert hidden["rays"].rayiou < 100, "rays go everywhere"
    labelled_nuscenes(tmp_path)
    shutil.rmtree(tmp_path / "gts")
    without = task_of(NuScenes(tmp_path), "openocc-mask")
    with pytest.raises(DataError, match="6 files of .*gts"):
        evaluate(without, from_truth(without))


def blind_where_no_camera_looks(truth: Truth) -> Truth:
    labels = truth.labels.copy()
    labels[:, :50] = labels[:, 150:] = truth.classes.free
    return replace(truth, labels=labels)


def test_a_class_that_is_not_seen_costs_its_share(dataset):
    task = task_of(dataset, "occ3d")
    rays = evaluate(task, from_truth(task, only_the_wall)).results["rays"]
    assert rays.class_iou[1, OCC3D.names.index("car")] == 0
    # Rays that end at the car go on and hit nothing: the grid ends behind it.
    assert rays.class_iou[1, OCC3D.names.index("manmade")] == 100
    assert rays.rayiou == 50


def test_a_wrong_speed_costs_a_tenth_at_most(dataset):
    def standing(truth):
        return replace(truth, flow=np.zeros_like(truth.flow))

    task = task_of(dataset, "openocc")
    rays = evaluate(task, from_truth(task, standing)).results["rays"]
    assert (rays.flow.mave, rays.flow.mave_tp) == (5, 5)
    assert rays.rayiou == 100
    assert rays.occ_score == pytest.approx(90)


def test_a_report_can_be_written_and_read(dataset, tmp_path):
    task = task_of(dataset, "openocc")
    report = evaluate(task, from_truth(task))
    write_report(tmp_path / "scores.json", report, {"model": "truth"})
    read = json.loads((tmp_path / "scores.json").read_text())
    assert read["about"] == {"model": "truth"}
    assert read["scores"]["rays"]["Occ score"] == 100
    assert read["scenes"]["scene-0012"]["rays"]["RayIoU"] == 100
    assert "Occ score" in report.table()


def test_origins_are_taken_at_the_lidars_time(dataset):
    origins = ray_origins(dataset.scene(VAL[0]))
    assert [len(o) for o in origins] == [2, 2]
    own = dataset.scene(VAL[0]).samples[0].lidar.base_T_lidar[:3, 3]
    np.testing.assert_allclose(origins[0][0], own, atol=1e-9)


@pytest.mark.slow
def test_the_synthetic_world_agrees_with_itself(tmp_path, capsys):
    size = ["--size", "36x64", "--frames", "2", "--scenes", "1", "--no-sweeps"]
    assert main(["synth", str(tmp_path), *size]) == 0
    world = NuScenes(tmp_path)
    for benchmark in SCORINGS:
        task = task_of(world, benchmark)
        if missing_files(tmp_path, world.samples, task.scoring.labels):
            assert benchmark == "openoccupancy", "the one whose labels are not drawn"
            continue
        results = evaluate(task, from_truth(task)).results
        if "voxels" in results:
            voxels = results["voxels"]
            assert (voxels.miou, voxels.miou_dynamic, voxels.iou) == (100, 100, 100)
        if "rays" in results:
            assert results["rays"].rayiou == 100
        if task.scoring.flow:
            rays = results["rays"]
            assert (rays.flow.mave, rays.flow.mave_tp, rays.occ_score) == (0, 0, 100)
    # The same from the command line; boxes are annotated, objects are made of voxels.
    command = ["evaluate", "--model", "truth", "--benchmark", "objects", "--data", str(tmp_path)]
    out = str(tmp_path / "out")
    capsys.readouterr()
    for resumed in (False, True):
        assert main([*command, "-o", out, "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        totals = report["scores"]["objects"]
        assert min(totals["vehicle recall"], totals["vehicle precision"]) >= 95, resumed
        assert totals["vehicle velocity error"] <= 0.3
        assert sum(map(sum, totals["counts"]["truth"].values())) > 5
    assert main([*command, "-o", out]) == 0
    assert "truth on objects: 2 frames of 1 scene, " in capsys.readouterr().out
    (tmp_path / world.version / "sample_annotation.json").unlink()
    assert main([*command, "-o", out]) == 2
    assert "the boxes that objects are scored against" in capsys.readouterr().err


# --- going on after a stop ---------------------------------------------------------------------


def test_a_stopped_run_goes_on_and_ends_the_same(dataset, tmp_path):
    task = task_of(dataset, "openocc", keep_rays=True)
    whole = ResultStore(tmp_path / "whole", {"model": "a"})
    undisturbed = evaluate(task, from_truth(task), folder=whole)
    calls: list[str] = []
    steady = from_truth(task, calls=calls)

    def stopped(scene):
        if scene.name == VAL[1]:
            raise KeyboardInterrupt
        return steady(scene)

    folder = ResultStore(tmp_path / "stopped", {"model": "a"})
    with pytest.raises(KeyboardInterrupt):
        evaluate(task, stopped, folder=folder)
    assert len(calls) == 2
    told: list[list[str]] = []
    resumed = evaluate(
        task, steady, folder=folder, on_todo=lambda todo: told.append([s.name for s in todo])
    )
    assert told == [list(VAL[1:])]
    assert len(calls) == len(set(calls)) == 6, "no frame twice"
    assert resumed.as_dict() == undisturbed.as_dict()
    for file in (tmp_path / "whole" / "scenes").iterdir():
        again = tmp_path / "stopped" / "scenes" / file.name
        assert again.read_bytes() == file.read_bytes()
    assert not list((tmp_path / "stopped").rglob("*.partial"))


def test_results_of_another_evaluation_are_not_taken(dataset, tmp_path):
    task = task_of(dataset, "occ3d-mask")
    evaluate(task, from_truth(task), folder=ResultStore(tmp_path, {"model": "a"}))
    other = ResultStore(tmp_path, {"model": "b"})
    with pytest.raises(OutputError, match="model was 'a', is 'b'"):
        evaluate(task, from_truth(task, all_free), folder=other)
    report = evaluate(task, from_truth(task, all_free), folder=other, restart=True)
    assert report.results["voxels"].miou == 0


def test_a_scene_with_other_frames_is_done_again(dataset, tmp_path):
    task = task_of(dataset, "occ3d-mask")
    folder = ResultStore(tmp_path, {"model": "a"})
    evaluate(task, from_truth(task), folder=folder)
    shorter = replace(task.scenes[0], samples=task.scenes[0].samples[:1])
    report = evaluate(replace(task, scenes=(shorter,)), from_truth(task), folder=folder)
    assert report.frames == 1
    assert report.results["voxels"].frames == 1


def test_a_damaged_result_is_named(dataset, tmp_path):
    task = task_of(dataset, "occ3d-mask")
    folder = ResultStore(tmp_path, {"model": "a"})
    evaluate(task, from_truth(task), folder=folder)
    file = tmp_path / "scenes" / f"{VAL[0]}.scores.npz"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(OutputError, match=r"scene-0003.scores.npz is damaged.*delete it"):
        evaluate(task, from_truth(task), folder=folder)


def test_odd_names_of_scenes_stay_in_the_folder(dataset, tmp_path):
    task = task_of(dataset, "occ3d-mask")
    odd = replace(task.scenes[0], name="../a scene/1")
    folder = ResultStore(tmp_path / "results", {})
    folder.keep(odd, b"", None)
    assert folder.done(odd) == b""
    assert not list(tmp_path.glob("*scene*"))


# --- what is refused ------------------------------------------------------------------------------


def test_missing_labels_are_told_before_work_begins(dataset, tmp_path):
    empty = replace(task_of(dataset, "occ3d"), root=tmp_path)
    calls: list[str] = []
    told = r"6 files of .*reads, are missing \(6 in gts/ of Occ3D-nuScenes\): .*scene-0003"
    with pytest.raises(DataError, match=told):
        evaluate(empty, from_truth(empty, calls=calls), folder=ResultStore(tmp_path / "out", {}))
    assert calls == []
    assert not (tmp_path / "out").exists()


def test_damaged_labels_are_named(tmp_path):
    dataset = labelled_nuscenes(tmp_path, VAL[:1], 1)
    file = next((tmp_path / "gts").rglob("labels.npz"))
    task = task_of(dataset, "occ3d-mask")
    whole = file.read_bytes()

    def predictor(scene):
        file.write_bytes(whole)
        predict = from_truth(task)(scene)

        def then_damage(sample):
            prediction = predict(sample)
            file.write_bytes(whole[:200])
            return prediction

        return then_damage

    with pytest.raises(DataError, match="labels.npz is damaged"):
        evaluate(task, predictor)


def test_predictions_of_other_voxels_are_refused(dataset):
    task = task_of(dataset, "occ3d")

    def elsewhere(truth):
        return replace(truth, grid=replace(OCC3D_GRID, lower=(0.0, 0.0, 0.0)))

    with pytest.raises(ModelError, match="scene-0003, scene-0003-sample-0: the prediction has"):
        evaluate(task, from_truth(task, elsewhere))


@pytest.mark.parametrize(
    ("model", "benchmark", "message"),
    [
        ("alocc_2d", "openocc", "gives the classes of occ3d, but openocc scores those of openocc"),
        ("alocc_flow_2d", "occ3d", "gives the classes of openocc"),
        ("alocc_2d", "surroundocc", "sees in the ego frame"),
        ("alocc_3d_surroundocc", "occ3d-mask", "sees in the lidar frame"),
    ],
)
def test_models_that_do_not_fit_a_benchmark_are_refused(model, benchmark, message, capsys):
    options = ["--model", model, "--random-weights", "--data", "nowhere", "--benchmark", benchmark]
    assert main(["evaluate", *options]) == 2
    assert message in capsys.readouterr().err


def test_a_model_without_flow_cannot_be_scored_for_flow():
    record = replace(load_records()["alocc_flow_2d"], flow=False)
    with pytest.raises(ModelError, match="gives no flow, which openocc scores"):
        find_scoring("openocc").check_model(record)


def test_a_refused_model_is_told_which_benchmarks_fit_it():
    records = load_records()
    fit = "fit it: openocc, openocc-mask, objects; with --map-classes also occ3d, occ3d-mask$"
    with pytest.raises(ModelError, match=fit):
        find_scoring("occ3d").check_model(records["alocc_flow_2d"])
    alone = replace(records["alocc_2d"], frame="lidar")
    with pytest.raises(ModelError, match="benchmarks that fit it: none$"):
        find_scoring("occ3d").check_model(alone)


def test_each_checkpoint_has_a_folder_of_its_own_for_its_results(tmp_path):
    record = load_records()["alocc_2d"]
    options = SimpleNamespace(benchmark="occ3d", split="val", seed=3)

    def folder(file, digest):
        return default_folder(record, file and tmp_path / file, digest, options).as_posix()

    mine = folder("mine.pth", f"sha256:{'1' * 64}")
    assert mine == "evaluation/alocc_2d-mine-11111111-occ3d-val"
    assert folder("mine.pth", f"sha256:{'2' * 64}") != mine
    assert folder("runs/a/weights.safetensors", "sha256:" + "1" * 64).split("-")[1] == "a"
    assert folder("alocc_2d_r50.pth", "sha256:" + "1" * 64).startswith("evaluation/alocc_2d_r50-1")
    assert folder(None, "RANDOM") == "evaluation/alocc_2d-random3-occ3d-val"


def test_predictions_are_kept_and_done_again_where_they_are_missing(dataset, tmp_path):
    task, store = task_of(dataset, "occ3d"), ResultStore(tmp_path / "out", {})
    predictions = Predictions(tmp_path / "npz", "sha256:1")

    def calls_of(kept: Predictions) -> int:
        calls: list[str] = []
        predictor = kept.kept(from_truth(task, calls=calls))
        evaluate(replace(task, is_kept=kept.has), predictor, folder=store)
        return len(calls)

    everything = sum(len(scene.samples) for scene in task.scenes)
    assert [calls_of(predictions), calls_of(predictions)] == [everything, 0]
    files = sorted((tmp_path / "npz").iterdir())
    assert len(files) == everything
    sample = min((s for c in task.scenes for s in c.samples), key=lambda s: s.stamp)
    truth = read_truth(task.root, sample, task.scoring.labels)
    assert np.array_equal(read_npz(files[0]).labels, truth.labels)
    files[0].unlink()
    assert calls_of(predictions) == len(task.scenes[0].samples)
    assert calls_of(replace(predictions, weights="sha256:2")) == everything
    files[0].write_bytes(b"no archive")
    with pytest.raises(OutputError, match="not a prediction"):
        calls_of(predictions)


def test_pages_show_predictions_beside_the_truth(dataset, tmp_path):
    task, store = task_of(dataset, "occ3d-mask"), ResultStore(tmp_path / "out", {})
    task = replace(task, scenes=task.scenes[:1])
    pages = Pages(tmp_path / "pages", "sha256:1", task.root, task.scoring)

    def calls_of(kept: Pages) -> int:
        calls: list[str] = []
        predictor = kept.kept(from_truth(task, only_the_wall, calls))
        evaluate(replace(task, is_kept=kept.has), predictor, folder=store)
        return len(calls)

    assert [calls_of(pages), calls_of(pages)] == [2, 0]
    first, second = sorted((tmp_path / "pages").iterdir())
    assert first.name.endswith(f"_{VAL[0]}.png")
    alone = replace(pages, folder=tmp_path / "alone", scoring=None)
    assert calls_of(alone) == 2
    with Image.open(first) as both, Image.open(next((tmp_path / "alone").iterdir())) as one:
        assert both.height > one.height + 300, "the truth has a row of its own"
    second.unlink()
    assert calls_of(pages) == 2
    assert calls_of(replace(pages, weights="sha256:2")) == 2
    first.write_bytes(b"no picture")
    with pytest.raises(OutputError, match="not a page"):
        calls_of(pages)


def test_classes_are_mapped_by_name_where_each_has_one(dataset, tmp_path):
    record = find("alocc_flow_2d")
    shutil.copytree(dataset.root, tmp_path / "data", symlinks=True)
    task = task_of(NuScenes(tmp_path / "data"), "occ3d")
    path = next((tmp_path / "data" / "gts").rglob("labels.npz"))
    labels = dict(np.load(path))
    labels["semantics"][:5] = OCC3D.names.index("others")  # which OpenOcc calls free
    np.savez_compressed(path, **labels)
    scoring = task.scoring.mapped(record)
    in_openocc = from_truth(replace(task, scoring=find_scoring("openocc")))
    report = evaluate(replace(task, scoring=scoring), in_openocc)
    voxels, rays = (report.results[kind].as_dict() for kind in ("voxels", "rays"))
    assert voxels["mIoU"] == 100 and 90 < voxels["IoU"] < 100
    assert voxels["class IoU"]["others"] == 0 and rays["RayIoU"] > 99
    told = {"from": "openocc", "to": "occ3d", "not scored": ["others"]}
    assert report.as_dict()["mapped classes"] == told
    assert report.table().endswith("from openocc to occ3d; not in any mean: others")
    own = evaluate(task, from_truth(task))
    assert "mapped classes" not in own.as_dict() and "mapped" not in own.table()
    assert task.scoring.mapped(find("alocc_2d")) is task.scoring
    with pytest.raises(ModelError, match="others of alocc_2d is no class of openocc"):
        find_scoring("openocc").mapped(find("alocc_2d"))


def test_a_refusal_names_what_fits():
    def refusal(model: str, benchmark: str) -> str:
        with pytest.raises(ModelError) as caught:
            find_scoring(benchmark).check_model(find(model))
        return str(caught.value)

    mapped = "openocc, openocc-mask, objects; with --map-classes also occ3d, occ3d-mask"
    assert mapped in refusal("alocc_flow_2d", "occ3d")
    assert refusal("alocc_2d", "openocc").endswith("benchmarks that fit it: occ3d, occ3d-mask")


def test_published_models_fit_their_benchmarks():
    for record in load_records().values():
        fitting = {"openocc": "openocc"}.get(record.classes.name, "occ3d")
        find_scoring("surroundocc" if record.frame == "lidar" else fitting).check_model(record)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--benchmark", "occ4d"], "no benchmark is called 'occ4d'"),
        (["--benchmark", "occ3d", "--max-scenes", "0"], "must be at least 1"),
        (["--benchmark", "occ3d", "--submission", "a.gz"], "the challenge is about"),
        (["--benchmark", "openocc", "--split", "test"], "has no labels"),
        (["--benchmark", "openocc", "--about", "team"], "expected NAME=TEXT"),
        (["--benchmark", "openocc", "--about", "colour=red"], "has no entry 'colour'"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message, capsys):
    common = ["--model", "alocc_2d", "--random-weights", "--data", "nowhere"]
    assert main(["evaluate", *common, *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "options", [["--baselines", "train"], ["--npz", "x"], ["--random-weights"], ["--split", "test"]]
)
def test_the_truth_is_no_network(options, capsys):
    common = ["--model", "truth", "--data", "nowhere", "--benchmark", "objects"]
    assert main(["evaluate", *common, *options]) == 2
    error = capsys.readouterr().err
    assert "no network" in error or "has no labels" in error


def test_a_model_has_the_scores_that_it_is_published_with():
    records = load_records()
    own = {name: scoring_of(record).name for name, record in records.items()}
    assert own["alocc_3d"] == "occ3d-mask" and own["alocc_flow_2d"] == "openocc"
    assert own["alocc_3d_surroundocc"] == "surroundocc" and own["alocc_tiny"] == "openocc-mask"
    assert {s for name, s in own.items() if name.endswith("wo_mask")} == {"occ3d"}
    for name, record in records.items():
        find_scoring(own[name]).check_model(record)


def test_processes_that_cannot_find_each_other_are_told_how(monkeypatch):
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ParameterError, match="start them with `alocc launch`"), process_group():
        pass


# --- the file of the challenge -----------------------------------------------------------------


def test_a_submission_holds_every_ray(dataset, tmp_path):
    task = task_of(dataset, "openocc", keep_rays=True)
    folder = ResultStore(tmp_path / "out", {})
    evaluate(task, from_truth(task), folder=folder)
    scenes = [([s.token for s in c.samples], folder.rays(c)) for c in task.scenes]
    about = {"method": "truth", "authors": "A, B"}
    write_submission(tmp_path / "one.gz", iter(scenes), about)
    write_submission(tmp_path / "two.gz", iter(scenes), about)
    assert (tmp_path / "one.gz").read_bytes() == (tmp_path / "two.gz").read_bytes()
    with gzip.open(tmp_path / "one.gz") as file:
        submission = pickle.load(file)  # what this test has just written
    assert submission["method"] == "truth"
    assert submission["authors"] == ["A", "B"]
    assert submission["team"] == ""
    assert type(submission["results"]) is dict
    assert list(submission["results"]) == [s.token for c in task.scenes for s in c.samples]
    scene = task.scenes[1]
    truth = read_truth(task.root, scene.samples[1], "openocc")
    hits = raycast(truth.labels, ray_origins(scene)[1], ray_directions(), OPENOCC.free)
    frame = submission["results"][scene.samples[1].token]
    assert {k: v.dtype.name for k, v in frame.items()} == {
        "pcd_cls": "uint8",
        "pcd_dist": "float16",
        "pcd_flow": "float16",
    }
    assert np.array_equal(frame["pcd_cls"], hits.take(truth.labels))
    assert np.array_equal(frame["pcd_dist"], hits.distance.astype(np.float16))
    assert np.array_equal(frame["pcd_flow"], hits.take(truth.flow))


def test_without_truth_there_are_rays_but_no_scores(dataset, tmp_path):
    task = task_of(dataset, "openocc", keep_rays=True, scored=False)
    folder = ResultStore(tmp_path, {})
    report = evaluate(task, from_truth(task), folder=folder)
    assert report.results == {}
    rays = folder.rays(task.scenes[0])
    assert rays.counts.tolist() == [2 * 14040, 2 * 14040]
    assert rays.flow.shape == (4 * 14040, 2)


def test_a_submission_that_fails_leaves_nothing(tmp_path):
    def broken():
        raise OutputError("no rays")
        yield

    with pytest.raises(OutputError):
        write_submission(tmp_path / "a.gz", broken(), {})
    assert list(tmp_path.iterdir()) == []
