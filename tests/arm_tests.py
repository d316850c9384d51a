# SPDX-License-Identifier: Apache-2.0
"""What tests on simulated Cortex-M share; the fixture `shared` is in conftest.py."""

import os

import pytest

from mcuformer.simulator import firmware

ALL = os.environ.get("MCUFORMER_TEST_ARM") == "all"  # `make test-arm`

needs_tools = pytest.mark.skipif(firmware.missing_tools() is not None, reason=str(firmware.missing_tools()))
LARGE_BOARD = {"pairs": "stm32h743", "rows": "corstone300"}  # by a core's packing: every test's network fits them
every_machine = pytest.mark.parametrize("machine", firmware.MACHINES.values(), ids=firmware.MACHINES)
