# SPDX-License-Identifier: Apache-2.0
"""The versions of the kernels for large processors: which there are, how one is chosen, the shapes of their loops."""

import os
import subprocess
import sys
from pathlib import Path

import core_calls
import numpy as np
import pytest
import random_values as rv

from mcuformer import kernel_library
from mcuformer.converter.ops import in_place_fc, int_layer_norm
from mcuformer.converter.ops.packed_weights import PAIRS, ROWS
from mcuformer.errors import ToolchainError

ROOT = Path(__file__).parents[2]
SIMDE = Path("/usr/include/simde/x86/avx512.h")
# Around tiles of tokens, panels of outputs, vectors of inputs; more tokens than are expanded at once; inputs that are
# too many for a panel.
SHAPES = [
    *((tokens, 33, 17) for tokens in range(1, 20)),
    *((9, features, 5) for features in (1, 2, 3, 4, 5, 15, 16, 17, 31, 32, 48, 63)),
    *((7, 20, out) for out in (1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 64, 65)),
    (260, 384, 3), (133, 1000, 18), (70, 1536, 33), (6, 1537, 4), (6, 3072, 2), (1, 192, 1000), (197, 192, 1),
]  # fmt: skip


@pytest.mark.parametrize("name", kernel_library.kernels())
def test_every_version_runs_here(name, version):
    if not kernel_library.kernels()[name]:
        pytest.skip(f"this processor does not run the kernels {name}: they are compiled, and no test here runs them")
    kernel_library.use_kernels(name)
    assert kernel_library.kernels_in_use() == name


@pytest.mark.parametrize("tokens, features, out", SHAPES)
@pytest.mark.parametrize("packing", [ROWS, PAIRS])
def test_fc_of_every_size(tokens, features, out, packing):
    rng = np.random.default_rng(tokens * features + out)
    for kind in range(4):
        x, weights = rng.integers(-128, 128, (tokens, features)), rng.integers(-127, 128, (out, features))
        if kind == 3:  # the largest sums
            x[:], weights[:] = -128, rng.choice([-127, 127])
        x, weights = x.astype(np.int8), weights.astype(np.int8)
        bias, multiplier = rv.requantisation(rng, out, features)
        table = rv.int8(rng, 256) if kind % 2 else None
        residual = rv.int8(rng, tokens, out) if kind >= 1 else None
        factor = None if residual is None else rng.integers(0, 32768, out).astype(np.int16)
        options, more = in_place_fc.Options(rv.zero_point(rng)), None if residual is None else residual[None]
        want = in_place_fc.reference(options, x[None], weights, bias, multiplier, table, more, factor)[0]
        for alias in (None, "input", *(["residual"] if kind else [])):
            got = core_calls.in_place_fc(
                x, weights, bias, multiplier, options.zero_point, table, residual, factor, alias, None, packing
            )
            np.testing.assert_array_equal(got, want, err_msg=f"kind {kind}, output over {alias}")


def test_layer_norm_of_the_largest_squares():
    """4,096 channels of 255 * 127, whose squares add up past 32 bits."""
    x = np.full((1, 4096), 127, np.int8)
    x[:, ::2] = -128
    gamma, beta, factor = np.full(4096, 64, np.int16), np.zeros(4096, np.int32), np.full(4096, 127, np.uint8)
    for zero_point in (-128, 127):
        options = int_layer_norm.Options(zero_point, 0)
        want = int_layer_norm.reference(options, x[None], gamma, beta, factor)[0]
        got = core_calls.int_layer_norm(x, gamma, beta, factor, zero_point, 0)
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("name, why", [("avx3", "none of that name"), ("", "none of that name")])
def test_an_unknown_version_is_refused(name, why, version):
    with pytest.raises(ToolchainError, match=why) as error:
        kernel_library.use_kernels(name)
    assert "portable" in str(error.value) and kernel_library.KERNELS_VARIABLE in str(error.value)
    assert kernel_library.kernels_in_use() == version


@pytest.mark.parametrize("name", [name for name, runs in kernel_library.kernels().items() if not runs])
def test_a_version_of_another_processor_is_refused(name):
    with pytest.raises(ToolchainError, match="this processor does not run"):
        kernel_library.use_kernels(name)


def test_the_variable_chooses(version):
    command = [sys.executable, "-c", "from mcuformer import kernel_library as k; print(k.kernels_in_use())"]
    env = os.environ | {kernel_library.KERNELS_VARIABLE: version}
    assert subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.strip() == version
    env[kernel_library.KERNELS_VARIABLE] = "avx3"
    refused = subprocess.run(command, env=env, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "ToolchainError: kernels 'avx3': the library has none of that name" in refused.stderr


@pytest.mark.skipif(
    kernel_library.kernels_in_use() == "avx512vnni" or "avx512vnni" not in kernel_library.kernels(),
    reason="the tests run this version itself, or the library has none",
)
@pytest.mark.skipif(not SIMDE.is_file(), reason=f"{SIMDE} is missing: Debian's package libsimde-dev")
@pytest.mark.slow
def test_avx512_in_emulation(tmp_path, version):
    """mcuf_fc_avx512vnni.c on a processor without AVX-512: SIMDe's headers say in C what each instruction does."""
    if version != "portable":
        pytest.skip("once is enough")
    env = {name: value for name, value in os.environ.items() if name not in ("LD_PRELOAD", "CC", "CXX")}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(tmp_path), "--build-temp"]
    flags = {"CFLAGS": "-DMCUF_EMULATED_AVX512 -O2"}
    built = subprocess.run(
        [*command, str(tmp_path / "work")], cwd=ROOT, env=env | flags, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (library,) = (tmp_path / "mcuformer").iterdir()
    env |= {"MCUFORMER_HOST_LIBRARY": str(library), kernel_library.KERNELS_VARIABLE: "avx512vnni"}
    tests = ["tests/core/test_in_place_fc.py", "tests/core/test_versions.py::test_fc_of_every_size"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=ROOT, env=env, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
