# SPDX-License-Identifier: Apache-2.0
"""Kept for programs written for version 0.1.0; use mcuformer.converter.estimate.instructions."""

from mcuformer.converter.estimate.instructions import instructions as instructions
