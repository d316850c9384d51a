# SPDX-License-Identifier: Apache-2.0
"""Kept for programs written for version 0.1.0; use mcuformer.converter.passes.strips."""

from mcuformer.converter.passes.strips import *  # noqa: F403
