# SPDX-License-Identifier: Apache-2.0
"""Exports: a model as a folder of sources for firmware. registry.py lists the kinds; each has a module."""
