# SPDX-License-Identifier: Apache-2.0
"""Where everything lies in the arena, and how large the arena is."""
