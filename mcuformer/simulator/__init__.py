# SPDX-License-Identifier: Apache-2.0
"""Models as firmware on simulated microcontrollers: programs for QEMU, and how large an Arduino build is."""
