# SPDX-License-Identifier: Apache-2.0
"""Prints figures of the project's structure, of this tree or of another version's, for docs/verification.md.

    python tools/house.py              this tree, as git has it (what is committed)
    python tools/house.py c234ded      another commit

Needs git, mypy and grimp:  pip install -c constraints.txt mypy grimp
"""

from __future__ import annotations

import ast
import configparser
import io
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What each is known by: a new one of its kind has to be entered where the name of an old one stands.
KNOWN_BY = {
    "small op": "int_gelu|IntGeLU",
    "large op": "stem_conv|StemConv|conv_channels",
    "core": r"\bm55\b|\bM55\b|cortex-m55",
    "export kind": "arduino",
}
NOT_CODE = re.compile(r"^(docs|examples|tests|benchmarks|arduino)/|\.md$|^\.|^tools/house\.py$")
CIRCLES = """
import grimp
graph = grimp.build_graph("mcuformer", cache_dir=None, exclude_type_checking_imports=True)
for a in sorted(graph.modules):
    for b in sorted(graph.find_modules_directly_imported_by(a)):
        if a < b and graph.chain_exists(a, b) and graph.chain_exists(b, a):
            print(a, b)
"""


def git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def unpack(commit: str, folder: Path) -> None:
    content = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(folder, filter="data")


def as_installed(source: Path, folder: Path) -> list[Path]:
    """Copies the Python files to where an install puts them, by setup.cfg: then any tool follows the imports."""
    settings = configparser.ConfigParser()
    settings.read(source / "setup.cfg")
    folders = dict(line.split(" = ") for line in settings["options"]["package_dir"].split("\n") if line)
    written = []
    for package in settings["options"]["packages"].split():
        parent = max((name for name in folders if f"{package}.".startswith(f"{name}.")), key=len)
        where = source / folders[parent] / package.removeprefix(parent).lstrip(".").replace(".", "/")
        for path in sorted(where.glob("*.py")):
            target = folder / package.replace(".", "/") / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
            written.append(target)
    return written


def functions(path: Path) -> list[tuple[int, str]]:
    """(lines, name) of each function of a file."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]
    return [(node.end_lineno - node.lineno + 1, node.name) for node in nodes]


def mypy_errors(folder: Path) -> str:
    command = [sys.executable, "-m", "mypy", "--config-file=", "--ignore-missing-imports", "-p", "mcuformer"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return (done.stdout.strip() or done.stderr.strip()).splitlines()[-1]


def circles(folder: Path) -> list[str]:
    done = subprocess.run([sys.executable, "-c", CIRCLES], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def main() -> None:
    commit = sys.argv[1] if len(sys.argv) > 1 else "HEAD"
    with tempfile.TemporaryDirectory() as temporary:
        source, installed = Path(temporary) / "source", Path(temporary) / "installed"
        source.mkdir()
        unpack(commit, source)
        files = as_installed(source, installed)
        print(f"commit: {git('rev-parse', '--short', commit).strip()}")
        print(f"mypy: {mypy_errors(installed)}")
        written = [path for path in files if not path.stem.endswith("_generated")]
        longest = sorted(((*f, path.relative_to(installed)) for path in written for f in functions(path)), reverse=True)
        print("functions over 60 lines, or the longest:")
        for lines, name, path in [f for f in longest if f[0] > 60] or longest[:1]:
            print(f"    {lines} lines, {name} in {path}")
        print(f"functions over 60 lines: {sum(lines > 60 for lines, *_ in longest)} of {len(longest)}")
        rooms = Counter(str(path.parent.relative_to(installed)) for path in files)
        print(f"rooms: {len(rooms)}; files in each: {', '.join(f'{room} {n}' for room, n in sorted(rooms.items()))}")
        found = circles(installed)
        print(f"pairs of modules in an import circle: {len(found)} {found}")
        python = [p for p in git("ls-tree", "-r", "--name-only", commit).splitlines() if p.endswith(".py")]
        python = [p for p in python if not p.endswith("_generated.py") and (source / p).is_file()]
        lines = {p: len((source / p).read_text().splitlines()) for p in python}
        package = sum(len(path.read_text().splitlines()) for path in written)
        tests = sum(n for p, n in lines.items() if p.startswith("tests/"))
        rest = sum(lines.values()) - package - tests
        print(f"lines of Python: {package} in the package, {rest} in tools, benchmarks and examples, {tests} in tests")
        for kind, pattern in KNOWN_BY.items():
            hits = git("grep", "-IilP", pattern, commit).splitlines()
            names = [hit.removeprefix(f"{commit}:") for hit in hits]
            code = [name for name in names if not NOT_CODE.search(name)]
            texts = len(names) - len(code)
            print(f"files that know one {kind} ({pattern}): {len(code)}, and {texts} tests and texts")
            for name in code:
                print(f"    {name}")


if __name__ == "__main__":
    main()
