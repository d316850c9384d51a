# SPDX-License-Identifier: Apache-2.0
"""What the tests of the kinds of export share: three small models, and exports of them."""

import dataclasses
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from conftest import TINY, lively_subnet, structured_images

from mcuformer import convert
from mcuformer.converter.export.registry import export
from mcuformer.simulator import firmware
from mcuformer.simulator.firmware import Machine
from mcuformer.sound import LogMel

STUBS = Path(__file__).parent / "stubs"
STRIPS = dataclasses.replace(TINY, image_size=(12, 20), patch_size=(3, 5), num_classes=3)
FRONT_END = LogMel(hop=160, frames=32, mels=20)
SOUND = dataclasses.replace(TINY, image_size=(32, 20), patch_size=(2, 20), depth=1, num_classes=7)


@dataclasses.dataclass(frozen=True)
class Exports:
    """both: alpha and beta in one folder; other: gamma alone. Three models of one program."""

    both: Path
    other: Path


class Kinds:
    """Exports by kind, each made once; values: how many each model has, by name; models: their files."""

    values: ClassVar = {"alpha": 5, "beta": 3, "gamma": 7}

    def __init__(self, folder: Path, models: list[Path]) -> None:
        self.folder, self.models = folder, models

    def __call__(self, kind: str) -> Exports:
        found = Exports(self.folder / kind / "both", self.folder / kind / "other")
        if not found.both.exists():
            export(self.models[:2], kind, found.both)
            export(self.models[2], kind, found.other, name="gamma")
        return found

    def check(self, text: str, *names: str) -> None:
        """Fails unless a program printed that every value of these models, default all, equals the converter's."""
        lines = [re.sub(r", \d+ us$", "", line) for line in text.split("\n") if " us" in line]
        values = {name: self.values[name] for name in names or self.values}
        assert lines == [f"{name}: {count} of {count} values equal" for name, count in values.items()]


def three_models(folder: Path, tiny_net, tiny_images) -> list[Path]:
    """Files of models that take a whole image, a rectangle in strips, and sound."""
    models = [folder / f"{name}.tflite" for name in Kinds.values]
    convert(tiny_net, tiny_images, class_names=list("abcde")).save(models[0])
    images = structured_images(STRIPS, 16, seed=2)
    convert(lively_subnet(STRIPS, seed=4), images, class_names=list("xyz"), strips=True).save(models[1])
    images = structured_images(SOUND, 16, seed=3)
    convert(lively_subnet(SOUND, seed=5), images, class_names=list("abcdefg"), front_end=FRONT_END).save(models[2])
    return models


def run(*command, **options) -> str:
    """What a command prints; fails with its errors if it does."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def cmake_build(source: Path, build: Path, *definitions: str, **environment: str) -> None:
    """Configures and builds a project for the host."""
    env = {**os.environ, "CMAKE_C_COMPILER_LAUNCHER": str(STUBS / "unoptimised.sh"), **environment}
    run("cmake", "-S", source, "-B", build, *(f"-D{definition}" for definition in definitions), env=env)
    run("cmake", "--build", build, "-j2", env=env)


def c_sources(folder: Path) -> list[Path]:
    """The library's sources: without the example's."""
    return sorted(path for part in ("mcuformer", "models") for path in (folder / part).rglob("*.[cS]"))


def include_folders(folder: Path) -> list[Path]:
    """What to include for everything in an export."""
    return [folder / "mcuformer", folder / "mcuformer/core", *sorted((folder / "models").iterdir())]


def includes(folder: Path) -> list[str]:
    return [f"-I{path}" for path in include_folders(folder)]


def check_on(machine: Machine, sources: Sequence[Path], include: Sequence[Path], folder: Path) -> None:
    """Runs the self-tests of all models in QEMU; fails if a value differs. include: folders."""
    names = Kinds.values
    headers = "".join(f'#include "{name}_self_test.h"\n' for name in names)
    calls = "".join(f'  board_print_number({name}_self_test());\n  board_print("\\n");\n' for name in names)
    main = folder / "main.c"
    main.write_text(f'#include "board.h"\n{headers}int main(void) {{\n{calls}  return 0;\n}}\n')
    program = firmware.build([main, *sources], machine, folder / "build", include=include)
    assert list(map(int, firmware.run(program, folder).text.split())) == list(names.values())
