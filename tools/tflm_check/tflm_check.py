# SPDX-License-Identifier: Apache-2.0
"""Compiles exported models against a real TFLM tree, links TFLM's library and compares every logit.

    make tflm-check TFLM_DIR=../tflite-micro TFLM_LIB=../tflite-micro/gen/.../libtensorflow-microlite.a

TFLM_LIB is what TFLM's own Makefile builds for this machine (`make -f tensorflow/lite/micro/tools/make/Makefile
microlite`). TFLM_FLAGS: more compiler flags, such as those it was built with. MODEL: your own .tflite; default: a small
network is made and run in every form: streamed, overwrite, in strips, with staged weights."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from mcuformer import Interpreter, SubnetConfig, convert
from mcuformer.converter.export import tflm
from mcuformer.converter.export.folder import write_folder
from mcuformer.converter.export.registry import Source
from mcuformer.converter.graph import to_int8
from mcuformer.errors import McuformerError, ToolchainError
from mcuformer.nas import build_subnet

IMAGES = 20
RUNNER = Path(__file__).with_name("run_model.cc")
# Where TFLM's Makefile puts its downloads, and where these libraries are without it.
INCLUDES = ("", "tensorflow/lite/micro/tools/make/downloads/flatbuffers/include",
            "tensorflow/lite/micro/tools/make/downloads/gemmlowp", "tensorflow/lite/micro/tools/make/downloads/ruy",
            "third_party/flatbuffers/include", "third_party/gemmlowp", "third_party/ruy")  # fmt: skip
FLAGS = ["-O2", "-fno-exceptions", "-fno-rtti", "-DTF_LITE_STATIC_MEMORY"]
WARNINGS = ["-Wall", "-Wextra", "-Werror"]
CONFIG = SubnetConfig(image_size=24, in_channels=3, patch_size=6, embed_dim=30, depth=2, num_heads=2, num_classes=7)
# The forms of a model: name -> options of convert. The tests of the exports use the same.
VARIANTS = {
    "streamed": {"schedule": "streamed"},
    "overwrite": {"schedule": "overwrite"},
    "strips": {"strips": True},
    "staged": {"weights": "staged"},
    "staged strips": {"strips": True, "weights": "staged"},
}


def made(folder: Path) -> dict[str, Path]:
    """A small random network in every form: name -> .tflite."""
    torch.manual_seed(0)
    net = build_subnet(CONFIG, 0)
    with torch.no_grad():
        for value in net.parameters():
            value.add_(torch.randn(value.shape) * value[0].numel() ** -0.5)
    net = net.eval()
    models = {}
    for name, options in VARIANTS.items():
        models[name] = folder / f"{name.replace(' ', '_')}.tflite"
        convert(net, images_of(24, 3), **options).save(models[name])
    return models


def images_of(size: int, channels: int) -> np.ndarray:
    """uint8 images of soft random patterns."""
    coarse = np.random.default_rng(1).uniform(0, 255, (IMAGES, 4, 4, channels))
    index = np.arange(size) * 4 // size
    return coarse[:, index][:, :, index].astype(np.uint8)


class Compiler:
    """Compiles for this machine against the headers of a TFLM tree."""

    def __init__(self, tflm_dir: Path, flags: str, objects: Path):
        include = [f"-isystem{tflm_dir / path}" for path in INCLUDES if (tflm_dir / path).is_dir()]
        self._cxx = ["c++", "-std=c++17", *FLAGS, *WARNINGS, *include, *shlex.split(flags)]
        self._objects = objects
        self.has_external_context = (tflm_dir / "tensorflow/lite/micro/micro_context.h").is_file()

    def compile(self, sources: list[Path], *flags: str) -> list[Path]:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(lambda source: self._compile(source, flags), sources))

    def _compile(self, source: Path, flags) -> Path:
        self._objects.mkdir(exist_ok=True)
        target = self._objects / f"{source.name}.o"
        plain = source.suffix in (".c", ".S")
        command = ["cc", "-std=c99", "-O2", *WARNINGS] if plain else [*self._cxx, *flags]
        call([*command, "-c", source, "-o", target], source.name)
        return target


def sources_of(folder: Path) -> list[Path]:
    """The sources in an export's sources.mk."""
    words = (folder / "sources.mk").read_text().split()
    here = "$(model_DIR)/"
    return [folder / word.removeprefix(here) for word in words if word.startswith(here)]


def call(command: list, subject: str) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        raise ToolchainError(f"{subject} does not build:\n{done.stderr[:4000]}")


def check(name: str, path: Path, folder: Path, compiler: Compiler, library: Path, kernels: list[Path]) -> bool:
    """Prints a line for a model with TFLM's own planner and one with ours; True if all logits are equal.

    kernels: their objects, compiled if there are none yet."""
    interpreter = Interpreter(path)
    graph = interpreter.graph
    export = tflm.tflm_export([Source(path.read_bytes(), graph, tuple(interpreter.class_names))])
    (model,), own_folder = export.models, folder / "models" / "model"
    write_folder(folder, export.files)
    if (model.strip_rows or model.weights) and not compiler.has_external_context:
        print(f"{name:16} not run: this TFLM is older than 2022-01, its kernels reach no external context")
        return True
    if not kernels:
        kernels += compiler.compile([source for source in sources_of(folder) if source.parent != own_folder])
    kind = [f"-DMODEL_STRIPS={int(model.strip_rows > 0)}", f"-DMODEL_STAGED={int(len(model.weights) > 0)}"]
    own = compiler.compile([own_folder / "model.cc", RUNNER], *kind, f"-I{folder}", f"-I{own_folder}")
    program = folder / "run_model"
    call(["c++", *own, *kernels, library, "-o", program], f"the program with {library.name}")
    _, size, _, channels = graph.tensors[graph.inputs[0]].shape
    images = to_int8(images_of(size, channels))
    want = graph.run(images).astype(np.int8).tobytes()
    good = True
    for planner, argument in (("its own planner", "plain"), ("TokenOverwritePlanner", "planner")):
        done = subprocess.run([program, argument], input=images.tobytes(), capture_output=True, cwd=folder, timeout=600)
        said = done.stderr.decode(errors="replace").strip()
        equal = done.returncode == 0 and done.stdout == want
        good &= equal
        if equal:
            result = f"{IMAGES} images, every logit equal, {said.split()[-1]} bytes of arena"
        else:
            result = f"FAILED with status {done.returncode}: {said}" if done.returncode else "FAILED: logits differ"
        print(f"{name:16} {planner:22} {result}", flush=True)
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dir", type=Path, required=True, help="a TFLM tree")
    parser.add_argument("--lib", type=Path, required=True, help="the library that was built from it")
    parser.add_argument("--flags", default="", help="more compiler flags")
    parser.add_argument("--model", type=Path, help="a .tflite of yours")
    arguments = parser.parse_args()
    for path, what in ((arguments.dir / "tensorflow/lite/c/common.h", "TFLM_DIR"), (arguments.lib, "TFLM_LIB")):
        if not path.is_file():
            raise ToolchainError(f"{what}: {path} is missing; give a TFLM tree and the library built from it")
    with tempfile.TemporaryDirectory(prefix="mcuformer-") as scratch:
        folder = Path(scratch)
        models = {arguments.model.stem: arguments.model} if arguments.model else made(folder)
        compiler, kernels = Compiler(arguments.dir, arguments.flags, folder / "objects"), []
        results = [
            check(name, path, folder / f"export{i}", compiler, arguments.lib, kernels)
            for i, (name, path) in enumerate(models.items())
        ]
    return 0 if all(results) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except McuformerError as error:
        sys.exit(f"error: {error}")
