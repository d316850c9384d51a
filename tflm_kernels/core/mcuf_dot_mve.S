/* SPDX-License-Identifier: Apache-2.0
 *
 * The inner products of the kernels for Cortex-M with vectors: four tokens with rows of weights, two rows at a time. In
 * assembly since the eight sums need all even registers. mcuf_dot_mve.h declares them. */
#include "mcuf_target.h"

#if MCUF_MVE
    .syntax unified
    .thumb
    .text

/* A vector of the next token, and its products with q0 and q1 to its two sums; op vmladav begins them. */
    .macro token op, type, load, first, second
    \load q2, [r1], #16
    \op\().\type \first, q2, q0
    \op\().\type \second, q2, q1
    .endm

    .macro step op, type, vector, row_load, load
    \row_load q0, [r3], #\vector
    \row_load q1, [r5], #\vector
    token \op, \type, \load, r0, r8
    token \op, \type, \load, r2, r10
    token \op, \type, \load, r4, r12
    token \op, \type, \load, r6, lr
    .endm

/* The rest of a token, r9 values: lanes beyond them read as 0. */
    .macro tail_token type, load, shift, first, second
    vpst
    \load q2, [r1]
    add r1, r1, r9, lsl #\shift
    vmladava.\type \first, q2, q0
    vmladava.\type \second, q2, q1
    .endm

    .macro tail type, lanes, row_load, load, shift
    \lanes r9
    vpstt
    \row_load q0, [r3]
    \row_load q1, [r5]
    tail_token \type, \load, \shift, r0, r8
    tail_token \type, \load, \shift, r2, r10
    tail_token \type, \load, \shift, r4, r12
    tail_token \type, \load, \shift, r6, lr
    add r5, r5, r9
    .endm

    .macro zeros
    mov r0, #0
    mov r2, #0
    mov r4, #0
    mov r6, #0
    mov r8, #0
    mov r10, #0
    mov r12, #0
    mov lr, #0
    .endm

/* The sums of four tokens from r1 on with the rows at r3 and r5: r0, r2, r4, r6 and r8, r10, r12, lr. Leaves r5 at the
 * row's end. r7: whole vectors of a row, with its flags; r9: the rest; 6 and 7: labels. add: to what these registers
 * hold. */
    .macro dot_pair add, type, vector, row_load, load
    .if \add == 0
    beq 6f
    step vmladav, \type, \vector, \row_load, \load
    subs r7, r7, #1
    .endif
    lsrs r7, r7, #1
    bcc 2f
    step vmladava, \type, \vector, \row_load, \load
2:  cbz r7, 4f
3:  step vmladava, \type, \vector, \row_load, \load
    step vmladava, \type, \vector, \row_load, \load
    subs r7, r7, #1
    bne 3b
4:  cmp r9, #0
    bne 7f
    .endm

/* vector: values of a step, 1 << log; load, row_load: of tokens and rows; *_tail: predicated; shift: log of the bytes
 * of a token's value */
    .macro dot_rows name, add, type, vector, log, lanes, row_load, row_tail, load, load_tail, shift
    .global \name
    .type \name, %function
    .p2align 2
\name:
    push {r1, r2, r4-r11, lr}
    mov r11, r0
    and r9, r2, #(\vector - 1)
