# SPDX-License-Identifier: Apache-2.0
"""One list of Debian's packages: what the code asks for, what CI installs, what the documents name."""

import re
import subprocess
from pathlib import Path

import pytest
import test_platforms

from mcuformer.simulator import firmware

ROOT = Path(__file__).resolve().parents[2]
LINES = (ROOT / "debian-packages.txt").read_text().splitlines()
LISTED = [line for line in LINES if not line.startswith("#")]
OPTIONAL = [line.removeprefix("# optional: ") for line in LINES if line.startswith("# optional: ")]


def test_the_list_is_what_the_code_asks_for():
    assert set(firmware.PACKAGES.values()) <= set(LISTED)


def test_optional_packages_are_those_that_skipped_tests_name():
    assert set(test_platforms.PACKAGES.values()) <= set(OPTIONAL)
    assert {package for found in firmware.OTHER_PACKAGES.values() for package in found.values()} <= set(OPTIONAL)
    assert "debootstrap" in OPTIONAL  # tests/project/test_clean_root.py
    assert "flatbuffers-compiler" in OPTIONAL  # tools/generate_tflite_schema.py
    assert "espeak-ng" in OPTIONAL  # tools/synthesise_words.py
    assert {"gcc-xtensa-lx106", "picolibc-xtensa-lx106-elf"} <= set(OPTIONAL)  # tests/arduino/test_arduino_library.py
    assert {"gcc-riscv64-unknown-elf", "picolibc-riscv64-unknown-elf"} <= set(OPTIONAL)  # tests/export/test_esp_idf.py
    assert "libsimde-dev" in OPTIONAL  # tests/core/test_versions.py
    assert not set(OPTIONAL) & set(LISTED)
    assert all(re.fullmatch(r"[a-z0-9+.-]+", package) for package in LISTED + OPTIONAL)


def test_ci_installs_the_list_and_names_no_package_itself():
    text = (ROOT / ".ci" / "run").read_text()
    assert "debian-packages.txt" in text
    assert not re.search(r"arm-none-eabi|qemu-system", text)


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_documents_name_every_package_that_simulation_needs(document):
    text = (ROOT / document).read_text()
    assert all(package in text for package in firmware.PACKAGES.values())


@pytest.mark.parametrize("piece", firmware.PACKAGES)
def test_a_missing_piece_is_named_with_its_package(piece, monkeypatch):
    monkeypatch.setattr(firmware, "_missing", lambda path: [piece])
    line = firmware.missing_tools()
    assert firmware.PACKAGES[piece] in line and "\n" not in line
    others = set(firmware.PACKAGES.values()) - {firmware.PACKAGES[piece]}
    assert not any(re.search(rf"(^| |\(){re.escape(other)}($| |\))", line) for other in others)


def test_headers_are_looked_for_by_compiling(monkeypatch):
    """Where the compiler is there and finds no C++ header, that is the piece which is missing."""
    monkeypatch.setattr(firmware.shutil, "which", lambda tool: f"/usr/bin/{tool}")
    found = subprocess.CompletedProcess([], 0, "/usr/lib/libc.a\n", "")
    monkeypatch.setattr(firmware, "_run_tool", lambda command: found)
    monkeypatch.setattr(firmware, "_preprocesses", lambda language, header: language == "c")
    assert firmware._missing.__wrapped__("") == ["C++ headers"]
