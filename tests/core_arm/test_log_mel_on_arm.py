# SPDX-License-Identifier: Apache-2.0
"""The log-mel front end on simulated Cortex-M4, M7 and M55: every row equals the specification's."""

import sys
from pathlib import Path

import numpy as np
import pytest
from arm_tests import ALL, every_machine, needs_tools

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "sound"))
from signals import FRONT_ENDS, signals

from mcuformer.simulator.firmware_sound import run_front_end


@needs_tools
@every_machine
@pytest.mark.parametrize("name", FRONT_ENDS if ALL else ["98x40", "8 kHz"])
def test_rows_equal_the_specification(name, machine, tmp_path):
    front_end = FRONT_ENDS[name]
    sounds = signals(np.random.default_rng(4), front_end.window + 4 * front_end.hop)
    samples = np.concatenate(list(sounds.values()))
    run = run_front_end(front_end, samples, machine, tmp_path)
    np.testing.assert_array_equal(run.rows, front_end.rows(samples))
    assert len(np.unique(run.rows)) > 20 and run.instructions > 1000 * len(run.rows)
    assert run.stack_bytes < 512
