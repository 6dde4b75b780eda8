# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What MkDocs does not know of this repository; a hook that mkdocs.yml names.

On a code host README.md is the first page, and pages link to files of the repository. On the site
README.md, CONTRIBUTING.md and SECURITY.md are pages of the top level, and every other file that a
page links to is copied to ``files/``: one link leads to the right place on both.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
# File of the repository to the page of the site.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "SECURITY.md": "SECURITY.md",
}
COPIES = "files"
INTEGRATIONS = "integrations"  # folder of docs/, whose pages go into
INTEGRATIONS_SECTION = "In a system of ROS"  # of nav
_LINK = re.compile(r"(\]\()([^)\s#]*)(#[^)\s]*)?(?=[)\s])")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Adds the pages of ``docs/integrations`` to their section, as they are there."""
    (section,) = (entry for entry in config.nav if INTEGRATIONS_SECTION in entry)
    pages = section[INTEGRATIONS_SECTION]
    docs = Path(config.docs_dir)
    named = {page for page in pages if isinstance(page, str)}
    found = (path.relative_to(docs).as_posix() for path in docs.glob(f"{INTEGRATIONS}/*.md"))
    pages += sorted(set(found) - named, key=lambda name: (not name.endswith("README.md"), name))
    if not pages:
        config.nav.remove(section)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that lie outside of ``docs`` and the files that any page links to."""
    for source, page in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=site_links(text, source)))
    for file in files.documentation_pages():
        if file.src_uri in PAGES.values():
            text = (ROOT / _source(file.src_uri)).read_text(encoding="utf-8")
        else:
            text = file.content_string
        for target in sorted(_linked(text, _source(file.src_uri))):
            copy = f"{COPIES}/{target}"
            if _is_a_copy(target) and files.get_file_from_path(copy) is None:
                files.append(File.generated(config, copy, abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links that are right in the repository into those of the site."""
    if page.file.src_uri in PAGES.values():
        return markdown  # done already
    return site_links(markdown, _source(page.file.src_uri))


def site_links(markdown: str, source: str) -> str:
    """The text with its links as they are on the site.

    Args:
        markdown: of a page.
        source: path of its file in the repository.
    """
    page = _page(source)

    def renewed(match: re.Match[str]) -> str:
        before, link, anchor = match[1], match[2], match[3] or ""
        target = _target(link, source)
        if target is None:
            return match[0]
        new = _page(target) if _page(target) else f"{COPIES}/{target}"
        return before + posixpath.relpath(new, posixpath.dirname(page) or ".") + anchor

    return _LINK.sub(renewed, markdown)


def _source(page: str) -> str:
    """File of the repository that a page of the site is made of."""
    return {made: source for source, made in PAGES.items()}.get(page, f"docs/{page}")


def _page(source: str) -> str:
    """Path of the site that a file of the repository becomes; "": it is copied, if linked to."""
    return PAGES.get(source, source.removeprefix("docs/") if source.startswith("docs/") else "")


def _is_a_copy(target: str) -> bool:
    return not _page(target)


def _target(link: str, source: str) -> str | None:
    """File of the repository that ``link`` in ``source`` leads to; None: not one of the repository.

    A link that leads nowhere is left as it is, for MkDocs to complain about.
    """
    if not link or "://" in link or link.startswith(("mailto:", "/")):
        return None
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    return target if not target.startswith("..") and (ROOT / target).is_file() else None


def _linked(markdown: str, source: str) -> set[str]:
    targets = (_target(match[2], source) for match in _LINK.finditer(markdown))
    return {target for target in targets if target is not None}
