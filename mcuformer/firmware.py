# SPDX-License-Identifier: Apache-2.0
"""Kept for programs written for version 0.1.0; use mcuformer.simulator.firmware."""

from mcuformer.simulator.firmware import *  # noqa: F403
