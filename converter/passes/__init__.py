# SPDX-License-Identifier: Apache-2.0
"""Passes: a graph -> a graph with the same logits. One module per pass."""
