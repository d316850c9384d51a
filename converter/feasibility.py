# SPDX-License-Identifier: Apache-2.0
"""Kept for programs written for version 0.1.0; use mcuformer.converter.estimate.feasibility."""

from mcuformer.converter.estimate.feasibility import arena_bytes as arena_bytes
from mcuformer.converter.estimate.feasibility import board_arena_bytes as board_arena_bytes
