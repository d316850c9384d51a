/* SPDX-License-Identifier: Apache-2.0
 *
 * Where the data of an exported model lie. Each macro may be given to the compiler, for all models:
 *
 *   -DMCUF_ARENA_SECTION='__attribute__((section(".dtcm")))'   the static arenas; default: with other variables
 *   -DMCUF_CONST_SECTION='__attribute__((section(".qspi")))'   weights and tables; default: with the program
 *   -DMCUF_ALIGNED=...                                         how this compiler aligns an array to 16 bytes
 *
 * NAME_ARENA and NAME_CONSTANT, NAME in capitals, say it for one model. The linker script places the sections. */
#ifndef MCUF_PLACE_H_
#define MCUF_PLACE_H_

#ifndef MCUF_ARENA_SECTION
#define MCUF_ARENA_SECTION
#endif

/* The alignment that the fast kernels like. */
#ifndef MCUF_ALIGNED
#if defined(__GNUC__)
#define MCUF_ALIGNED __attribute__((aligned(16)))
#elif defined(__cplusplus) || (defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L)
#ifdef __cplusplus
#define MCUF_ALIGNED alignas(16)
#else
#define MCUF_ALIGNED _Alignas(16)
#endif
#else
#error "say how this compiler aligns an array to 16 bytes: -DMCUF_ALIGNED=..."
#endif
#endif

#endif /* MCUF_PLACE_H_ */
