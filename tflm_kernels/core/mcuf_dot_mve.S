/* SPDX-License-Identifier: Apache-2.0
 *
 * The inner product of the kernels for Cortex-M with vectors: four tokens with two rows of weights. In assembly since
 * the eight sums need all even registers. */
#include "mcuf_target.h"

#if MCUF_MVE
    .syntax unified
    .thumb
    .text

/* Adds the products of q2, 16 values of the next token, to its two sums. */
    .macro token first, second
    vldrb.u8 q2, [r1], #16
    vmladava.s8 \first, q2, q0
    vmladava.s8 \second, q2, q1
    .endm

    .macro step
    vldrb.u8 q0, [r3], #16
    vldrb.u8 q1, [r5], #16
    token r0, r8
    token r2, r10
    token r4, r12
    token r6, lr
    .endm

/* The rest of a token, r9 values: lanes beyond them read as 0. */
    .macro tail_token first, second
    vpst
    vldrbt.u8 q2, [r1]
    add r1, r9
    vmladava.s8 \first, q2, q0
    vmladava.s8 \second, q2, q1
    .endm

/* mcuf_dot_4x2_mve(acc, block, k, first, second on the stack): acc int32 [2, 4] */
    .global mcuf_dot_4x2_mve
    .type mcuf_dot_4x2_mve, %function
    .p2align 2
mcuf_dot_4x2_mve:
    push {r0, r4-r11, lr}
    ldr r5, [sp, #40]
    and r9, r2, #15
    lsr r7, r2, #4
    movs r0, #0
    movs r2, #0
    movs r4, #0
    movs r6, #0
    mov r8, r0
    mov r10, r0
    mov r12, r0
    mov lr, r0
    lsrs r7, r7, #1
    bcc 1f
    step
1:  cbz r7, 3f
2:  step
    step
    subs r7, #1
    bne 2b
3:  cmp r9, #0
    beq 4f
    vctp.8 r9
    vpstt
    vldrbt.u8 q0, [r3]
    vldrbt.u8 q1, [r5]
    tail_token r0, r8
    tail_token r2, r10
    tail_token r4, r12
    tail_token r6, lr
4:  ldr r1, [sp]
    strd r0, r2, [r1]
    strd r4, r6, [r1, #8]
    strd r8, r10, [r1, #16]
    strd r12, lr, [r1, #24]
    pop {r0, r4-r11, pc}
    .size mcuf_dot_4x2_mve, . - mcuf_dot_4x2_mve
#endif

#if defined(__linux__) && defined(__ELF__)
    .section .note.GNU-stack, "", %progbits
#endif
