# SPDX-License-Identifier: Apache-2.0
"""What a network costs, from its dimensions alone: arena, model bytes, multiply-accumulates, instructions."""
