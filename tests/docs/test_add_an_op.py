# SPDX-License-Identifier: Apache-2.0
"""docs/add_an_op.md: what it quotes stands in the code, and its steps, followed word by word, give an op that runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from mcuformer.converter.ops import OPS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "add_an_op.md"
OPS_PAGE = ROOT / "docs" / "ops.md"
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A block of code of the page. title: the file that it is of; empty: none."""

    language: str
    title: str
    text: str


def blocks(page: str) -> list[Block]:
    return [Block(*found.groups(default="")) for found in BLOCK.finditer(page)]


def hunks(diff: str) -> list[tuple[str, str]]:
    """(old lines, new lines) of every part of a diff; @@ stands between parts."""
    found = []
    for part in re.split(r"^@@\n", diff, flags=re.MULTILINE):
        lines = [line or " " for line in part.splitlines()]
        assert all(line[0] in " +-" for line in lines), part
        old, new = ([line[1:] for line in lines if line[0] in kept] for kept in (" -", " +"))
        found.append(("".join(f"{line}\n" for line in old), "".join(f"{line}\n" for line in new)))
    return found


def changed(text: str, diff: str, name: str) -> str:
    """A file's text with a diff applied: every part has one place."""
    for old, new in hunks(diff):
        places = ("\n" + text).count("\n" + old)
        assert places == 1, f"{name}: {places} places for\n{old}"
        text = ("\n" + text).replace("\n" + old, "\n" + new)[1:]
    return text


@pytest.fixture(scope="module")
def page() -> list[Block]:
    return blocks(PAGE.read_text())


def test_its_changes_and_quotes_fit_the_code(page):
    assert PAGE.read_text().count("\n```") == 2 * len(page), "a block that this test does not understand"
    kinds = {"new": 0, "diff": 0, "quote": 0}
    for language, title, text in page:
        if language == "diff":
            changed((ROOT / title).read_text(), text, title)
            kinds["diff"] += 1
        elif title.startswith("in "):
            assert ("\n" + (ROOT / title[3:]).read_text()).count("\n" + text) == 1, f"{title}:\n{text}"
            kinds["quote"] += 1
        elif title:
            assert (ROOT / title).parent.is_dir() and not (ROOT / title).exists(), title
            kinds["new"] += 1
    assert all(kinds.values()), kinds


def test_its_table_lists_every_file(page):
    """The table at the top has each file that the page writes or changes, and no other."""
    table = "\n".join(line.split("|")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `"))
    listed = {Path(name).name for name in re.findall(r"`([\w./]+\.\w+)`", table)}
    listed |= {"mcuf_channel_scale_s8.c"}  # "..., `.c`"
    assert listed == {Path(title).name for _, title, _ in page if title and not title.startswith("in ")}


def test_the_op_reference_has_every_op():
    text = OPS_PAGE.read_text()
    rows = "\n".join(line.split("|")[1] for line in text.splitlines() if line.startswith("| `"))
    headings = "\n".join(re.findall(r"^## (.*)$", text, re.MULTILINE))
    for kind in OPS:
        assert f"`{kind}`" in rows, f"docs/ops.md: no row for {kind}"
        assert re.search(rf"\b{kind}\b", headings), f"docs/ops.md: no section for {kind}"


def copied(folder: Path) -> Path:
    """The project's files, tracked and new, in `folder`."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode != 0:
        pytest.skip("this is no checkout of git: the project's files are not known")
    for name in filter(None, listed.stdout.split("\0")):
        source, target = ROOT / name, folder / name
        if source.is_symlink() or source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    return folder


def follow(page: list[Block], folder: Path) -> None:
    """Writes and changes the files that the page says."""
    for language, title, text in page:
        if language == "diff":
            (folder / title).write_text(changed((folder / title).read_text(), text, title))
        elif title and not title.startswith("in "):
            (folder / title).write_text(text)


def run(command: list[str], folder: Path) -> str:
    """What a command prints, in the copy and of the copy's package."""
    kept = {name: value for name, value in os.environ.items() if name != "MCUFORMER_HOST_LIBRARY"}
    done = subprocess.run(
        command, cwd=folder, env={**kept, "PYTHONPATH": str(folder)}, capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.mark.slow
def test_the_page_followed_word_by_word(page, tmp_path):
    pytest.importorskip("tflite_micro", reason="tflite-micro is not installed: it has no build for this machine")
    if shutil.which("cc") is None:
        pytest.skip("cc is not installed (Debian: gcc)")
    folder = copied(tmp_path / "project")
    follow(page, folder)
    python = [sys.executable]
    for language, title, text in page:  # its commands and its example, in order
        if language == "bash":
            for line in text.splitlines():
                words = re.findall(r'"[^"]*"|\S+', line)
                assert words[0] == "python"
                print(run([*python, *(word.strip('"') for word in words[1:])], folder))
        elif language == "python" and not title:
            code, _, printed = text.rstrip().rpartition("\n# ")
            assert run([*python, "-c", code], folder).strip() == printed
    where = run([*python, "-c", "import mcuformer.converter as c; print(c.__file__)"], folder)
    assert Path(where.strip()).resolve().is_relative_to(folder.resolve()), where
    pytest_quietly = [*python, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    print(run([*pytest_quietly, "tests/docs/channel_scale_model.py"], folder))
    print(run([*pytest_quietly, "tests/docs/test_pages.py", "tests/export/test_tflm_api.py", "-k",
               "links or public_function or (the_glue_compiles and host)"], folder))  # fmt: skip


@pytest.mark.slow
def test_what_the_page_writes_passes_make_lint(page, tmp_path):
    folder = copied(tmp_path / "project")
    follow(page, folder)
    files = [title for _, title, _ in page if title and not title.startswith("in ")]
    python = [name for name in files if name.endswith(".py")]
    pytest.importorskip("ruff", reason="ruff is not installed: pip install -e '.[dev]'")
    run([sys.executable, "-m", "ruff", "check", *python], folder)
    run([sys.executable, "-m", "ruff", "format", "--check", *python], folder)
    if shutil.which("clang-format") is None:
        pytest.skip("clang-format is not installed (Debian: clang-format)")
    run(["clang-format", "--dry-run", "-Werror", *(name for name in files if re.search(r"\.(c|cc|h)$", name))], folder)
