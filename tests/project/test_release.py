# SPDX-License-Identifier: Apache-2.0
"""make release: what it refuses, what it writes, and that a wheel needs no compiler where it is installed.

make test-slow PYTEST_ARGS="tests/project/test_release.py -s"
"""

import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from scripts import load_script
from test_clean_root import project_files
from test_install import compilers
from test_platforms import driven, driver, expected, needs  # noqa: F401

from mcuformer import SubnetConfig, convert, data, kernel_library, native
from mcuformer.converter.export.registry import TARGETS
from mcuformer.errors import ConfigError, ToolchainError
from mcuformer.nas import build_subnet

ROOT = Path(__file__).resolve().parents[2]
VERSION = metadata.version("mcuformer")
CHANGELOG = f"# Changelog\n\n## [Unreleased]\n\n## [{VERSION}] - 2026-01-01\n\n- All of it.\n"
FAST = {"CFLAGS": "-O0", "CXXFLAGS": "-O0"}  # how fast kernels are is not what is tested here
release = load_script("tools/release.py")


def git(folder: Path, *words: str) -> str:
    command = ["git", "-c", "user.name=Tests", "-c", "user.email=tests@example.org", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def committed(folder: Path, files: dict[str, str]) -> Path:
    """A repository with one commit, of these files."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=all", "--date=2026-01-01T00:00:00Z")
    return folder


@pytest.fixture
def project(tmp_path):
    """What is checked before anything is built."""
    files = {
        "setup.cfg": f"[metadata]\nversion = {VERSION}\n",
        "arduino/library.properties": f"name=MCUFormer\nversion={VERSION}\n",
        "CHANGELOG.md": CHANGELOG,
    }
    return committed(tmp_path / "project", files)


def test_this_project_has_one_version():
    settings = (ROOT / "setup.cfg").read_text()
    assert re.findall(r"^version = (.*)$", settings, flags=re.MULTILINE) == [VERSION]
    assert f"\nversion={VERSION}\n" in (ROOT / "arduino" / "library.properties").read_text()


@pytest.mark.needs("git")
@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("setup.cfg", "[metadata]\nversion = 9.8.7\n", "library.properties has version .*, setup.cfg 9.8.7: make them"),
        ("arduino/library.properties", "version=1.2.3\n", f"library.properties has version 1.2.3, setup.cfg {VERSION}"),
        ("CHANGELOG.md", "## [Unreleased]\n\n- All of it.\n", rf"CHANGELOG.md has no section \[{VERSION}\]: rename"),
        ("CHANGELOG.md", f"{CHANGELOG}\n", "CHANGELOG.md: not as in the last commit; commit or stash first"),
        ("new.txt", "", "new.txt: not as in the last commit"),
    ],
)
def test_what_cannot_be_released_is_refused(project, name, text, message):
    (project / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        release.release(project, project / "setup.cfg", project.parent / "dist")
    assert not (project.parent / "dist").exists()


@pytest.mark.needs("git")
def test_a_version_that_is_not_the_installed_one_is_refused(project, monkeypatch):
    monkeypatch.setattr(release.metadata, "version", lambda name: "0.0.9")
    with pytest.raises(ConfigError, match=f"the installed package has version 0.0.9, setup.cfg {VERSION}.* run make"):
        release.version_of(project)


@pytest.mark.needs("git")
def test_without_a_model_or_room_nothing_is_written(project, tmp_path):
    with pytest.raises(ConfigError, match="gone.tflite: no such file; `make demo` makes it"):
        release.release(project, tmp_path / "gone.tflite", tmp_path / "dist")
    (tmp_path / "dist").mkdir()
    kept = tmp_path / "dist" / "mcuformer-0.0.1.tar.gz"
    kept.write_text("of an earlier version")
    with pytest.raises(ConfigError, match="dist: not an empty folder; remove it, or keep it under another name"):
        release.release(project, project / "setup.cfg", tmp_path / "dist")
    assert kept.read_text() == "of an earlier version"


@pytest.mark.needs("git")
def test_a_build_that_fails_leaves_nothing(project, tmp_path):
    """The project has no setup.py, and no packages."""
    pytest.importorskip("build")
    (project / "pyproject.toml").write_text("[build-system]\nrequires = []\nbuild-backend = 'none'\n")
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message=broken")
    with pytest.raises(ToolchainError, match="-m build .*failed in .*its own words are above"):
        release.release(project, project / "setup.cfg", tmp_path / "dist")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["project"]


def test_zips_are_the_same_every_time(tmp_path):
    for name in ("a", "b"):
        folder = tmp_path / name / "export"
        (folder / "core").mkdir(parents=True)
        (folder / "core" / "x.c").write_text("int x;\n")
        (folder / "README.md").write_text("# x\n")
        os.utime(folder / "README.md", (1e9, 1e9 + ord(name)))
        release.write_zip(folder, tmp_path / f"{name}.zip", epoch=0)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert zipfile.ZipFile(tmp_path / "a.zip").namelist() == ["export/README.md", "export/core/x.c"]


@pytest.mark.parametrize(
    ("target", "own", "tag"),
    [
        ("x86_64-linux-gnu", "linux_x86_64", "linux_x86_64"),
        ("x86_64-redhat-linux", "linux_x86_64", "linux_x86_64"),
        ("aarch64-linux-gnu", "linux_x86_64", "linux_aarch64"),
        ("riscv64-linux-gnu", "linux_riscv64", "linux_riscv64"),
        ("x86_64-w64-mingw32", "win_amd64", "win_amd64"),
        ("x86_64-w64-mingw32", "linux_x86_64", "win_amd64"),
        ("arm64-apple-darwin23.1.0", "macosx_11_0_arm64", "macosx_11_0_arm64"),
        ("arm64-apple-darwin23.1.0", "macosx_10_13_universal2", "macosx_10_13_arm64"),
        ("aarch64-apple-darwin23.1.0", "macosx_11_0_universal2", "macosx_11_0_arm64"),
        ("x86_64-apple-darwin23.1.0", "macosx_11_0_arm64", "macosx_11_0_x86_64"),
        ("x86_64-unknown-freebsd14", "freebsd_14_0_release_amd64", "freebsd_14_0_release_amd64"),
    ],
)
def test_a_wheel_is_for_the_machine_of_its_library(target, own, tag):
    assert native.wheel_platform(target, own) == tag


def test_setup_tags_wheels_by_the_compiler(tmp_path):
    """A compiler that says it makes code for aarch64."""
    (tmp_path / "mcuformer").mkdir()
    for name in ("setup.py", "mcuformer/native.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "tflm_kernels").mkdir()
    (tmp_path / "tflm_kernels" / "sources.mk").write_text("MCUF_CORE_SRCS = a.c\nMCUF_HOST_CORE_SRCS = b.cc\n")
    for name in ("a.c", "b.cc"):
        (tmp_path / "tflm_kernels" / name).write_text("")
    env = os.environ | compilers(tmp_path, "aarch64-linux-gnu")
    for more, tag in ((), "linux_aarch64"), (("--plat-name", "manylinux_2_17_aarch64"), "manylinux_2_17_aarch64"):
        command = [sys.executable, "setup.py", "-q", "bdist_wheel", *more]
        subprocess.run(command, cwd=tmp_path, env=env, check=True, capture_output=True)
        assert len(list((tmp_path / "dist").glob(f"*-py3-none-{tag}.whl"))) == 1


def test_logits_that_are_not_the_golden_ones_are_told(tmp_path):
    golden = ROOT / "tests" / "golden" / "0.1.0"
    facts, name = json.loads((golden / "golden.json").read_text()), "streamed"
    facts["models"] = {name: facts["models"][name]}
    (tmp_path / "golden.json").write_text(json.dumps(facts))
    shutil.copy(golden / f"{name}.tflite", tmp_path)
    with np.load(golden / "values.npz") as values:
        kept = {key: values[key] for key in (f"{facts['models'][name]['network']}.images", f"{name}.logits")}
    for off, status in (0, 0), (1e-3, 1):
        kept[f"{name}.logits"][-1, -1] += off
        np.savez(tmp_path / "values.npz", **kept)
        command = [sys.executable, ROOT / "tools" / "run_golden.py", tmp_path]
        done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        assert f"{name}, c: {('exact', 'NOT EQUAL')[status]}" in done.stdout


# a whole release


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """This working tree, committed, with a section of its version in the changelog."""
    if missing := [name for name in ("build", "auditwheel") if importlib.util.find_spec(name) is None]:
        pytest.skip(f"{', '.join(missing)} not installed: pip install -c constraints.txt -e '.[dev]'")
    folder = tmp_path_factory.mktemp("release") / "checkout"
    for name in project_files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    return committed(folder, {"CHANGELOG.md": CHANGELOG})


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A network for the ten classes of the data in the package, untrained."""
    images = data.load("fashion-mnist", "test")
    config = SubnetConfig(image_size=32, in_channels=1, patch_size=8, embed_dim=16, depth=1, num_heads=2)
    path = tmp_path_factory.mktemp("model") / "model.tflite"
    made = convert(build_subnet(config), images.images[:64], board="nano33ble", class_names=images.class_names)
    made.save(path)
    return path


def run_release(checkout: Path, model: Path) -> subprocess.CompletedProcess:
    env = os.environ | FAST | {"PYTHONPATH": str(checkout), "MCUFORMER_HOST_LIBRARY": str(kernel_library.LIBRARY)}
    command = [sys.executable, "tools/release.py", "--model", str(model)]
    return subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True)


