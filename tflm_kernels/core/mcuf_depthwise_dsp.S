/* SPDX-License-Identifier: Apache-2.0
 *
 * Four pixels of a 3x3 depthwise convolution for Cortex-M with the DSP extension; mcuf_depthwise_rows_dsp.c says what
 * they are. Sums of two channels of each pixel are in r4 to r11, lr is the argument, r12 the first of four channels. */
#include "mcuf_target.h"

#if MCUF_DSP
    .syntax unified
    .thumb
    .text

/* Four bytes at `pointer` of the argument: the first and third as halfwords, or with `turn` the second and fourth. */
    .macro take register, pointer, turn:vararg
    ldr \register, [lr, #\pointer]
    ldr \register, [\register, r12]
    sxtb16 \register, \register \turn
    .endm

/* The products of x and a tap, for pixel 0 to 3. */
    .macro products pixel, weights
    .if \pixel == 0
    smlabb r4, r0, \weights, r4
    smlatt r5, r0, \weights, r5
    .elseif \pixel == 1
    smlabb r6, r0, \weights, r6
    smlatt r7, r0, \weights, r7
    .elseif \pixel == 2
    smlabb r8, r0, \weights, r8
    smlatt r9, r0, \weights, r9
    .else
    smlabb r10, r0, \weights, r10
    smlatt r11, r0, \weights, r11
    .endif
    .endm

/* A row of taps: of six pixels, four sums of three. */
    .macro row y, turn:vararg
    take r1, (72 + 12 * \y), \turn
    take r2, (76 + 12 * \y), \turn
    take r3, (80 + 12 * \y), \turn
    take r0, (24 * \y), \turn
    products 0, r1
    take r0, (24 * \y + 4), \turn
    products 0, r2
    products 1, r1
    take r0, (24 * \y + 8), \turn
    products 0, r3
    products 1, r2
    products 2, r1
    take r0, (24 * \y + 12), \turn
    products 1, r3
    products 2, r2
    products 3, r1
    take r0, (24 * \y + 16), \turn
    products 2, r3
    products 3, r2
    take r0, (24 * \y + 20), \turn
    products 3, r3
    .endm

/* Two sums to outputs, by the multipliers in r1 and r2, with the zero point in r3. */
    .macro requantise low, high
    smmlar \low, \low, r1, r3
    smmlar \high, \high, r2, r3
    ssat \low, #8, \low
    ssat \high, #8, \high
    .endm

/* Outputs of two pixels raised to r0, and stored from byte `at` of r2 on. */
    .macro store first, second, at
    pkhbt \first, \first, \second, lsl #16
    ssub16 r1, \first, r0
    sel \first, \first, r0
    strh \first, [r2, #\at]
    lsrs \first, \first, #16
    strh \first, [r2, #\at + 4]
    .endm

/* Channels r12 and r12 + 2, or with odd = 1 the two behind them. */
    .macro channels odd, turn:vararg
    ldr r0, [lr, #108]               /* bias */
    add r0, r0, r12, lsl #2
    ldr r4, [r0, #4 * \odd]
    ldr r5, [r0, #4 * \odd + 8]
    mov r6, r4
    mov r7, r5
    mov r8, r4
    mov r9, r5
    mov r10, r4
    mov r11, r5
    row 0, \turn
    row 1, \turn
    row 2, \turn
    ldrd r0, r3, [lr, #112]          /* multipliers, zero point */
    add r0, r0, r12, lsl #2
    ldr r1, [r0, #4 * \odd]
    ldr r2, [r0, #4 * \odd + 8]
    requantise r4, r5
    requantise r6, r7
    requantise r8, r9
    requantise r10, r11
    ldrd r0, r2, [lr, #120]          /* the zero point twice, where outputs go */
    store r4, r6, (2 * \odd)
    store r8, r10, (2 * \odd + 8)
    store r5, r7, (2 * \odd + 16)
    store r9, r11, (2 * \odd + 24)
    .endm

    .global mcuf_depthwise4_dsp
    .type mcuf_depthwise4_dsp, %function
    .p2align 2
mcuf_depthwise4_dsp:
    push {r4-r11, lr}
    mov lr, r0
    movs r12, #0
1:  channels 0
    channels 1, , ror #8
    adds r2, #32
    str r2, [lr, #124]
    add r12, r12, #4
    ldr r0, [lr, #128]               /* channels */
    cmp r12, r0
    bne 1b
    pop {r4-r11, pc}
    .size mcuf_depthwise4_dsp, . - mcuf_depthwise4_dsp
#endif
