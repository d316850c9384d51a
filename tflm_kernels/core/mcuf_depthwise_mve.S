/* SPDX-License-Identifier: Apache-2.0
 *
 * Vectors of 16 channels of a pixel of a 3x3 depthwise convolution for Cortex-M with vectors (MVE);
 * mcuf_depthwise_rows_mve.c says what they are. Sums are in q0 to q3: of channels 0, 4, 8 and 12, then 1, 5, 9 and 13,
 * and so on. Products of bytes at even places are theirs of q0 and q2. */
#include "mcuf_target.h"

#if MCUF_MVE
    .syntax unified
    .thumb
    .text

/* Values and weights of a tap, in q4 and q5. */
    .macro take tap
    ldr r10, [r0, #4 * \tap]
    vldrb.8 q5, [r9]
    add r10, r10, r3
    vldrb.8 q4, [r10]
    .endm

/* Adds products in q6 and q7 to the sums. */
    .macro widen
    vmovlb.s16 q4, q6
    vmovlt.s16 q5, q6
    vadd.i32 q0, q0, q4
    vadd.i32 q2, q2, q5
    vmovlb.s16 q4, q7
    vmovlt.s16 q5, q7
    vadd.i32 q1, q1, q4
    vadd.i32 q3, q3, q5
    .endm

/* Two taps: their products add up in 16 bits. Weights of the second are read twice, since all registers are taken. */
    .macro pair tap
    take \tap
    add r9, r9, r2
    vmullb.s8 q6, q4, q5
    vmullt.s8 q7, q4, q5
    take (\tap + 1)
    vmullb.s8 q5, q4, q5
    vadd.i16 q6, q6, q5
    vldrb.8 q5, [r9]
    add r9, r9, r2
    vmullt.s8 q4, q4, q5
    vadd.i16 q7, q7, q4
    widen
    .endm

    .global mcuf_depthwise_mve
    .type mcuf_depthwise_mve, %function
    .p2align 2
mcuf_depthwise_mve:
    push {r4-r10, lr}
    vpush {d8-d15}
    ldrd r1, r2, [r0, #36]           /* weights, channels */
    ldrd r4, r5, [r0, #44]           /* bias, multipliers */
    ldrd r6, r7, [r0, #52]           /* outputs, bytes from vector to vector */
    ldrd r8, r10, [r0, #60]          /* zero point, vectors */
    movs r3, #0
    dls lr, r10
1:  vld40.32 {q0, q1, q2, q3}, [r4]
    vld41.32 {q0, q1, q2, q3}, [r4]
    vld42.32 {q0, q1, q2, q3}, [r4]
    vld43.32 {q0, q1, q2, q3}, [r4]!
    mov r9, r1
    pair 0
    pair 2
    pair 4
    pair 6
    take 8
    vmullb.s8 q6, q4, q5
    vmullt.s8 q7, q4, q5
    widen
    vld40.32 {q4, q5, q6, q7}, [r5]
    vld41.32 {q4, q5, q6, q7}, [r5]
    vld42.32 {q4, q5, q6, q7}, [r5]
    vld43.32 {q4, q5, q6, q7}, [r5]!
    vrmulh.s32 q0, q0, q4
    vrmulh.s32 q1, q1, q5
    vrmulh.s32 q2, q2, q6
    vrmulh.s32 q3, q3, q7
    vqmovnb.s32 q0, q0
    vqmovnb.s32 q1, q1
    vqmovnt.s32 q0, q2
    vqmovnt.s32 q1, q3
    vqadd.s16 q0, q0, r8
    vqadd.s16 q1, q1, r8
    vdup.8 q4, r8
    vqmovnb.s16 q0, q0
    vqmovnt.s16 q0, q1
    vmax.s8 q0, q0, q4
    vstrb.8 q0, [r6]
    add r6, r6, r7
    adds r1, #16
    adds r3, #16
    le lr, 1b
    vpop {d8-d15}
    pop {r4-r10, pc}
    .size mcuf_depthwise_mve, . - mcuf_depthwise_mve
#endif
