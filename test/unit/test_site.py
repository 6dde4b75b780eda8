# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The documentation as a site: it builds without a warning, and shows what the pages mean."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("material", reason="pip install 'alocc_ros[docs]'")

ROOT = Path(__file__).parents[2]


def build(config: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", config, "-d", out]
    return subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = build(ROOT / "mkdocs.yml", out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


class Reader(HTMLParser):
    """The text of paragraphs, and where the links lead."""

    def __init__(self) -> None:
        super().__init__()
        self.paragraphs: list[str] = []
        self.links: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "p":
            self._inside = True
            self.paragraphs.append("")
        name = {"a": "href", "img": "src"}.get(tag)
        if name and (link := dict(attrs).get(name)):
            self.links.append(link)

    def handle_endtag(self, tag: str) -> None:
        if tag == "p":
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.paragraphs[-1] += data


def read(page: Path) -> Reader:
    reader = Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    return reader


def test_every_page_of_the_repository_is_a_page_of_the_site(site):
    pages = {p.relative_to(ROOT / "docs").with_suffix("") for p in (ROOT / "docs").rglob("*.md")}
    pages = {p.parent / "index" if p.name == "README" else p for p in pages}
    pages |= {Path("index"), Path("CONTRIBUTING"), Path("SECURITY")}
    assert pages <= {p.relative_to(site).with_suffix("") for p in site.rglob("*.html")}


def test_links_lead_to_what_is_there(site):
    for page in site.rglob("*.html"):
        if page.name == "404.html":  # served for any path, so its links are those of the host
            continue
        for link in read(page).links:
            target = link.split("#")[0]
            if target and "://" not in target and not target.startswith("mailto:"):
                assert (page.parent / target).exists(), f"{page.name}: {link}"


def test_links_out_of_the_docs_lead_to_copies_of_the_files(site):
    copy = site / "files" / "config" / "presets" / "custom_example.yaml"
    assert copy.read_bytes() == (ROOT / "config/presets/custom_example.yaml").read_bytes()
    assert "files/config/presets/custom_example.yaml" in read(site / "index.html").links
    assert "files/config/presets/custom_example.yaml" in read(site / "other_vehicles.html").links
    assert "run.html" in read(site / "index.html").links
    assert "index.html" in read(site / "pictures.html").links  # ../README.md


def test_lists_and_tables_are_seen_as_such(site):
    """Code hosts take an indentation of three and a list right behind a line; MkDocs does not."""
    raw = [
        f"{page.name}: {text[:80]}"
        for page in site.rglob("*.html")
        for text in read(page).paragraphs
        if re.search(r"^(\||- |\* |\d+\. |#+ |```)", text, re.M)
    ]
    assert raw == []


def test_nothing_is_loaded_from_elsewhere(site):
    text = (site / "index.html").read_text(encoding="utf-8")
    loaded = re.findall(r'<(?:script|link)\b[^>]*?(?:src|href)="(https?://[^"]+)"', text)
    assert loaded == []


def test_a_link_that_leads_nowhere_stops_the_build(tmp_path):
    """A small site with the same hook and the same rules."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "site_pages.py", tmp_path / "tools")
    for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md"):
        (tmp_path / name).write_text(f"# {name}\n")
    rules = (ROOT / "mkdocs.yml").read_text().partition("nav:\n  -")[0]
    section = "In a system of ROS"
    (tmp_path / "mkdocs.yml").write_text(f"{rules}nav:\n  - index.md\n  - {section}: [page.md]\n")
    links = "[gone](gone.md) [gone](../Gone.txt) [gone](#gone) [there](../README.md)"
    (tmp_path / "docs" / "page.md").write_text(f"# Page\n\n{links}\n")
    done = build(tmp_path / "mkdocs.yml", tmp_path / "out")
    assert done.returncode != 0
    told = [line for line in (done.stdout + done.stderr).splitlines() if "WARNING" in line]
    assert len(told) == 3
    for line, gone in zip(sorted(told), ("#gone", "../Gone.txt", "gone.md"), strict=True):
        assert f"'{gone}'" in line
