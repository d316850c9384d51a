/* SPDX-License-Identifier: Apache-2.0
 *
 * The loops of IntLayerNorm for Cortex-M with the DSP extension, four channels at a time; mcuf_int_layer_norm_s8.c
 * says what they compute and when they may be used. */
#include "mcuf_target.h"

#if MCUF_DSP
    .syntax unified
    .thumb
    .text

    .macro function name
    .global \name
    .type \name, %function
    .p2align 2
\name:
    .endm

/* mcuf_layer_norm_sums_dsp(x, words, sums): sums[0] = sum x, sums[1] = sum x^2 of four times words values. */
    function mcuf_layer_norm_sums_dsp
    push {r4-r8, lr}
    movs r3, #0                      /* sum x */
    movs r4, #0                      /* sum x^2 */
    mov lr, #0x00010001
    lsls r5, r1, #31
    beq 2f
    ldr r6, [r0], #4
    sxtb16 r5, r6
    sxtb16 r6, r6, ror #8
    smlad r4, r5, r5, r4
    smlad r4, r6, r6, r4
    sadd16 r5, r5, r6
    smlad r3, r5, lr, r3
2:  lsrs r1, r1, #1
    beq 3f
1:  ldr r6, [r0], #4
    ldr r8, [r0], #4
    sxtb16 r5, r6
    sxtb16 r6, r6, ror #8
    sxtb16 r7, r8
    sxtb16 r8, r8, ror #8
    smlad r4, r5, r5, r4
    smlad r4, r6, r6, r4
    smlad r4, r7, r7, r4
    smlad r4, r8, r8, r4
    sadd16 r5, r5, r6
    sadd16 r7, r7, r8
    sadd16 r5, r5, r7
    smlad r3, r5, lr, r3
    subs r1, #1
    bne 1b
3:  strd r3, r4, [r2]
    pop {r4-r8, pc}
    .size mcuf_layer_norm_sums_dsp, . - mcuf_layer_norm_sums_dsp

/* Four products of values (pairs in r4 and r8) and factors (r5 and r9): their sum and the sum of their squares. */
    .macro factor_sums
    ldr r8, [r0], #4
    ldr r9, [r1], #4
    sxtb16 r4, r8
    uxtb16 r5, r9
    sxtb16 r8, r8, ror #8
    uxtb16 r9, r9, ror #8
    smlad r12, r4, r5, r12
    smlad r12, r8, r9, r12
    smulbb r10, r4, r5
    smultt r4, r4, r5
    smulbb r11, r8, r9
    smultt r8, r8, r9
    smlal r6, r7, r10, r10
    smlal r6, r7, r4, r4
    smlal r6, r7, r11, r11
    smlal r6, r7, r8, r8
    .endm

/* mcuf_layer_norm_factor_sums_dsp(x, factor, words, sums): with x * factor, sum and (64 bit) sum of squares. */
    function mcuf_layer_norm_factor_sums_dsp
    push {r3-r11, lr}
    movs r6, #0
    movs r7, #0
    mov r12, #0
1:  tst r2, #3                       /* words that do not fill a round */
    beq 2f
    factor_sums
    subs r2, #1
    b 1b
2:  cmp r2, #0
    beq 4f
3:  factor_sums
    factor_sums
    factor_sums
    factor_sums
    subs r2, #4
    bne 3b