1:  ldrd r1, r2, [sp]
    ldr r5, [sp, #48]
    add r5, r5, r3
    lsrs r7, r2, #\log
    .if \add
    ldrd r0, r2, [r11]
    ldrd r4, r6, [r11, #8]
    ldrd r8, r10, [r11, #16]
    ldrd r12, lr, [r11, #24]
    .endif
    dot_pair \add, \type, \vector, \row_load, \load
5:  strd r0, r2, [r11], #8
    strd r4, r6, [r11], #8
    strd r8, r10, [r11], #8
    strd r12, lr, [r11], #8
    ldr r0, [sp, #44]
    mov r3, r5
    cmp r11, r0
    bne 1b
    pop {r1, r2, r4-r11, pc}
6:  zeros
7:  tail \type, \lanes, \row_tail, \load_tail, \shift
    b 5b
    .size \name, . - \name
    .endm

    dot_rows mcuf_dot_rows_mve, 0, s8, 16, 4, vctp.8, vldrb.u8, vldrbt.u8, vldrb.u8, vldrbt.u8, 0
    dot_rows mcuf_dot_rows_add_mve, 1, s8, 16, 4, vctp.8, vldrb.u8, vldrbt.u8, vldrb.u8, vldrbt.u8, 0
    dot_rows mcuf_weigh_rows_mve, 0, s16, 8, 3, vctp.16, vldrb.s16, vldrbt.s16, vldrh.u16, vldrht.u16, 1

    .global mcuf_dot_two_add_mve
    .type mcuf_dot_two_add_mve, %function
    .p2align 2
mcuf_dot_two_add_mve:
    push {r1, r2, r4-r11, lr}
    mov r11, r0
    and r9, r2, #15
    lsr r10, r2, #4
1:  ldrd r1, r2, [sp]
    ldr r7, [sp, #48]
    add r5, r1, r2
    add r7, r7, r3
    ldrd r0, r2, [r11]
    ldrd r4, r6, [r11, #8]
    wls lr, r10, 3f
2:  vldrb.u8 q0, [r1], #16
    vldrb.u8 q1, [r5], #16
    vldrb.u8 q2, [r3], #16
    vldrb.u8 q3, [r7], #16
    vmladava.s8 r0, q0, q2
    vmladava.s8 r2, q1, q2
    vmladava.s8 r4, q0, q3
    vmladava.s8 r6, q1, q3
    le lr, 2b
3:  cmp r9, #0
    bne 5f
4:  strd r0, r2, [r11], #8
    strd r4, r6, [r11], #8
    ldr r0, [sp, #44]
    mov r3, r7
    cmp r11, r0
    bne 1b
    pop {r1, r2, r4-r11, pc}
5:  vctp.8 r9
    vpstttt
    vldrbt.u8 q0, [r1]
    vldrbt.u8 q1, [r5]
    vldrbt.u8 q2, [r3]
    vldrbt.u8 q3, [r7]
    vmladava.s8 r0, q0, q2
    vmladava.s8 r2, q1, q2
    vmladava.s8 r4, q0, q3
    vmladava.s8 r6, q1, q3
    add r7, r7, r9
    b 4b
    .size mcuf_dot_two_add_mve, . - mcuf_dot_two_add_mve

/* mcuf_fc_four_mve(layer): mcuf_fc_four. Its fields from here on, after registers and d8-d15: */
#define TOKENS 0
#define BIAS 12
#define END 116
#define MULTIPLIER 120 /* output follows */
#define RESIDUAL 128   /* its scale follows */
#define GELU 136
#define STRIDE 140     /* zero point follows */
#define LAST 148

    .global mcuf_fc_four_mve
    .type mcuf_fc_four_mve, %function
    .p2align 2
mcuf_fc_four_mve:
    vpush {d8-d15}
    push {r0-r11, lr}
    mov r11, r3
    mov r3, r2
    and r9, r1, #15
    ldrd r4, r5, [sp, #STRIDE]
    vdup.16 q6, r5
    movs r0, #0 /* q7: halfword lanes t * stride and t * stride + 1 for token t */
    ldr r5, [sp, #LAST]
    vidup.u32 q7, r0, #1
    vdup.32 q0, r5
    vmin.u32 q7, q7, q0
    orr r4, r4, r4, lsl #16
    vmul.i32 q7, q7, r4
    mov r4, #0x10000
    vadd.i32 q7, q7, r4
    vmov.i32 q5, #0
1:  ldrd r1, r2, [sp, #TOKENS]
    add r5, r3, r2
    lsrs r7, r2, #4
    dot_pair 0, s8, 16, vldrb.u8, vldrb.u8
5:  ldr r7, [sp, #RESIDUAL]
/* The first register goes to the second lane that is named. */
    vmov q0[2], q0[0], r0, r4
    vmov q0[3], q0[1], r2, r6
    vmov q1[2], q1[0], r8, r12
    vmov q1[3], q1[1], r10, lr
    ldrd r0, r2, [r11], #8
    vadd.i32 q0, q0, r0
    vadd.i32 q1, q1, r2
    cbz r7, 8f
    ldr r8, [sp, #RESIDUAL + 4]
    vldrb.s16 q2, [r7, q7]
    ldr r0, [r8], #4
    adds r7, r7, #2
    vdup.32 q3, r0
    strd r7, r8, [sp, #RESIDUAL]
    vmullb.s16 q4, q2, q3
    vmullt.s16 q2, q2, q3
    vadd.i32 q0, q0, q4
    vadd.i32 q1, q1, q2
8:  ldrd r4, r6, [sp, #MULTIPLIER]
    ldr r0, [sp, #GELU]
    ldrd r8, r10, [r4], #8
    vdup.32 q2, r8
    vrmulh.s32 q0, q0, q2
    vdup.32 q2, r10
    vrmulh.s32 q1, q1, q2
    vqmovnb.s32 q0, q0
    vqmovnt.s32 q0, q1
    vqadd.s16 q0, q0, q6
    cbz r0, 9f
    vqmovunb.s16 q5, q0 /* the zero point is 128 larger; the upper bytes of q5 stay 0 */
    vldrb.u16 q0, [r0, q5]
    b 10f
9:  vqmovnb.s16 q0, q0
10: vstrb.16 q0, [r6, q7]
    adds r6, r6, #2
    strd r4, r6, [sp, #MULTIPLIER]
    ldr r0, [sp, #END]
    mov r3, r5
    cmp r11, r0
    bne 1b
    add sp, sp, #16
    pop {r4-r11, lr}
    vpop {d8-d15}
    bx lr
6:  zeros
7:  tail s8, vctp.8, vldrbt.u8, vldrbt.u8, 0
    b 5b
    .size mcuf_fc_four_mve, . - mcuf_fc_four_mve
#endif

#if defined(__linux__) && defined(__ELF__)
    .section .note.GNU-stack, "", %progbits
#endif
