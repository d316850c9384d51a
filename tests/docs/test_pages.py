# SPDX-License-Identifier: Apache-2.0
"""README, docs and examples: no broken link, no figure that RESULTS.md lacks, nothing missing on generated pages."""

import re
from pathlib import Path

import click
import pytest
from scripts import load_script

from mcuformer.cli import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES += [page for folder in ("docs", "examples") for page in sorted((ROOT / folder).rglob("*.md"))]
RESULTS = (ROOT / "benchmarks" / "RESULTS.md").read_text()


def load(name: str):
    """A script of tools/docs as a module."""
    return load_script(f"tools/docs/{name}.py")


def anchors(page: Path) -> set[str]:
    """The anchors that headings make."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL))
    for link in links:
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {link}"


def tables(page: Path, *headings: str) -> str:
    """The rows of the tables under these headings."""
    parts = re.split(r"^##? (.*)$", page.read_text(), flags=re.MULTILINE)
    chosen = {title: text for title, text in zip(parts[1::2], parts[2::2], strict=True)}
    return "\n".join(line for title in headings for line in chosen[title].splitlines() if line.startswith("|"))


@pytest.mark.parametrize(
    ("page", "headings"),
    [
        ("README.md", ["MCUFormer", "Speed on the host"]),
        ("docs/results.md", ["Memory", "Time on the host, against stock tools"]),
    ],
)
def test_figures_are_those_of_the_benchmarks(page, headings):
    figures = re.findall(r"\d+,\d{3}(?:,\d{3})*|\d+\.\d+", tables(ROOT / page, *headings))
    assert len(figures) > 5
    missing = [figure for figure in figures if not re.search(rf"(?<![\d,.]){re.escape(figure)}(?![\d])", RESULTS)]
    # Published, or worked out of two figures of the table: how many times faster.
    assert not [figure for figure in missing if f"{figure} times" not in (ROOT / page).read_text()], missing


def test_the_method_shows_what_the_benchmarks_printed():
    blocks = re.findall(r"```\n(.*?)```", (ROOT / "docs" / "method.md").read_text(), re.DOTALL)
    printed, results = [line for block in blocks for line in block.splitlines()], RESULTS.splitlines()
    assert len(printed) > 5 and not [line for line in printed if line not in results]


def test_the_cpu_build_of_torch_is_the_pinned_one():
    (pinned,) = re.findall(r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert re.findall(r"pip install torch==(\S+) --index-url", (ROOT / "README.md").read_text()) == [pinned]


def test_files_lists_every_format():
    sources = [path.read_text() for folder in ("nas", "converter") for path in (ROOT / folder).rglob("*.py")]
    formats = set(re.findall(r'FORMAT = "(mcuformer\.\w+/\d+)"', "\n".join(sources)))
    assert len(formats) >= 6
    listed = (ROOT / "docs" / "files.md").read_text()
    assert not [name for name in formats if f"| `{name}` |" not in listed]


def test_the_command_line_page_has_every_command_and_option():
    page, known = load("command_line").page(), click.Context(app)
    for name in app.list_commands(known):
        command = app.get_command(known, name)
        (section,) = re.findall(rf"^### mcuformer {name}$(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)
        for parameter in command.params:
            names = parameter.opts if isinstance(parameter, click.Option) else [parameter.human_readable_name]
            assert all(spelling in section for spelling in names), f"{name}: {names}"


def test_the_c_api_page_has_every_public_function():
    page = load("c_api").page()
    headers = [path for folder in ("core", "sound") for path in (ROOT / "tflm_kernels" / folder).glob("*.h")]
    declared = re.findall(r"^MCUF_API [\w *]*?\b(mcuf_\w+)\(", "\n".join(p.read_text() for p in headers), re.M)
    assert len(declared) > 20
    assert not [name for name in declared if f"#### `{name}`" not in page]
    assert "MCUF_API" not in page and "Internal to the C kernels" not in page and "*/\n/" not in page
    assert "class TokenOverwritePlanner" in page and " private:" not in page


def test_prose_of_a_comment_keeps_its_formulas():
    c_api = load("c_api")
    shown = c_api.prose("Sums up:\n\n  acc = a * b\n\nwith a_b < 2 and *c*.")
    assert "```text\n  acc = a * b\n```" in shown
    assert "`a_b` &lt; 2 and \\*c\\*" in shown


def test_aligned_lists_of_docstrings_become_lists():
    pytest.importorskip("griffe", reason="griffelib is not installed: pip install -e '.[docs]'")
    listed = load("docstrings").listed
    text = "Does it.\n\npath   where\nboard  a name;\n       plain\n\nRaises."
    assert listed(text) == "Does it.\n\n\n- `path`: where\n- `board`: a name; plain\n\nRaises."
    assert listed("One sentence  here.") == "One sentence  here."
