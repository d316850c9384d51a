# SPDX-License-Identifier: Apache-2.0
"""The warnings that no kernel and no export gives. Each is an error; nothing is compiled but checked."""

C_WARNINGS = (
    "-Wall", "-Wextra", "-Wconversion", "-Wsign-conversion", "-Wdouble-promotion", "-Wshadow", "-Werror", "-pedantic",
    "-fsyntax-only",
)  # fmt: skip
CPP_WARNINGS = (*C_WARNINGS, "-Wold-style-cast")
