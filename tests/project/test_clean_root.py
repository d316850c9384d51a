# SPDX-License-Identifier: Apache-2.0
"""The README's install lines, and nothing else, in a Debian that has nothing: exports and firmware work there.

debootstrap makes the root; the lines of the README's section "Install" are run in it as they are printed; then the
tests of exports and of simulated firmware. Of this machine the root gets what is no part of an install: apt's sources,
pip's configuration with the local folders it names, proxies and certificates. Some 5 to 10 minutes, 4 GB.

    make test-slow PYTEST_ARGS="tests/project/test_clean_root.py -s"     as root
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RELEASE = "bookworm"  # Debian 12
HOME = "/root/mcuformer"  # where the project lies in the new root
TESTS = "tests/export tests/firmware tests/arduino tests/test_cli_export.py"
# A test that was skipped for want of what the README promises; cmake and arduino-cli it does not.
LEFT_OUT = r"^SKIPPED.*(?:arm-none-eabi|qemu-system|: (?:cc|c\+\+|g\+\+|make) is not installed).*$"
# One image of each class of the golden model, for the sketch's test images.
DATA = (
    "import numpy as np; images = np.load('tests/golden/0.1.0/values.npz')['patch.images'][[0, 1, 2, 3, 0]]; "
    "np.savez('/tmp/data.npz', x_train=images, y_train=range(5), x_test=images, y_test=range(5))"
)
KEPT = re.compile(r"PIP_.*|(https?|no|ftp)_proxy", re.IGNORECASE)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs("debootstrap", "unshare", "git"),
    pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="debootstrap and chroot need root"),
]


def install_lines(readme: str) -> list[str]:
    """The commands of the section "Install", without sudo, which root does not need; up to the first use."""
    section = re.search(r"^## Install\n(.*?)^## ", readme, flags=re.DOTALL | re.MULTILINE)
    assert section, "README.md has no section Install"
    blocks = re.findall(r"^```\w*\n(.*?)^```", section[1], flags=re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    lines = [line.removeprefix("$ ").removeprefix("sudo ") for line in lines if line.strip()]
    return [line for line in lines if not line.startswith(("make", "#"))]


def pip_settings() -> tuple[dict[str, str], set[Path]]:
    """pip's variables of this machine, and the local files and folders that they and its configuration name."""
    pip = [sys.executable, "-m", "pip", "config"]
    debug = subprocess.run([*pip, "debug"], capture_output=True, text=True).stdout
    listed = subprocess.run([*pip, "list"], capture_output=True, text=True).stdout
    files = {Path(path) for path in re.findall(r"^\s*(/.*), exists: True", debug, flags=re.MULTILINE)}
    files -= {path for path in files if Path(sys.prefix) in path.parents}
    named = {Path(path) for path in re.findall(r"(?:file://)?(?<![:\w/])(/[^\s'\",]+)", listed.replace("file://", ""))}
    environment = {name: value for name, value in os.environ.items() if KEPT.fullmatch(name)}
    # A local index links to files beside its folder "simple".
    named = {path.parent if path.name == "simple" else path for path in named}
    return environment, {path for path in files | named if path.exists()}


def mirror() -> str:
    """Where this machine takes Debian from."""
    texts = [p.read_text() for p in sorted(Path("/etc/apt").glob("sources.list*/*.sources"))]
    texts += [p.read_text() for p in (Path("/etc/apt/sources.list"),) if p.is_file()]
    for text in texts:
        if found := re.search(r"^(?:URIs:|deb(?: \[.*?\])?) *(\S+/debian/?)(?:\s|$)", text, flags=re.MULTILINE):
            return found[1]
    return "http://deb.debian.org/debian"


