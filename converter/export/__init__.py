# SPDX-License-Identifier: Apache-2.0
"""Exports: a model as a folder of sources for firmware. One module a kind, c_model the first."""
