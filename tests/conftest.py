# SPDX-License-Identifier: Apache-2.0
"""Shared by all tests: small networks, images, converted models."""

from __future__ import annotations

import dataclasses
import functools
import os
import shutil
import subprocess

import numpy as np
import pytest
import torch
from once import common_folder, objects_once

from mcuformer import SubnetConfig, convert, kernel_library, sources
from mcuformer.nas import build_subnet
from mcuformer.simulator import firmware, firmware_model

torch.set_num_threads(1)

CC = shutil.which("cc") or "cc"
C_FLAGS = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic"]

# tool -> Debian's package, for @pytest.mark.needs
PACKAGES = {
    "arm-none-eabi-g++": "gcc-arm-none-eabi",
    "c++": "g++",
    "cc": "gcc",
    "chromium": "chromium",
    "clang": "clang",
    "clang++": "clang",
    "cmake": "cmake",
    "debootstrap": "debootstrap",
    "espeak-ng": "espeak-ng",
    "g++": "g++",
    "git": "git",
    "make": "make",
    "unshare": "util-linux",
    "xtensa-lx106-elf-g++": "gcc-xtensa-lx106",
}

# The slow tests' modules that take longest, which begin first.
LONGEST = ("test_damaged_files", "test_floors", "test_add_an_op", "test_release", "test_external_flash", "test_cli")

TINY = SubnetConfig(
    image_size=16, in_channels=1, patch_size=4, embed_dim=24, depth=2, num_heads=2, head_dim=10, num_classes=5
)
# Without a head, and with rectangles of images and patches.
HEADLESS = dataclasses.replace(TINY, image_size=(12, 20), patch_size=(3, 5), num_classes=0, prefix_tokens=1)


def skip_without(*tools: str) -> None:
    """Skips the test that runs, naming the package, where one of the tools is not installed."""
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed: Debian's package {PACKAGES[tool]}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        skip_without(*mark.args)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.option.markexpr == "slow":
        order = {name: place for place, name in enumerate(LONGEST)}
        items.sort(key=lambda item: order.get(item.path.stem, len(order)))


def structured_images(config: SubnetConfig, count: int, seed: int = 0) -> np.ndarray:
    """uint8 [count, H, W, C]: a few soft blobs on a ground of random colour, with noise."""
    rng = np.random.default_rng(seed)
    height, width, channels = config.image_shape
    y, x = np.mgrid[0:height, 0:width]
    y, x = y / height, x / width
    images = np.ones((count, height, width, channels)) * rng.uniform(0.1, 0.9, (count, 1, 1, channels))
    for image in images:
        for _ in range(6):
            centre_x, centre_y, radius = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.05, 0.3)
            mask = np.exp(-((((x - centre_x) ** 2 + (y - centre_y) ** 2) / radius**2) ** 2))[..., None]
            image += mask * (rng.uniform(0, 1, channels) - image)
    images += rng.normal(0, 0.03, images.shape)
    return np.rint(255 * np.clip(images, 0, 1)).astype(np.uint8)


def lively_subnet(config: SubnetConfig, seed: int):
    """A random network whose layers all matter: weights large enough, norms and biases not at their start values."""
    net = build_subnet(config, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in net.named_parameters():
            if value.dim() < 2:
                value.add_(0.2 * torch.randn(value.shape, generator=generator))
            elif ".relative." in name:
                value.normal_(0, 0.5, generator=generator)
            elif "position" not in name and name != "prefix":
                value.normal_(0, value[0].numel() ** -0.5, generator=generator)
            else:
                value.normal_(0, 0.3, generator=generator)
        for name, value in net.named_buffers():
            if name.endswith("running_mean"):
                value.normal_(0, 0.3, generator=generator)
            elif name.endswith("running_var"):
                value.uniform_(0.5, 2.0, generator=generator)
    return net.eval()


@pytest.fixture(scope="session")
def tiny_net():
    return lively_subnet(TINY, seed=3)


@pytest.fixture(scope="session")
def tiny_images():
    return structured_images(TINY, 32, seed=1)


@pytest.fixture(scope="session")
def tiny_model(tiny_net, tiny_images):
    return convert(tiny_net, tiny_images[:16], schedule="overwrite")


@pytest.fixture(scope="session")
def kinds(tmp_path_factory, tiny_net, tiny_images):
    """Exports of three models, for the tests of the kinds of export."""
    from kind_exports import Kinds, three_models

    folder = tmp_path_factory.mktemp("exports")
    return Kinds(folder, three_models(folder, tiny_net, tiny_images))


@pytest.fixture(scope="session")
def kernel_objects(tmp_path_factory):
    from kernel_objects import KernelObjects

    return KernelObjects(firmware.compile_objects, common_folder(tmp_path_factory))


@pytest.fixture(scope="module")
def kernels_compiled_once(kernel_objects):
    """In all Arduino libraries that a module's tests compile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(firmware, "compile_objects", kernel_objects)
        yield


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """machine -> the objects that all its programs share."""

    @functools.cache
    def get(machine):
        return objects_once(
            tmp_path_factory, machine.name, lambda folder: firmware_model.kernel_objects(machine, folder)
        )

    return get


@pytest.fixture(scope="session")
def c_kernels(tmp_path_factory):
    """flags of the host's compiler -> the objects of the C kernels."""

    def compile(flags: tuple[str, ...], folder) -> list:
        include = f"-I{sources.c_kernel_folder()}"
        subprocess.run([CC, *C_FLAGS, *flags, include, "-c", *sources.c_kernel_sources()], cwd=folder, check=True)
        return sorted(folder.glob("*.o"))

    @functools.cache
    def objects(flags: tuple[str, ...]) -> list:
        return objects_once(tmp_path_factory, "c" + "".join(flags), functools.partial(compile, flags))

    return objects


def kernel_versions() -> list[str]:
    """Versions of the kernels to test; one only if MCUFORMER_HOST_KERNELS names it."""
    if wanted := os.environ.get(kernel_library.KERNELS_VARIABLE):
        return [wanted]
    return [name for name, runs in kernel_library.kernels().items() if runs]


def pytest_generate_tests(metafunc):
    """Every test of tests/core runs with every version of the kernels that this processor runs."""
    if metafunc.definition.path.parent.name == "core":
        metafunc.fixturenames.append("version")
        metafunc.parametrize("version", kernel_versions(), indirect=True)


@pytest.fixture
def version(request):
    """The version of the kernels that the test runs with."""
    before = kernel_library.kernels_in_use()
    kernel_library.use_kernels(request.param)
    yield request.param
    kernel_library.use_kernels(before)