@pytest.fixture(scope="module")
def dist(checkout, model) -> Path:
    """The folder that the release has written."""
    done = run_release(checkout, model)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    return checkout / "dist"


def wheel_of(dist: Path, machine: str) -> Path:
    (found,) = dist.glob(f"*_{machine}.whl")
    return found


@pytest.mark.slow
@pytest.mark.needs("git", "cc", "c++")
def test_every_archive_is_there(dist, checkout, model):
    names = {path.name.removeprefix(f"mcuformer-{VERSION}") for path in dist.iterdir()}
    wheels = {name for name in names if name.endswith(".whl")}
    assert names - wheels >= {"SHA256SUMS", ".tar.gz", "-model.tflite", "-c.zip", "-tflm.zip", "-arduino.zip"}
    assert len(names - wheels) == 3 + len(TARGETS)
    assert all(re.fullmatch(r"-py3-none-manylinux[\w.]*\.whl", name) for name in wheels)
    sums = dict(reversed(line.split("  ")) for line in (dist / "SHA256SUMS").read_text().splitlines())
    summed = [path for path in dist.iterdir() if path.name != "SHA256SUMS"]
    assert sums == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in summed}
    for path in dist.glob("*.zip"):
        assert len({name.split("/")[0] for name in zipfile.ZipFile(path).namelist()}) == 1, path
    again = run_release(checkout, model)  # onto what is there
    assert again.returncode == 1 and re.fullmatch(r"error: .*dist: not an empty folder; .*\n", again.stderr)


