# SPDX-License-Identifier: Apache-2.0
"""MkDocs hooks that add generated pages, and pages from outside docs/, to the site.

README.md is the first page; CHANGELOG.md, CONTRIBUTING.md, SECURITY.md, benchmarks/RESULTS.md and the walks in
examples/ are pages under their own names. Links in Markdown are written for the repository; `site_links` turns them
into site links.
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path

from mkdocs.structure.files import File

sys.path.insert(0, str(Path(__file__).parent))
import c_api  # noqa: E402
import command_line  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "benchmarks/RESULTS.md",
    "examples/**/*.md",
    "examples/python/*.py",
)
GENERATED = {"command_line.md": command_line.page, "c_api.md": c_api.page}
LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s#]+)((?:#[^)\s]*)?\))")


def site_path(path: str) -> str:
    """Where a file of the repository is in the site."""
    return "index.md" if path == "README.md" else path.removeprefix("docs/")


def outside() -> dict[str, Path]:
    """Files from outside docs/, by their place in the site."""
    found = [path for pattern in OUTSIDE for path in sorted(ROOT.glob(pattern))]
    return {site_path(path.relative_to(ROOT).as_posix()): path for path in found}


def site_links(text: str, source: str) -> str:
    """Markdown of the file `source` (its path in the repository) with links that hold in the site."""
    at = posixpath.dirname(site_path(source))

    def replaced(found: re.Match) -> str:
        target = found[2]
        if re.match(r"[a-z]+:", target):
            return found[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        return found[1] + posixpath.relpath(site_path(path), at or ".") + found[3]

    return LINK.sub(replaced, text)


def on_files(files, config):
    for path, source in outside().items():
        files.append(File.generated(config, path, abs_src_path=str(source)))
    for path, page in GENERATED.items():
        files.append(File.generated(config, path, content=page()))
    return files


def on_page_markdown(markdown, page, config, files):
    uri = page.file.src_uri
    if uri == "index.md":
        page.meta["hide"] = ["navigation"]  # it has no neighbours
    if uri in GENERATED:
        return markdown
    source = outside().get(uri)
    return site_links(markdown, f"docs/{uri}" if source is None else source.relative_to(ROOT).as_posix())