class CleanRoot:
    """A root folder with Debian's smallest system. Every command runs in mount points of its own, which end with it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
        made = subprocess.run(
            ["debootstrap", "--variant=minbase", RELEASE, folder, mirror()], capture_output=True, text=True
        )
        assert made.returncode == 0, made.stdout[-2000:] + made.stderr
        for name in ("resolv.conf", "hosts", "apt/sources.list", "apt/sources.list.d", "apt/apt.conf.d"):
            self.copy(Path("/etc") / name)
        environment, paths = pip_settings()
        self.environment |= environment
        self.mounts = [path for path in paths if path.is_dir()]
        self.files = [path for path in paths if path.is_file()]
        (folder / "etc/dpkg/dpkg.cfg.d/quick").write_text("force-unsafe-io\n")

    def copy(self, path: Path) -> None:
        target = self.folder / path.relative_to("/")
        if path.is_dir():
            shutil.copytree(path, target, dirs_exist_ok=True)
        elif path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)

    def run(self, line: str, where: str = "/") -> str:
        """Runs a line of a shell; its output. Fails the test where it fails."""
        for path in self.files:  # again each time: a package may have put its own certificates there
            self.copy(path)
        root = shlex.quote(str(self.folder))
        mounts = [f"mount -t proc proc {root}/proc", f"mount --rbind /dev {root}/dev"]
        for path in self.mounts:
            target = shlex.quote(str(self.folder / path.relative_to("/")))
            mounts.append(f"mkdir -p {target} && mount --bind {shlex.quote(str(path))} {target}")
        inside = f"exec chroot {root} /bin/bash -ec {shlex.quote(f'cd {where} && {line}')}"
        start = time.monotonic()
        done = subprocess.run(
            ["unshare", "--mount", "/bin/sh", "-ec", "\n".join([*mounts, inside])],
            env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        print(f"$ {line}    # {time.monotonic() - start:.0f} s", flush=True)
        assert done.returncode == 0, f"{line}\n{done.stdout[-6000:]}"
        return done.stdout


def project_files() -> list[str]:
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [name for name in names if name and os.path.lexists(ROOT / name)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("debian") / "root"
    try:
        made = CleanRoot(folder)
        for name in project_files():
            target = folder / HOME.lstrip("/") / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target, follow_symlinks=False)
        made.run("apt-get update -qq")
        yield made
    finally:
        subprocess.run(["rm", "-rf", "--one-file-system", folder], check=False)


def test_the_readmes_lines_are_enough(root):
    assert not (root.folder / "usr/bin/python3").exists() and not (root.folder / "usr/bin/gcc").exists()
    lines = install_lines((ROOT / "README.md").read_text())
    assert any(line.startswith("apt-get install") for line in lines) and any("venv" in line for line in lines)
    for line in lines:
        if line.startswith("apt-get"):
            line = f"DEBIAN_FRONTEND=noninteractive {line.replace('install', 'install -qq', 1)}"
        elif "PIP_FIND_LINKS" in root.environment:  # this machine has its own place for the wheel
            line = re.sub(r" --(extra-)?index-url \S+", "", line)
        root.run(line, HOME)
    printed = root.run(f"make test PYTEST_ARGS='-rs {TESTS}'", HOME)
    print(printed[printed.rindex("short test summary") :] if "short test summary" in printed else printed[-400:])
    assert re.search(r"\d+ passed", printed) and not re.search(r"\d+ (failed|error)", printed)
    left_out = re.findall(LEFT_OUT, printed, flags=re.MULTILINE)
    assert not left_out, "for want of what the README's lines do not install:\n" + "\n".join(left_out)


def test_a_model_is_exported_every_way(root):
    """The command that ended with `cstddef: No such file or directory` where the C++ headers were missing."""
    model = "tests/golden/0.1.0/packed.tflite"
    root.run(f'.venv/bin/python -c "{DATA}"', HOME)
    for kind, more in (("c", ""), ("tflm", ""), ("arduino", " --data /tmp/data.npz")):
        root.run(f".venv/bin/mcuformer export {model} --to {kind} -o /tmp/{kind}{more}", HOME)
    printed = root.run(f".venv/bin/mcuformer run {model} --data /tmp/data.npz --board nano33ble", HOME)
    print(printed)
    assert "instructions" in printed
