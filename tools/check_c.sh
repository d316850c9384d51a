#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Style and static analysis of all C and C++:
#   tools/check_c.sh            clang-format and cppcheck; fails if one finds something
#   tools/check_c.sh --format   clang-format fixes
# A tool that is not installed is skipped, and one line says so. Both are in debian-packages.txt. Takes a few seconds.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

all_c_files() {
  find tflm_kernels firmware arduino tools tests -type f \
    \( -name '*.c' -o -name '*.cc' -o -name '*.cpp' -o -name '*.h' -o -name '*.ino' \) -print0
}

has() {
  command -v "$1" >/dev/null && return
  echo "$1 is not installed: C and C++ are not checked with it (Debian's package $1)"
  return 1
}

if [ "${1:-}" = --format ]; then
  if has clang-format; then all_c_files | xargs -0 clang-format -i; fi
  exit
fi

if has clang-format; then all_c_files | xargs -0 clang-format --dry-run -Werror; fi

if has cppcheck; then
  # The linker's symbols, which the startup code and board.c compare, are arrays of their own for cppcheck.
  cppcheck=(cppcheck --quiet --enable=warning,performance,portability --error-exitcode=1 --inline-suppr
            --suppress=comparePointers:firmware/startup_arm.c --suppress=comparePointers:firmware/startup_riscv.c
            --suppress=comparePointers:firmware/board.c --suppress=subtractPointers:firmware/board.c -Itflm_kernels)
  c_kernels=("${cppcheck[@]}" --language=c --std=c99 tflm_kernels/core tflm_kernels/sound)
  glue=("${cppcheck[@]}" --std=c++11 -DMCUF_FORCE_PORTABLE=1 tflm_kernels/*.cc tflm_kernels/kernels)
  arm=(-D__GNUC__=12 -D__ARM_ARCH_PROFILE=77 -D__thumb2__=1 -D__ARM_FEATURE_DSP=1)  # see core/mcuf_target.h
  "${c_kernels[@]}" -DMCUF_FORCE_PORTABLE=1
  "${c_kernels[@]}" "${arm[@]}"
  "${c_kernels[@]}" "${arm[@]}" -D__ARM_FEATURE_MVE=1
  "${c_kernels[@]}" -D__GNUC__=12 -D__riscv_xlen=32 -DMCUF_SCALAR_IN_C=1
  "${cppcheck[@]}" --language=c --std=c99 firmware
  "${glue[@]}" -DMCUF_HOST_PLUGIN=1 tflm_kernels/host
  "${glue[@]}" -Itests/tflm_api/c -Itests/tflm_api/shared tools
fi