4:  ldr r3, [sp]
    strd r6, r7, [r3, #8]
    str r12, [r3]
    pop {r3-r11, pc}
    .size mcuf_layer_norm_factor_sums_dsp, . - mcuf_layer_norm_factor_sums_dsp

/* r0: x, output, gamma, beta, factor, words << 16 | scale, minus offset, multiplier (layer_norm_rows). Per channel:
 * t = mulhi_round(scale * x - offset, multiplier), then t * gamma + beta. */

/* Four accumulators, of which the upper halves are the results, to four bytes at r7. The GE flags choose bytes 1, 3. */
    .macro store_four y0, y1, y2, y3
    pkhtb \y0, \y2, \y0, asr #16
    pkhtb \y1, \y3, \y1, asr #16
    ssat16 \y0, #8, \y0
    ssat16 \y1, #8, \y1
    lsl \y1, \y1, #8
    sel \y0, \y1, \y0
    str \y0, [r7], #4
    .endm

    .macro choose_bytes_1_3
    mov r0, #0xFF00FF00
    uadd8 r0, r0, r0
    .endm

    function mcuf_layer_norm_rows_dsp
    push {r4-r11, lr}
    mov r6, r0
    choose_bytes_1_3
    ldmia r6, {r6, r7, r8, r9, r10, r11, r12, lr}
    mov r10, r11
    sub r10, #0x10000
1:  ldr r0, [r6], #4
    sxtb16 r1, r0
    sxtb16 r0, r0, ror #8
    smlabb r2, r1, r10, r12
    smlatb r1, r1, r10, r12
    smlabb r3, r0, r10, r12
    smlatb r0, r0, r10, r12
    smmulr r2, r2, lr
    smmulr r3, r3, lr
    smmulr r1, r1, lr
    smmulr r0, r0, lr
    ldr r11, [r8], #4
    ldrd r4, r5, [r9], #8
    smlabb r2, r2, r11, r4
    smlabt r3, r3, r11, r5
    ldr r11, [r8], #4
    ldrd r4, r5, [r9], #8
    smlabb r1, r1, r11, r4
    smlabt r0, r0, r11, r5
    store_four r2, r3, r1, r0
    subs r10, #0x10000
    bpl 1b
    pop {r4-r11, pc}
    .size mcuf_layer_norm_rows_dsp, . - mcuf_layer_norm_rows_dsp

/* Four channels with factors: 127 * scale is below 2^15, so one product scales two factors. */
    .macro factor_four
    ldr r0, [r6], #4
    ldr r1, [r10], #4
    ldr r11, [sp]
    sxtb16 r2, r0
    uxtb16 r3, r1
    sxtb16 r0, r0, ror #8
    uxtb16 r1, r1, ror #8
    mul r3, r3, r11
    mul r1, r1, r11
    smlabb r4, r2, r3, r12
    smlatt r2, r2, r3, r12
    smlabb r3, r0, r1, r12
    smlatt r0, r0, r1, r12
    smmulr r4, r4, lr
    smmulr r3, r3, lr
    smmulr r2, r2, lr
    smmulr r0, r0, lr
    ldr r1, [r8], #4
    ldrd r5, r11, [r9], #8
    smlabb r4, r4, r1, r5
    smlabt r3, r3, r1, r11
    ldr r1, [r8], #4
    ldrd r5, r11, [r9], #8
    smlabb r2, r2, r1, r5
    smlabt r0, r0, r1, r11
    store_four r4, r3, r2, r0
    .endm

    function mcuf_layer_norm_factor_rows_dsp
    push {r4-r11, lr}
    sub sp, #12                      /* scale, end of x */
    mov r6, r0
    choose_bytes_1_3
    ldmia r6, {r6, r7, r8, r9, r10, r11, r12, lr}
    lsr r1, r11, #16
    uxth r11, r11
    add r0, r6, r1, lsl #2
    strd r11, r0, [sp]
    lsls r1, r1, #31
    beq 1f
    factor_four
1:  ldr r1, [sp, #4]
    cmp r6, r1
    beq 3f
2:  factor_four
    factor_four
    ldr r1, [sp, #4]
    cmp r6, r1
    bne 2b
3:  add sp, #12
    pop {r4-r11, pc}
    .size mcuf_layer_norm_factor_rows_dsp, . - mcuf_layer_norm_factor_rows_dsp
#endif

#if defined(__linux__) && defined(__ELF__)
    .section .note.GNU-stack, "", %progbits
#endif
