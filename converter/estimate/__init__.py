# SPDX-License-Identifier: Apache-2.0
"""What a network costs, from its dimensions alone: arena, bytes of model, multiply-accumulates, instructions."""
