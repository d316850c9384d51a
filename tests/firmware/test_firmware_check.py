# SPDX-License-Identifier: Apache-2.0
"""CheckModel on simulated Cortex-M: it says there what it says on the host, in little code and stack."""

import pytest
from arm_tests import every_machine, needs_tools
from conftest import TINY, lively_subnet, structured_images

from mcuformer import convert, kernel_library
from mcuformer.simulator import firmware, firmware_check

MOST_CODE, MOST_STACK = 6 * 1024, 1024  # bytes
MOST_INSTRUCTIONS = 200  # a byte of a model so small that its tables are much of it
MORE_ON_M0PLUS = 20  # for code of ARMv6-M


@pytest.fixture(scope="module")
def content():
    return convert(lively_subnet(TINY, 3), structured_images(TINY, 4), schedule="streamed").content


@needs_tools
@every_machine
def test_a_whole_model_passes_and_a_damaged_one_does_not(content, machine, tmp_path):
    if machine.core.toolchain in firmware.OTHER_PACKAGES:
        pytest.skip("Debian's compiler for it has no C++ headers")
    whole = firmware_check.run_check(content, machine, tmp_path / "whole")
    assert whole.wrong is None
    most = MOST_INSTRUCTIONS + (MORE_ON_M0PLUS if machine.core.key == "m0plus" else 0)
    assert whole.instructions <= most * len(content)
    assert whole.code_bytes <= MOST_CODE and whole.stack_bytes <= MOST_STACK
    damaged = bytearray(content)
    damaged[len(content) // 2] ^= 1
    run = firmware_check.run_check(bytes(damaged), machine, tmp_path / "damaged")
    assert run.wrong == kernel_library.check_model(bytes(damaged)) == "its checksum does not match: it is damaged"
