# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What bloom, rosdoc2 and a code host read of this repository."""

from __future__ import annotations

import configparser
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import alocc_ros

ROOT = Path(__file__).parents[2]
VERSION = alocc_ros.__version__
WORKFLOW = ROOT / ".github" / "workflows" / "ros.yml"


def setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def package() -> Any:
    """package.xml as colcon, rosdep and bloom read it."""
    reader = pytest.importorskip("catkin_pkg.package", reason="pip install catkin_pkg")
    warnings: list[str] = []
    found = reader.parse_package(str(ROOT / "package.xml"), warnings=warnings)
    found.validate(warnings=warnings)
    assert warnings == []
    return found


def test_package_xml_setup_cfg_and_pyproject_agree():
    metadata, ros = setup()["metadata"], package()
    assert (ros.name, ros.version) == (metadata["name"], VERSION)
    assert metadata["version"] == "attr: alocc_ros.__version__"
    assert [(m.name, m.email) for m in ros.maintainers] == [
        (metadata["maintainer"], metadata["maintainer_email"])
    ]
    assert [str(license) for license in ros.licenses] == [metadata["license"]]
    # Metadata stands in setup.cfg alone; with a [project] table pip would read that instead.
    assert "[project]" not in (ROOT / "pyproject.toml").read_text()


def test_bloom_finds_the_changes_of_a_release(tmp_path):
    """catkin_prepare_release gives the forthcoming section its number; bloom reads it then."""
    changelog = pytest.importorskip("catkin_pkg.changelog")
    from catkin_pkg.package_version import get_forthcoming_label, update_changelog_sections

    shutil.copy(ROOT / changelog.CHANGELOG_FILENAME, tmp_path)
    now = changelog.get_changelog_from_path(tmp_path, package_name="alocc_ros")
    label = get_forthcoming_label(now.rst)
    assert label == "Forthcoming", "what changes after a release goes under this title"
    path = str(tmp_path / changelog.CHANGELOG_FILENAME)
    update_changelog_sections({"alocc_ros": (path, now, label)}, "99.1.0")
    then = changelog.get_changelog_from_path(tmp_path, package_name="alocc_ros")
    (version, _, content), *_ = then.foreach_version()
    assert version == "99.1.0"
    changes = [str(item) for bullets in content for item in bullets.bullets]
    assert len(changes) == len(re.findall(r"^\* ", now.rst.partition(label)[2], re.M)) > 20


def test_the_changelog_is_clean_markup_whose_links_lead_somewhere():
    docutils = pytest.importorskip("docutils.core")
    path = ROOT / "CHANGELOG.rst"
    tree = docutils.publish_doctree(
        path.read_text(encoding="utf-8"), settings_overrides={"report_level": 5}
    )
    from docutils import nodes

    assert [m.astext() for m in tree.findall(nodes.system_message)] == []
    assert [t for t in tree.findall(nodes.Text) if "`" in t or "](" in t] == []
    links = [r["refuri"] for r in tree.findall(nodes.reference)]
    assert [k for k in links if "://" not in k and not (ROOT / k).exists()] == []


def test_rosdoc2_is_told_where_the_python_modules_are():
    kind, config = yaml.safe_load_all((ROOT / "rosdoc2.yaml").read_text())
    assert kind == {"type": "rosdoc2 config", "version": 1}
    assert [e.content for e in package().exports if e.tagname == "rosdoc2"] == ["rosdoc2.yaml"]
    settings = config["settings"]
    known = "generate_package_index python_source always_run_doxygen always_run_sphinx_apidoc"
    assert set(settings) <= {*known.split(), "override_build_type"}
    assert (ROOT / settings["python_source"] / "__init__.py").is_file()
    for builder in config["builders"]:
        ((name, options),) = builder.items()
        assert name in ("sphinx", "doxygen") and {"name", "output_dir"} <= set(options)


def workflow() -> dict[str, Any]:
    text = WORKFLOW.read_text().replace("\non:", '\n"on":')  # YAML 1.1 takes it for true
    return yaml.safe_load(text)


def test_the_workflow_builds_on_every_distribution_by_industrial_ci():
    job = workflow()["jobs"]["distribution"]
    assert job["strategy"]["matrix"]["distro"] == ["humble", "jazzy", "kilted", "rolling"]
    assert job["env"]["ROS_DISTRO"] == "${{ matrix.distro }}"
    assert [s["uses"].partition("@")[0] for s in job["steps"]] == [
        "actions/checkout",
        "ros-industrial/industrial_ci",
    ]
    hook = job["env"]["AFTER_INSTALL_TARGET_DEPENDENCIES"]
    scripts = re.findall(r"tools/\w+\.py", hook)
    assert scripts and all((ROOT / script).is_file() for script in scripts)


def test_the_workflow_is_well_formed():
    """What the schema of workflows demands, and that commands and expressions are there."""
    file = workflow()
    assert set(file) <= {"name", "on", "permissions", "concurrency", "jobs"}
    assert set(file["on"]) == {"push", "pull_request", "workflow_dispatch"}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for name, job in file["jobs"].items():
        assert {"runs-on", "steps", "timeout-minutes"} <= set(job), name
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step), name
            if "uses" in step:
                assert re.fullmatch(r"[\w.-]+/[\w.-]+@[\w.]+", step["uses"])
            words = step.get("run", "").split()
            if words[:1] == ["make"]:
                assert all(w in targets or "=" in w for w in words[1:])
            elif words:
                assert words[0] == "sudo" or (ROOT / words[0]).is_file()
        axes = job.get("strategy", {}).get("matrix", {})
        used = set(re.findall(r"matrix\.(\w+)", str(job)))
        assert used == set(axes), name


def test_the_python_versions_of_the_workflow_are_those_of_the_package():
    needed = setup()["options"]["python_requires"]
    versions = workflow()["jobs"]["python"]["strategy"]["matrix"]["python"]
    assert needed == f">={versions[0]}"
