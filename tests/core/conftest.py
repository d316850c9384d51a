# SPDX-License-Identifier: Apache-2.0
"""Every test of the kernels runs with every version of them that this processor runs: kernel_library.kernels()."""

from __future__ import annotations

import os

import pytest

from mcuformer import kernel_library


def versions() -> list[str]:
    """Those to test; only one if MCUFORMER_HOST_KERNELS names it."""
    if wanted := os.environ.get(kernel_library.KERNELS_VARIABLE):
        return [wanted]
    return [name for name, runs in kernel_library.kernels().items() if runs]


@pytest.fixture(autouse=True, params=versions())
def version(request):
    """The version of the kernels that the test runs with."""
    before = kernel_library.kernels_in_use()
    kernel_library.use_kernels(request.param)
    yield request.param
    kernel_library.use_kernels(before)