@pytest.mark.slow
@pytest.mark.needs("git", "cc", "c++")
def test_the_source_archive_holds_what_builds_it_and_nothing_built(dist):
    with tarfile.open(dist / f"mcuformer-{VERSION}.tar.gz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"setup.py", "tflm_kernels/sources.mk", "mcuformer/native.py", "arduino/library.properties"} <= names
    assert not [name for name in names if name.endswith((".so", ".o", ".pyc"))]
    sources = {name for name in project_files() if name.startswith("tflm_kernels/") and not Path(name).name[0] == "."}
    assert sources <= names


@pytest.mark.slow
@pytest.mark.needs("git", "cc", "c++")
def test_another_checkout_gives_the_same_bytes(dist, checkout, tmp_path):
    """Elsewhere, of files with other times."""
    git(tmp_path, "clone", "--quiet", checkout.as_uri(), "elsewhere")
    env = release.build_environment(tmp_path / "elsewhere") | FAST
    (tmp_path / "out").mkdir()
    sdist = release.build_sdist(tmp_path / "elsewhere", tmp_path / "out", env)
    wheel = release.build_wheel(sdist, tmp_path / "out", env)
    for path in (sdist, wheel):
        assert path.read_bytes() == (dist / path.name).read_bytes(), path.name


@pytest.fixture(scope="module")
def installed(dist, tmp_path_factory):
    """The wheel in a new virtual environment, in which nothing else is on the path; runs a program of it. What it
    requires is that of this environment: torch alone is a download of minutes."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv")
    pip = [sys.executable, "-m", "pip", "--python", folder / "venv" / "bin" / "python", "install", "--quiet"]
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([*pip, "--no-index", "--no-deps", wheel_of(dist, platform.machine())], env=outside, check=True)
    (site,) = folder.glob("venv/lib/*/site-packages")
    env = {"PATH": str(folder / "venv" / "bin"), "HOME": str(folder), "OMP_NUM_THREADS": "1"}

    def run(*command: str | Path) -> str:
        done = subprocess.run(
            [folder / "venv" / "bin" / command[0], *command[1:]], cwd=folder, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    (site / "requirements.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    assert Path(run("python", "-c", "import mcuformer; print(mcuformer.__file__)").strip()).is_relative_to(site)
    return run


@pytest.mark.slow
@pytest.mark.needs("git", "cc", "c++")
def test_an_installed_wheel_needs_no_compiler(installed, model):
    assert installed("python", "-c", "import shutil; print(*map(shutil.which, ('cc', 'gcc', 'clang')))").split() == (
        ["None"] * 3
    )
    engines = ["c", "tflm"] if kernel_library.has_ops() else ["c"]
    for engine in engines:
        printed = installed("mcuformer", "run", str(model), "--limit", "20", "--reference", "--engine", engine)
        assert "every logit equals the integer reference" in printed
    printed = installed("python", ROOT / "tools" / "run_golden.py", ROOT / "tests" / "golden" / "0.1.0").splitlines()
    assert "site-packages" in printed[0] and len(printed) == 2 + 14 * len(engines)
    assert all(re.fullmatch(rf"\w+, ({'|'.join(engines)}): exact", line) for line in printed[2:])
    printed = installed("mcuformer", "export", str(model), "--to", "c", "-o", "exported")
    assert "wrote exported" in printed


@pytest.mark.slow
@pytest.mark.needs("git", "cc", "c++")
@needs("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++", "qemu-aarch64-static")
def test_the_wheel_for_aarch64_in_qemu(dist, tmp_path, expected):  # noqa: F811
    """Its library: this machine has no Python for aarch64."""
    library = zipfile.ZipFile(wheel_of(dist, "aarch64")).extract("mcuformer/libmcuformer_host.so", tmp_path)
    run = ["qemu-aarch64-static", "-L", "/usr/aarch64-linux-gnu"]
    assert driven([*run, driver(tmp_path, "aarch64-linux-gnu-gcc", "-ldl"), library]) == expected
