# SPDX-License-Identifier: Apache-2.0
"""What tests on simulated microcontrollers share; the fixture `shared` is in conftest.py."""

import dataclasses
import os

import pytest

from mcuformer.cores import CORES, KB, Machine
from mcuformer.simulator import firmware

ALL = os.environ.get("MCUFORMER_TEST_ARM") == "all"  # `make test-arm`

needs_tools = pytest.mark.skipif(firmware.missing_tools() is not None, reason=str(firmware.missing_tools()))
LARGE_BOARD = {"pairs": "stm32h743", "rows": "corstone300"}  # by a core's packing: every test's network fits them
# Their cores have kernels or compiler flags of their own, and a model of their instructions; they are tested always.
MAIN = ("mps2-an386", "mps2-an500", "mps3-an547")


def _machines(names):
    machines = [firmware.MACHINES[name] for name in names]
    missing = {machine.name: firmware.missing_tools(machine.core) for machine in machines}
    skips = {name: [pytest.mark.skipif(line is not None, reason=str(line))] for name, line in missing.items()}
    values = [pytest.param(machine, marks=skips[machine.name], id=machine.name) for machine in machines]
    return pytest.mark.parametrize("machine", values)


# A Cortex-M0 with 16 KB of RAM, without the timer that counts instructions.
MICROBIT = dataclasses.replace(
    CORES["m0plus"], machine=Machine("microbit", 16 * KB, 256 * KB, 16 * KB, 256 * KB)
).machine
all_machines = _machines(firmware.MACHINES)
every_machine = all_machines if ALL else _machines(MAIN)
scalar_machines = _machines(("mps2-an385", "virt-rv32imc"))  # kernels of their own, whose cores are like many others
other_machines = _machines(name for name in firmware.MACHINES if name not in MAIN)
