/* SPDX-License-Identifier: Apache-2.0
 *
 * Which kernels are compiled: exactly one of these is 1, depending on the compiler's macros for the core. All files are
 * compiled everywhere; those for other targets are then empty. The assembler reads this file too.
 *
 *   MCUF_MVE       Cortex-M with the vector extension (Cortex-M52, M55, M85)
 *   MCUF_DSP       Cortex-M with 16-bit dual multiply-accumulate (Cortex-M4, M7, M33, M35P)
 *   MCUF_SCALAR    32-bit microcontrollers that multiply one value at a time: Cortex-M0+ and M3, RISC-V, Xtensa
 *   MCUF_PORTABLE  everything else: C99 that compilers turn into vectors */
#ifndef MCUF_TARGET_H_
#define MCUF_TARGET_H_

#define MCUF_MVE 0
#define MCUF_DSP 0
#define MCUF_SCALAR 0
#define MCUF_PORTABLE 0

#if defined(__ARM_ARCH_PROFILE) && defined(__GNUC__) && !defined(__ARM_BIG_ENDIAN) && !defined(MCUF_FORCE_PORTABLE)
#if __ARM_ARCH_PROFILE == 'M' && defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 1)
#undef MCUF_MVE
#define MCUF_MVE 1
#elif __ARM_ARCH_PROFILE == 'M' && defined(__ARM_FEATURE_DSP) && defined(__thumb2__)
#undef MCUF_DSP
#define MCUF_DSP 1
#elif __ARM_ARCH_PROFILE == 'M'
#undef MCUF_SCALAR
#define MCUF_SCALAR 1
#endif
#endif

#if defined(__GNUC__) && !defined(MCUF_FORCE_PORTABLE) && \
    ((defined(__riscv_xlen) && __riscv_xlen == 32 && !defined(__riscv_vector)) || defined(__XTENSA__))
#undef MCUF_SCALAR
#define MCUF_SCALAR 1
#endif

/* The loops of MCUF_SCALAR that are in assembly: those for 16-bit Thumb, whose products reach eight registers, for all
 * of Thumb, for RISC-V, or none. */
#if MCUF_SCALAR && !defined(MCUF_SCALAR_IN_C)
#if defined(__thumb2__)
#define MCUF_SCALAR_THUMB2 1
#elif defined(__thumb__)
#define MCUF_SCALAR_THUMB1 1
#elif defined(__riscv_mul) && !defined(__riscv_32e)
#define MCUF_SCALAR_RISCV 1
#endif
#endif

#if !MCUF_MVE && !MCUF_DSP && !MCUF_SCALAR
#undef MCUF_PORTABLE
#define MCUF_PORTABLE 1
#endif

/* The library of the host has faster versions of some functions beside the portable ones, which then need names of
 * their own: MCUF_DISPATCH is the header that declares them. Firmware and exports never define it. */
#ifdef MCUF_DISPATCH
#define MCUF_PORTABLE_NAME(name) name##_portable
#else
#define MCUF_PORTABLE_NAME(name) name
#endif

/* Keeps a function's stack frame separate: a network has 1 KB, and inlining would add up frames that are never live
 * together. */
#if defined(__GNUC__)
#define MCUF_OWN_STACK __attribute__((noinline))
#else
#define MCUF_OWN_STACK
#endif

#endif /* MCUF_TARGET_H_ */
