#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What CMake puts in front of the compiler: tests of build files need no fast code.
exec "$@" -O0
