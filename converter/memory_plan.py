# SPDX-License-Identifier: Apache-2.0
"""Kept for programs written for version 0.1.0; use mcuformer.converter.memory.plan."""

from mcuformer.converter.memory.plan import *  # noqa: F403
