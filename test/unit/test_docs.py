# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The pages say what is so: tables, links, commands."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from alocc_ros.bags import sample
from alocc_ros.cli.main import COMMANDS, parser_for
from alocc_ros.labels import OCC3D, OPENOCC
from alocc_ros.records import load_records
from alocc_ros.training.settings import SETTINGS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# A block of another language is passed over as a whole: its end begins no other one.
_BLOCK = re.compile(r"```python\n.*?```|(<!-- tested -->\n)?```(?:sh|bash)?\n(.*?)```", re.S)


def shell_lines(page: Path) -> list[str]:
    """Every command of the page's code blocks, and those in the text."""
    text = page.read_text(encoding="utf-8")
    blocks = "\n".join(match[2] or "" for match in _BLOCK.finditer(text))
    indented = re.findall(r"^    (\S.*)$", text, re.M)
    inline = re.findall(r"`((?:alocc|make) [^`]+)`", text)
    return [line.split("#")[0].strip() for line in (*blocks.splitlines(), *indented, *inline)]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", prose)
    gone = [k for k in links if "://" not in k and not (page.parent / k).exists()]
    assert gone == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_are_commands(page, capsys):
    known = {name for name, _ in COMMANDS}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for line in shell_lines(page):
        words = shlex.split(line) if line.count("'") % 2 == 0 else line.split()
        if words[:1] == ["make"]:
            assert words[1] in targets, line
        elif words[:1] == ["alocc"] and len(words) > 1 and not re.search(r"[\[|]|\.\.\.", line):
            assert words[1] in known or words[1].startswith("-"), line
            if "-" in line and words[1] in known and len(words) > 3:
                try:
                    parser_for(words[1:]).parse_args(words[1:])
                except SystemExit:
                    # In running text a command may stand without what it must have.
                    error = capsys.readouterr().err
                    assert "the following arguments are required" in error, f"{line}: {error}"


def tool(name: str) -> ModuleType:
    """A module of tools/."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs/models.md"], ids=str)
def test_tables_of_models_are_those_of_the_records(page):
    text = page.read_text(encoding="utf-8")
    assert "`alocc_flow_3d` | " in text
    made = tool("models_table").renewed(page)
    assert made == text, "python tools/models_table.py makes it anew"


@pytest.mark.parametrize(
    ("page", "row"),
    [
        ("node.md", "| `~/voxels` | alocc_ros/SemanticGrid | "),
        ("run.md", "| `/alocc/grid_info` | alocc_ros/GridInfo | "),
    ],
)
def test_tables_of_outputs_are_those_of_the_code(page, row):
    path = ROOT / "docs" / page
    text = path.read_text(encoding="utf-8")
    assert row in text
    made = tool("output_tables").renewed(path)
    assert made == text, "python tools/output_tables.py makes it anew"


def test_the_table_of_settings_is_that_of_the_code():
    page = ROOT / "docs/settings.md"
    text = page.read_text(encoding="utf-8")
    assert "| `learning_rate` | " in text
    assert tool("settings_table").renewed(page) == text, "python tools/settings_table.py makes it"


def test_the_table_of_label_files_is_that_of_the_code():
    page = ROOT / "docs/data.md"
    text = page.read_text(encoding="utf-8")
    assert re.search(
        r"^\| `alocc_tiny`.* \| `openocc_v2/`, `openocc_v2_ray_mask/`, `gts/` \| ", text, re.M
    )
    assert tool("label_files_table").renewed(page) == text, "python tools/label_files_table.py"


def test_the_page_for_users_of_the_reference_is_complete():
    page = ROOT / "docs/from_the_reference.md"
    text = page.read_text(encoding="utf-8")
    assert tool("reference_table").renewed(page) == text, "python tools/reference_table.py"
    scripts = "extract_sem_point create_data_bevdet dist_train dist_test dist_test_ray visual"
    for script in (*scripts.split(), "benchmark.py", "get_flops"):
        assert script in text, script
    for file in (r.file for r in load_records().values() if r.repository and r.file):
        assert f"`{Path(file).stem}.py`" in text
    for name in re.findall(r"--set (\w+)=", text):
        assert name in SETTINGS or name == "name", name


def test_the_table_of_classes_is_that_of_the_code():
    rows = re.findall(
        r"^\| (\d+) \| (\w+) \| (\w*) ?\|$", (ROOT / "docs/frames.md").read_text(), re.M
    )
    assert tuple(r[1] for r in rows) == OCC3D.names
    assert tuple(r[2] for r in rows if r[2]) == OPENOCC.names
    assert [int(r[0]) for r in rows] == list(range(len(OCC3D.names)))


def test_every_quirk_is_in_the_table():
    files = [
        p.relative_to(ROOT / "alocc_ros").as_posix()
        for p in (ROOT / "alocc_ros").rglob("*.py")
        if "BUG-COMPAT" in p.read_text(encoding="utf-8")
    ]
    page = (ROOT / "docs/models.md").read_text(encoding="utf-8")
    assert len(files) >= 5
    assert [f for f in files if f"`{f}`" not in page] == []


def test_the_ten_lines_of_python_run_as_they_stand(tmp_path, monkeypatch):
    """With what a simulator has: arrays, matrices and poses."""
    (block,) = re.findall(
        r"<!-- tested: python -->\n```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S
    )
    assert len([line for line in block.splitlines() if line and "import" not in line]) <= 10
    cameras, boxes, names = sample.rig(352, 198), sample.street(), {}
    for number in range(2):
        stamp = sample.START + number * 500_000_000
        images = {c: sample.draw(cal, stamp, boxes) for c, cal in cameras.items()}
        names.setdefault("frames", []).append((stamp, images, sample.ego_pose(stamp)))
    names["K"] = {c: cal.intrinsics for c, cal in cameras.items()}
    names["base_T_camera"] = {c: cal.base_T_camera for c, cal in cameras.items()}
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), names)
    assert names["found"].labels.shape == (200, 200, 16)
    assert names["found"].flow.shape == (200, 200, 16, 2)
    assert not names["found"].degraded and not names["found"].reset
    with Image.open("occupancy.png") as picture:
        assert picture.width > 1000


@pytest.mark.slow
@pytest.mark.system
def test_commands_marked_as_tested_run_as_they_stand(tmp_path):
    """In a folder of their own, one after the other, as a reader would."""
    for name in ("python", "alocc"):
        module = " -m alocc_ros.cli.main" if name == "alocc" else ""
        script = tmp_path / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)}{module} "$@"\n')
        script.chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment["PATH"] = f"{tmp_path / 'bin'}{os.pathsep}{environment['PATH']}"
    marked = [m[2] for page in PAGES for m in _BLOCK.finditer(page.read_text()) if m[1]]
    assert marked
    for block in marked:
        done = subprocess.run(
            ["bash", "-euc", block], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    assert (tmp_path / "occupancy.mcap").stat().st_size > 10_000
