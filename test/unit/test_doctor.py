# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The doctor on this machine, and on one where nothing is installed."""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from alocc_ros.cli import _accelerators, doctor
from alocc_ros.cli.main import main
from alocc_ros.runtime.cache import RANGES, Cache

ROOT = Path(__file__).parents[2]


def run_doctor(*arguments: str, python: tuple[str, ...] = (), **environment: str):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
    code += "from alocc_ros.cli.main import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, *python, "-c", code, "doctor", *arguments],
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def rows(shown: str) -> dict[str, tuple[str, str]]:
    """Subject to (state, what was found)."""
    found = re.findall(r"^(\S.{19})(ok|-|MISSING) +(.*)$", shown, re.M)
    return {subject.strip(): (state, what) for subject, state, what in found}


def test_it_asks_for_what_setup_installs():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    required = setup["options"]["install_requires"].split()
    assert sorted(doctor.LIBRARIES.values()) == sorted(re.split("[>=<]", r)[0] for r in required)


def test_it_asks_for_the_messages_that_the_manifest_names():
    manifest = ET.parse(ROOT / "package.xml").getroot()
    named = {e.text for e in manifest.findall("depend")}
    assert named <= {*doctor.STANDARD_MESSAGES, "tf2_msgs"}
    executed = {e.text for e in manifest.findall("exec_depend")}
    assert executed >= set(doctor.ROS_PYTHON)


def test_here_alocc_run_is_ready(capsys):
    assert main(["doctor", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["ready"]["run"]
    by_subject = {f["subject"]: f for f in result["findings"]}
    assert by_subject["torch"]["ok"] and by_subject["libraries"]["ok"]
    node = run_doctor("--node", "--json")
    assert (node.returncode == 0) == result["ready"]["node"]


def test_where_nothing_is_installed_everything_missing_has_a_remedy():
    done = run_doctor(python=("-S",), PYTHONPATH="")
    assert (done.returncode, done.stderr) == (1, "")
    found = rows(done.stdout)
    assert {k for k, (state, _) in found.items() if state == "MISSING"} >= {
        "libraries",
        "torch",
        "ROS 2",
        "alocc_ros messages",
        "tf2_ros",
    }
    lines = done.stdout.splitlines()
    for line, following in zip(lines, lines[1:], strict=False):
        if " MISSING " in line:
            assert re.match(r" +> (make|pip|source|cd|rosdep|colcon) ", following), line
    assert "alocc run:          NOT READY" in lines


def test_a_real_package_is_told_from_a_stand_in_and_really_imported(tmp_path):
    cv_bridge = """
class CvBridge:
    def imgmsg_to_cv2(self, message, encoding):
        raise RuntimeError("type 64")  # what its compiled half says with another OpenCV
"""
    for name, text in (
        ("tf2_ros", ""),
        ("cv_bridge", cv_bridge),
        ("message_filters", "import os; os.abort()"),  # as what is compiled for others may
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(text)
    opencv = tmp_path / "opencv_python_headless-5.0.0.dist-info"
    opencv.mkdir()
    (opencv / "METADATA").write_text("Name: opencv-python-headless\nVersion: 5.0.0\n")
    done = run_doctor("--json", PYTHONPATH=f"{tmp_path}:{ROOT / 'ros_standins'}")
    found = {f["subject"]: f for f in json.loads(done.stdout)["findings"]}
    assert found["tf2_ros"]["found"] == f"real, {tmp_path / 'tf2_ros'}"
    broken = found["message_filters"]
    assert broken["found"].endswith("does not work: ended by signal 6")
    assert (broken["ok"], broken["needed_by"]) == (False, "node") and broken["remedy"]
    bridge = found["cv_bridge"]
    if not found["standard messages"]["ok"]:
        return  # no image to try it with
    assert bridge["found"].endswith("/cv_bridge, does not work: RuntimeError: type 64")
    assert bridge["remedy"] == "pip install 'opencv-python-headless<5'"


def test_an_rclpy_that_does_not_load_is_no_ros(tmp_path):
    (tmp_path / "rclpy").mkdir()
    (tmp_path / "rclpy/__init__.py").write_text("raise ImportError('librcl.so: wrong\\nelf class')")
    found = rows(run_doctor(PYTHONPATH=str(tmp_path)).stdout)
    words = "rclpy cannot be imported: ImportError: librcl.so: wrong elf class"
    assert found["ROS 2"] == ("MISSING", words)


def test_a_torch_that_does_not_load_is_said_in_one_line(tmp_path):
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so: cannot\\nopen')")
    done = run_doctor(PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert rows(done.stdout)["torch"] == ("MISSING", "libcudart.so: cannot open")


@pytest.mark.ros
def test_a_middleware_that_is_not_there_is_named():
    pytest.importorskip("rclpy", reason="no rclpy here: make ros")
    done = run_doctor(RMW_IMPLEMENTATION="rmw_nowhere_cpp")
    state, _ = rows(done.stdout)["middleware"]
    assert state == "MISSING" and "rmw_nowhere_cpp" in done.stdout


@pytest.mark.ros
def test_with_the_wheels_all_of_ros_is_here():
    pytest.importorskip("rclpy", reason="no rclpy here: make ros")
    found = rows(run_doctor().stdout)
    for subject in ("ROS 2", "middleware", "standard messages", "tf2_msgs", *doctor.ROS_PYTHON):
        assert found[subject][0] == "ok", found[subject]


def test_accelerators_are_really_imported_and_what_breaks_ends_nothing(tmp_path):
    (tmp_path / "triton.py").write_text("import os\nos.abort()")
    (tmp_path / "tensorrt.py").write_text("raise OSError('libnvinfer.so.10:\\n no such file')")
    (tmp_path / "tensorrt_rtx_bindings.py").write_text("__version__ = '1.2.3'")
    (tmp_path / "onnxruntime.py").write_text("__version__ = '1.99'")
    done = run_doctor(PYTHONPATH=str(tmp_path), XDG_CACHE_HOME=str(tmp_path))
    found = rows(done.stdout)
    assert found["Triton"] == ("-", "cannot be used: the process that imported it ended")
    state, words = found["TensorRT"]
    assert state == "-" and "libnvinfer.so.10: no such file" in words
    state, words = found["TensorRT-RTX"]
    assert state == "-" and "1.2.3 is here, 1.4 or newer is needed" in words
    assert found["onnxruntime"] == ("ok", "1.99")
    assert found["cache"] == ("ok", f"{tmp_path}/alocc_ros/built: 0 engines and graphs, 0.0 MB")
    assert re.match("auto runs (eager on cpu|graph on )", found["backend"][1])


def test_long_names_of_nodes_do_not_run_into_the_next_column():
    name = "/perception/front/alocc_node: camera cam_front_left"
    findings = [doctor.Finding("torch", "2.9"), doctor.Finding(name, "active")]
    lines = [line for line in doctor._table(findings) if line]
    assert f"{name}  ok" in lines[1]
    assert lines[0].index(" ok") == lines[1].index(" ok")


def test_it_counts_calibrations_beside_what_can_be_built_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    Cache().put("onnx", {"weights": "1"}, b"graph")
    assert _accelerators.cache().found.endswith(": 1 engines and graphs, 0.0 MB")
    Cache().put(RANGES, {"weights": "1"}, b"{}")
    assert _accelerators.cache().found.endswith("0.0 MB; calibrations for int8: 1")
