# SPDX-License-Identifier: Apache-2.0
"""The site: built strictly, so that no link is broken; whole without a network; looked at once in a browser."""

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("index", "python_api", "command_line", "c_api", "files", "examples/c/index", "benchmarks/RESULTS", "SECURITY")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTH, HEIGHT = 1300, 1600  # of the window, pixels

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    for module, package in (
        ("mkdocs", "mkdocs-material"),
        ("material", "mkdocs-material"),
        ("mkdocstrings", "mkdocstrings"),
    ):
        pytest.importorskip(module, reason=f"{package} is not installed: pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)], cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    return folder


class _Loads(HTMLParser):
    """What a page loads (pictures, scripts, styles) and where its links lead."""

    def __init__(self, page: Path):
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.feed(page.read_text())

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag in ("img", "script", "source", "iframe") and given.get("src"):
            self.loads.append(given["src"])
        elif tag == "link" and given.get("rel") in ("stylesheet", "icon", "preload"):
            self.loads.append(given["href"])
        elif tag == "a" and given.get("href"):
            self.links.append(given["href"])


def test_every_page_is_built(site):
    for page in PAGES:
        assert (site / f"{page}.html").is_file(), page


def test_nothing_is_loaded_from_elsewhere_and_nothing_is_missing(site):
    pages = [page for page in site.rglob("*.html") if page.name != "404.html"]  # its links start at the server's root
    assert len(pages) > 20
    for page in pages:
        found = _Loads(page)
        for target in found.loads:
            assert not re.match(r"(https?:)?//", target), f"{page.name} loads {target}"
        for target in [*found.loads, *found.links]:
            path = unquote(target.partition("#")[0])
            if path and not re.match(r"[a-z]+:", path):
                assert (page.parent / path).exists(), f"{page.relative_to(site)}: {target}"


def test_the_python_api_shows_signatures_and_lists(site):
    text = re.sub(r"<[^>]+>", "", (site / "python_api.html").read_text())
    for shown in ("mcuformer.convert", "mcuformer.Interpreter", "calibration: uint8 NHWC images", "PlanError"):
        assert shown in text, shown


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("Debian's package chromium is not installed")
    profile = tmp_path_factory.mktemp("profile")

    def run(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=5000",
             f"--user-data-dir={profile}", f"--window-size={WIDTH},{HEIGHT}", *arguments],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    return run


def test_the_first_page_is_rendered(site, browser, tmp_path):
    """Title, heading and picture, in a browser that has no network."""
    address = (site / "index.html").as_uri()
    page = browser("--dump-dom", address).stdout
    assert "<title>MCUFormer</title>" in page
    assert 'class="md-header' in page and "Vision Transformers on microcontrollers" in page

    shot = tmp_path / "index.png"
    done = browser(f"--screenshot={shot}", address)
    assert shot.is_file(), done.stderr
    pixels = np.asarray(Image.open(shot).convert("RGB")).reshape(-1, 3)
    assert pixels.shape[0] == WIDTH * HEIGHT
    for colour in ((0x40, 0x51, 0xB5), (0xE0, 0xA0, 0x30)):  # the theme's header; the picture of the schedules
        assert (np.abs(pixels.astype(int) - colour).max(axis=1) <= 2).sum() > 1000, colour
