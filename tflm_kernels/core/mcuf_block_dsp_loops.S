/* SPDX-License-Identifier: Apache-2.0
 *
 * Kernels for Cortex-M with the DSP extension; mcuf_block_dsp.h says what they do and how their arguments lie.
 * In all of them r0 walks over the activations, r1 over the weights. */
#include "mcuf_target.h"

#if MCUF_DSP
    .syntax unified
    .thumb
    .text

/* Every kernel's frame, below the saved registers; the struct's address is the saved r0. */
    .equ END, 0          /* weights' address where the loop ends */
    .equ ENTRY, 4        /* where the unrolled loop is entered */
    .equ BIAS_HI, 8
    .equ CHUNK, 12       /* separations so far in this pair */
    .equ HIGH, 16        /* int32[4]: sums of the second row so far */
    .equ FRAME, 32
    .equ ARGS, FRAME     /* saved r0 */

    .macro function name
    .global \name
    .type \name, %function
    .p2align 2
\name:
    push {r0, r4-r11, lr}
    sub sp, #FRAME
    .endm

    .macro end_function name
    add sp, #FRAME
    pop {r0, r4-r11, pc}
    .size \name, . - \name
    .endm

/* The address `label` + number at `offset` of the struct in r0, as a branch target, to ENTRY. */
    .macro set_entry label, offset
    ldr r2, [r0, #\offset]
    adr r3, \label
    add r3, r2
    orr r3, r3, #1
    str r3, [sp, #ENTRY]
    .endm

/* ---- four tokens: mixed sums in r6 r8 r10 r12, sums of the first row in r7 r9 r11 lr ---- */

/* Two inputs of two rows: 48 bytes of code. The sums start from a0 .. a3 if given. */
    .macro step4 a0=r7, a1=r9, a2=r11, a3=lr, m0=r6, m1=r8, m2=r10, m3=r12
    ldr r2, [r1], #4
    ldrd r4, r5, [r0], #8
    sxtb16 r3, r2
    smlad r6, r4, r2, \m0
    smlad r7, r4, r3, \a0
    smlad r8, r5, r2, \m1
    smlad r9, r5, r3, \a1
    ldrd r4, r5, [r0], #8
    smlad r10, r4, r2, \m2
    smlad r11, r4, r3, \a2
    smlad r12, r5, r2, \m3
    smlad lr, r5, r3, \a3
    .endm
    .equ STEP4_BYTES, 48
    .equ UNROLL4, 24     /* steps; entry_of() in mcuf_block_dsp.c knows it */
    .equ FC_UNROLL4, 48  /* those of mcuf_fc4_dsp; chunks_after_first() knows it too */

    .macro unmix4
    sub r6, r6, r7
    sub r8, r8, r9
    sub r10, r10, r11
    sub r12, r12, lr
    .endm

/* Mixed sums, less the first row's, to the second row's on top of start. */
    .macro add_high4 s0, s1, s2, s3
    add r6, \s0, r6, asr #8
    add r8, \s1, r8, asr #8
    add r10, \s2, r10, asr #8
    add r12, \s3, r12, asr #8
    .endm

/* ---- the fully connected layer of four tokens: its frame is mcuf_fc_dsp_args, whose `weights` becomes END ---- */

    .equ FC_BIAS, 4
    .equ FC_OUTPUT, 8
    .equ FC_OFFSETS, 20
    .equ FC_OUTPUT_END, 32
    .equ FC_END, 36      /* where the activations of the present chunk end */
    .equ FC_ENTRY, 40
    .equ FC_FINISH, 44
    .equ FC_RESIDUAL, 48
    .equ FC_GELU, 56
    .equ FC_FIRST_BYTES, 60
    .equ FC_FIRST_END, FC_FIRST_BYTES /* in the frame */
    .equ FC_MORE, 64
    .equ FC_CHUNK, 68    /* separations so far in this pair */
    .equ FC_HIGH, 72     /* int32[4]: sums of the second row so far */
    .equ FC_FRAME, 92    /* with the saved registers a multiple of 8 */

/* Mixed sums, less the first row's, to the second row's with its bias. */
    .macro fc4_add_high
    ldr r2, [sp, #FC_BIAS]
    ldr r2, [r2, #-4]
    add_high4 r2, r2, r2, r2
    .endm

/* r2: output; r3: multipliers of the next pair; r4: zero point; r5: the offsets; r0: bias of the next pair. */
    .macro fc4_load
    add r5, sp, #FC_BIAS
    ldmia r5!, {r0, r2, r3, r4}
    add r3, r0
    .endm

    .macro fc4_separate
    fc4_load
    unmix4
    ldr r0, [r0, #-4]
    add_high4 r0, r0, r0, r0
    .endm

    .macro requantise4 lo, hi
    smmlar \lo, \lo, r0, r4
    smmlar \hi, \hi, r3, r4
    ssat \lo, #8, \lo
    ssat \hi, #8, \hi
    .endm

    .macro fc4_requantise
    ldrd r0, r3, [r3, #-8]
    requantise4 r7, r6
    requantise4 r9, r8
    requantise4 r11, r10
    requantise4 lr, r12
    .endm

    .macro gelu4 lo, hi
    ldrb \lo, [r3, \lo]
    ldrb \hi, [r3, \hi]
    .endm

    .macro fc4_gelu
    ldr r3, [sp, #FC_GELU]
    gelu4 r7, r6
    gelu4 r9, r8
    gelu4 r11, r10
    gelu4 lr, r12
    .endm

/* Two outputs of each token. The first token's come last: those of a missing fourth are stored in their place. */
    .macro fc4_store
    bfi r7, r6, #8, #8
    bfi r9, r8, #8, #8
    bfi r11, r10, #8, #8
    bfi lr, r12, #8, #8
    ldmia r5, {r0, r3, r4, r5}       /* the offsets, the end of the output */
    strh r9, [r2, r0]
    strh r11, [r2, r3]
    strh lr, [r2, r4]
    strh r7, [r2], #2
    str r2, [sp, #FC_OUTPUT]
    cmp r2, r5
    bne fc4_pair
    .endm

/* Two values of a token, scaled by the halves of r3. r0: the first token's, r4: one behind it. */
    .macro residual4_at offset, lo, hi
    ldr r5, [sp, #\offset]
    ldrsb r2, [r0, r5]
    ldrsb r5, [r4, r5]
    smlabb \lo, r2, r3, \lo
    smlabt \hi, r5, r3, \hi
    .endm

    .macro fc4_residual
    ldrd r0, r2, [sp, #FC_RESIDUAL]
    ldr r3, [r2], #4
    adds r4, r0, #2
    strd r4, r2, [sp, #FC_RESIDUAL]
    ldrsb r2, [r0]
    ldrsb r5, [r0, #1]
    subs r4, #1
    smlabb r7, r2, r3, r7
    smlabt r6, r5, r3, r6
    residual4_at FC_OFFSETS, r9, r8
    residual4_at FC_OFFSETS + 4, r11, r10
    residual4_at FC_OFFSETS + 8, lr, r12
    .endm

    .global mcuf_fc4_dsp
    .type mcuf_fc4_dsp, %function
    .p2align 2
mcuf_fc4_dsp:
    push {r4-r11, lr}
    sub sp, #FC_FRAME
    ldmia r0!, {r2-r11}
    stmia sp, {r2-r10}
    mov r1, r11
    mov r11, r2
    ldmia r0, {r3-r9}
    add r2, r11, r8, lsl #2          /* 16 bytes of activations to 4 of weights */
    mov r8, r2
    adr r10, fc4_loop
    add r3, r10
    orr r3, r3, #1
    adr r10, fc4_finishes
    ldr r4, [r10, r4, lsl #2]
    add r4, r10
    movs r10, #0
    add r0, sp, #FC_END
    stmia r0, {r2-r10}
fc4_pair:
    ldmia sp, {r0, r2}
    ldr lr, [r2], #8
    str r2, [sp, #FC_BIAS]
    step4 lr, lr, lr, lr, lr, lr, lr, lr
    ldr pc, [sp, #FC_ENTRY]
    .p2align 2
fc4_loop:
    .rept FC_UNROLL4
    step4
    .endr
    ldr r2, [sp, #FC_END]
    cmp r0, r2
    bne fc4_loop
    ldr pc, [sp, #FC_FINISH]
    .p2align 2
fc4_finishes:                        /* MCUF_FC_DSP_* */
    .word fc4_plain - fc4_finishes + 1
    .word fc4_with_gelu - fc4_finishes + 1
    .word fc4_with_residual - fc4_finishes + 1
    .word fc4_any - fc4_finishes + 1

fc4_with_residual:
    unmix4
    fc4_add_high
    fc4_residual
    fc4_load
    b fc4_requantise_store

fc4_plain:
    fc4_separate
fc4_requantise_store:
    fc4_requantise
    fc4_store
fc4_end:
    add sp, #FC_FRAME
    pop {r4-r11, pc}

fc4_with_gelu:
    fc4_separate
fc4_requantise_gelu_store:
    fc4_requantise
    fc4_gelu
    fc4_store
    b fc4_end

fc4_any:                             /* also several chunks: r4 separations before this one, of r3 before the last */
    ldrd r3, r4, [sp, #FC_MORE]
    unmix4
    cbnz r4, 1f
    fc4_add_high
    cbz r3, 4f
    b 2f
1:  cmp r4, r3
    add r5, sp, #FC_HIGH
    ldmia r5, {r2, r3, r4, r5}
    add_high4 r2, r3, r4, r5
    beq 3f
    ldr r4, [sp, #FC_CHUNK]
2:  adds r4, #1
    str r4, [sp, #FC_CHUNK]
    add r5, sp, #FC_HIGH
    stmia r5, {r6, r8, r10, r12}
    mov r6, r7
    mov r8, r9
    mov r10, r11
    mov r12, lr
    add r2, r0, #3840                /* a chunk: 5 rounds of the loop */
    str r2, [sp, #FC_END]
    b fc4_loop
3:  ldr r2, [sp, #FC_FIRST_END]
    movs r4, #0
    str r2, [sp, #FC_END]
    str r4, [sp, #FC_CHUNK]
4:  ldr r2, [sp, #FC_RESIDUAL]
    cbz r2, 5f
    fc4_residual
5:  fc4_load
    ldr r0, [sp, #FC_GELU]
    cmp r0, #0
    beq fc4_requantise_store
    b fc4_requantise_gelu_store
    .size mcuf_fc4_dsp, . - mcuf_fc4_dsp

/* ---- sums of four tokens in memory; the frame ---- */

    .equ ACC_ROWS, 0
    .equ ACC_NOW, 4      /* of the present pair */
    .equ ACC_END, 8      /* where the activations end */
    .equ ACC_ENTRY, 12
    .equ ACC_NEXT, 16    /* after a round of the loop: acc4_check, or what FINISH has if one round does */
    .equ ACC_FINISH, 20
    .equ ACC_LAST, 24    /* where acc ends */
    .equ ACC_FRAME, 28   /* with the saved registers a multiple of 8 */

/* step4 that sets the sums. */
    .macro first_step4
    ldr r2, [r1], #4
    ldrd r4, r5, [r0], #8
    sxtb16 r3, r2
    smuad r6, r4, r2
    smuad r7, r4, r3
    smuad r8, r5, r2
    smuad r9, r5, r3
    ldrd r4, r5, [r0], #8
    smuad r10, r4, r2
    smuad r11, r4, r3
    smuad r12, r5, r2
    smuad lr, r5, r3
    .endm

    .global mcuf_accumulate4_dsp
    .type mcuf_accumulate4_dsp, %function
    .p2align 2
mcuf_accumulate4_dsp:
    push {r4-r11, lr}
    sub sp, #ACC_FRAME
    ldmia r0, {r2-r9}                /* r3: bytes, r5: start_bytes, r6: acc, r7: pairs, r9: entry_bytes */
    mov r1, r8
    strd r2, r6, [sp, #ACC_ROWS]
    add r6, r6, r7, lsl #5
    str r6, [sp, #ACC_LAST]
    add r2, r2, r3, lsl #2
    adr r4, acc4_loop
    add r4, r9
    orr r4, r4, #1
    strd r2, r4, [sp, #ACC_END]
    adr r4, acc4_add_finish
    cmp r5, #0
    it eq
    adreq r4, acc4_set_finish
    orr r4, r4, #1
    adr r2, acc4_check
    orr r2, r2, #1
    cmp r3, #4 * (UNROLL4 + 1)
    it le
    movle r2, r4
    strd r2, r4, [sp, #ACC_NEXT]
    cbz r5, acc4_set
acc4_add:
    ldmia sp, {r0, r2}
    ldmia r2, {r7, r9, r11, lr}
    step4 m0=r7, m1=r9, m2=r11, m3=lr
    ldr pc, [sp, #ACC_ENTRY]
acc4_set:
    ldr r0, [sp, #ACC_ROWS]
    first_step4
    ldr pc, [sp, #ACC_ENTRY]
    .p2align 2
acc4_loop:
    .rept UNROLL4
    step4
    .endr
    ldr pc, [sp, #ACC_NEXT]

    .p2align 2
acc4_check:
    ldr r2, [sp, #ACC_END]
    cmp r0, r2
    bne acc4_loop
    ldr pc, [sp, #ACC_FINISH]

    .p2align 2
acc4_add_finish:
    ldr r2, [sp, #ACC_NOW]
    unmix4
    adds r2, #16
    ldmia r2, {r0, r3, r4, r5}
    add_high4 r0, r3, r4, r5
    stmdb r2, {r7, r9, r11, lr}
    stmia r2!, {r6, r8, r10, r12}
    ldr r3, [sp, #ACC_LAST]
    str r2, [sp, #ACC_NOW]
    cmp r2, r3
    bne acc4_add
acc4_end:
    add sp, #ACC_FRAME
    pop {r4-r11, pc}

    .p2align 2
acc4_set_finish:
    ldr r2, [sp, #ACC_NOW]
    unmix4
    asr r6, r6, #8
    asr r8, r8, #8
    asr r10, r10, #8
    asr r12, r12, #8
    stmia r2!, {r7, r9, r11, lr}
    stmia r2!, {r6, r8, r10, r12}
    ldr r3, [sp, #ACC_LAST]
    str r2, [sp, #ACC_NOW]
    cmp r2, r3
    bne acc4_set
    b acc4_end
    .size mcuf_accumulate4_dsp, . - mcuf_accumulate4_dsp

/* ---- two tokens: mixed sums in r6 r8, sums of the first row in r7 r9 ---- */

    .macro product2 a0, a1, word
    sxtb16 r12, \word
    smlad r6, \a0, \word, r6
    smlad r7, \a0, r12, r7
    smlad r8, \a1, \word, r8
    smlad r9, \a1, r12, r9
    .endm

/* Four inputs of two rows: 48 bytes of code. */
    .macro step2
    ldrd r2, r3, [r1], #8
    ldmia r0!, {r4, r5, r10, r11}
    product2 r4, r5, r2
    product2 r10, r11, r3
    .endm

    function mcuf_accumulate2_dsp
    set_entry accumulate2_loop, 28
    ldr r1, [r0, #24]
    mov r5, r0
accumulate2_pair:
    ldmia r5, {r0, r2, r3}
    add lr, r1, r2
    ldrd r7, r9, [r3]
    mov r6, r7
    mov r8, r9
    lsls r2, r2, #29                 /* an odd number of words: one word first */
    bpl 1f
    ldr r2, [r1], #4
    ldrd r4, r5, [r0], #8
    product2 r4, r5, r2
1:  ldr pc, [sp, #ENTRY]
    .p2align 2
accumulate2_loop:
    .rept 8
    step2
    .endr
    cmp r1, lr
    bne accumulate2_loop
    ldr r5, [sp, #ARGS]
    ldrd r2, r3, [r5, #8]
    add r3, r2
    str r3, [r5, #8]
    sub r6, r6, r7
    sub r8, r8, r9
    ldrd r0, r3, [r2, #8]
    add r6, r0, r6, asr #8
    add r8, r3, r8, asr #8
    ldrd r2, r3, [r5, #16]
    subs r3, #1
    strd r7, r9, [r2], #8
    strd r6, r8, [r2], #8
    strd r2, r3, [r5, #16]
    bne accumulate2_pair
    end_function mcuf_accumulate2_dsp

/* ---- one token: mixed sum in r12, sum of the first row in r11; lr: where the loop ends ---- */

    .macro product1 word, a
    sxtb16 r10, \word
    smlad r12, \a, \word, r12
    smlad r11, \a, r10, r11
    .endm

/* Eight inputs of two rows: 56 bytes of code. */
    .macro step1
    ldmia.w r1!, {r2, r3, r4, r5}
    ldmia.w r0!, {r6, r7, r8, r9}
    product1 r2, r6
    product1 r3, r7
    product1 r4, r8
    product1 r5, r9
    .endm

/* The words that do not fill a step: 0 to 3, of the bytes in r2. */
    .macro tail1
    tst r2, #12
    beq 8f
9:  ldr r3, [r1], #4
    ldr r4, [r0], #4
    product1 r3, r4
    sub r2, #4
    tst r2, #12
    bne 9b
8:
    .endm

/* lr: where the first chunk ends; of one token, activations take as many bytes as weights. */
    .macro fc1_first_end
    ldr r2, [r10]
    ldr lr, [r10, #FC_FIRST_BYTES]
    add lr, r2
    .endm

    function mcuf_fc1_dsp
    set_entry fc1_loop, FC_ENTRY
    movs r2, #0
    str r2, [sp, #CHUNK]
    ldr r1, [r0, #36]
    mov r10, r0
    fc1_first_end
fc1_pair:                            /* r10: the struct */
    ldmia r10, {r0, r3}
    ldr r2, [r10, #FC_FIRST_BYTES]
    ldr r11, [r3], #8
    mov r12, r11
    str r3, [r10, #FC_BIAS]
    tail1
    ldr pc, [sp, #ENTRY]
    .p2align 2
fc1_loop:
    .rept 16
    step1
    .endr
    cmp r0, lr
    bne fc1_loop
    ldr r10, [sp, #ARGS]
    ldmia r10, {r3-r7}               /* r4: bias, r5: output, r6: from it to the multipliers, r7: zero point */
    add r6, r4
    ldr r4, [r4, #-4]
    ldrd r2, r3, [r6, #-8]
    ldr r6, [r10, #FC_FINISH]
    sub r12, r12, r11
    add r12, r4, r12, asr #8
    cbnz r6, fc1_special
fc1_requantise:
    smmlar r11, r11, r2, r7
    smmlar r12, r12, r3, r7
    ssat r11, #8, r11
    ssat r12, #8, r12
fc1_store:
    bfi r11, r12, #8, #8
    strh r11, [r5], #2
    ldr r4, [r10, #FC_OUTPUT_END]
    str r5, [r10, #FC_OUTPUT]
    cmp r5, r4
    bne fc1_pair
    end_function mcuf_fc1_dsp

fc1_special:                         /* r0 r1 still walk */
    ldr r6, [r10, #FC_MORE]
    ldr r8, [sp, #CHUNK]
    cmp r8, #0
    beq 1f
    ldr r9, [sp, #HIGH]
    sub r12, r4                      /* the bias is in these sums already */
    add r12, r9
1:  cmp r8, r6
    beq 2f
    add r8, #1
    str r8, [sp, #CHUNK]
    str r12, [sp, #HIGH]
    mov r12, r11
    add lr, r0, #1024                /* a chunk: 4 rounds of the loop */
    b fc1_loop
2:  mov r8, #0
    str r8, [sp, #CHUNK]
    mov r9, r2                       /* a multiplier */
    fc1_first_end
    mov r2, r9
    ldrd r6, r8, [r10, #FC_RESIDUAL]
    cbz r6, 3f
    ldr r9, [r8], #4
    ldrsb r4, [r6], #1
    smlabb r11, r4, r9, r11
    ldrsb r4, [r6], #1
    smlabt r12, r4, r9, r12
    strd r6, r8, [r10, #FC_RESIDUAL]
3:  ldr r8, [r10, #FC_GELU]
    cmp r8, #0
    beq fc1_requantise
    smmlar r11, r11, r2, r7
    smmlar r12, r12, r3, r7
    ssat r11, #8, r11
    ssat r12, #8, r12
    ldrb r11, [r8, r11]
    ldrb r12, [r8, r12]
    b fc1_store

    function mcuf_accumulate1_dsp
    set_entry accumulate1_loop, 28
    ldr r1, [r0, #24]
    mov r5, r0
accumulate1_pair:
    ldmia r5, {r0, r2, r3}
    add lr, r1, r2
    ldr r11, [r3]
    mov r12, r11
    tail1
    ldr pc, [sp, #ENTRY]
    .p2align 2
accumulate1_loop:
    .rept 4
    step1
    .endr
    cmp r1, lr
    bne accumulate1_loop
    ldr r5, [sp, #ARGS]
    ldrd r2, r3, [r5, #8]
    add r3, r2
    str r3, [r5, #8]
    ldr r2, [r2, #4]
    sub r12, r12, r11
    add r12, r2, r12, asr #8
    ldrd r2, r3, [r5, #16]
    subs r3, #1
    strd r11, r12, [r2], #8
    strd r2, r3, [r5, #16]
    bne accumulate1_pair
    end_function mcuf_accumulate1_dsp

/* ---- attention's weighted sum ---- */

/* Two inputs of two rows of plain bytes: 52 bytes of code. */
    .macro weigh_step4
    ldr r2, [r1], #4
    ldrd r4, r5, [r0], #8
    sxtb16 r3, r2
    sxtb16 r2, r2, ror #8
    smlad r6, r4, r2, r6
    smlad r7, r4, r3, r7
    smlad r8, r5, r2, r8
    smlad r9, r5, r3, r9
    ldrd r4, r5, [r0], #8
    smlad r10, r4, r2, r10
    smlad r11, r4, r3, r11
    smlad r12, r5, r2, r12
    smlad lr, r5, r3, lr
    .endm

/* The first of them, which sets the sums. */
    .macro weigh_first4
    ldr r2, [r1], #4
    ldrd r4, r5, [r0], #8
    sxtb16 r3, r2
    sxtb16 r2, r2, ror #8
    smuad r6, r4, r2
    smuad r7, r4, r3
    smuad r8, r5, r2
    smuad r9, r5, r3
    ldrd r4, r5, [r0], #8
    smuad r10, r4, r2
    smuad r11, r4, r3
    smuad r12, r5, r2
    smuad lr, r5, r3
    .endm

/* All inputs of two rows, r2 bytes of them at r1: the sums. ENTRY: in the loop `label`, which is unrolled 16 times. */
    .macro weigh_inputs4 label
    add r2, r1
    str r2, [sp, #END]
    weigh_first4
    ldr pc, [sp, #ENTRY]
    .p2align 2
\label:
    .rept 16
    weigh_step4
    .endr
    ldr r2, [sp, #END]
    cmp r1, r2
    bne \label
    .endm

/* Rounded half up: the shift leaves the last bit that falls out in the carry. r0: multipliers and shifts; r4: zero
 * point; r5: output. */
    .macro weigh_store lo, hi
    ldrd r2, r3, [r0], #8
    smmulr \lo, \lo, r2
    smmulr \hi, \hi, r2
    asrs \lo, \lo, r3
    adc \lo, \lo, r4
    asrs \hi, \hi, r3
    adc \hi, \hi, r4
    ssat \lo, #8, \lo
    ssat \hi, #8, \hi
    strb \lo, [r5]
    strb \hi, [r5, #1]
    .endm

    function mcuf_weigh4_dsp
    set_entry weigh4_loop, 32
    ldr r1, [r0, #12]
    mov r5, r0
weigh4_pair:
    ldmia r5, {r0, r2}
    weigh_inputs4 weigh4_loop
    ldr r5, [sp, #ARGS]
    ldr r2, [r5, #28]
    str r2, [sp, #HIGH]
    ldr r0, [r5, #8]
    ldr r4, [r5, #24]
    ldr r5, [r5, #16]
    weigh_store r7, r6
    ldr r6, [sp, #HIGH]
    add r5, r6
    weigh_store r9, r8
    add r5, r6
    weigh_store r11, r10
    add r5, r6
    weigh_store lr, r12
    ldr r5, [sp, #ARGS]
    ldrd r2, r3, [r5, #16]
    add r2, #2
    subs r3, #1
    strd r2, r3, [r5, #16]
    bne weigh4_pair
    end_function mcuf_weigh4_dsp

    .macro weigh_product1 word, a
    sxtb16 r10, \word
    sxtb16 \word, \word, ror #8
    smlad r11, \a, r10, r11
    smlad r12, \a, \word, r12
    .endm

    function mcuf_weigh1_dsp
    ldr r1, [r0, #12]
    mov r5, r0
weigh1_pair:
    ldmia r5, {r0, r2}
    add lr, r1, r2
    movs r3, #0
    mov r11, r3
    mov r12, r3
1:  tst r2, #12                      /* words that do not fill a step of four */
    beq 2f
    ldr r3, [r1], #4
    ldr r4, [r0], #4
    weigh_product1 r3, r4
    sub r2, #4
    b 1b
2:  cmp r1, lr
    beq 4f
3:  ldmia r1!, {r2, r3, r4, r5}
    ldmia r0!, {r6, r7, r8, r9}
    weigh_product1 r2, r6
    weigh_product1 r3, r7
    weigh_product1 r4, r8
    weigh_product1 r5, r9
    cmp r1, lr
    bne 3b
4:  ldr r6, [sp, #ARGS]
    ldr r0, [r6, #8]
    ldr r4, [r6, #24]
    ldr r5, [r6, #16]
    weigh_store r11, r12
    ldrd r2, r3, [r6, #16]
    add r2, #2
    subs r3, #1
    strd r2, r3, [r6, #16]
    mov r5, r6
    bne weigh1_pair
    end_function mcuf_weigh1_dsp

/* ---- softmax numerators of four rows ---- */

/* A new maximum is rare, so that it takes the jumps. */
    .macro raise max, score
    cmp \score, \max
    bgt softmax4_new_\max
softmax4_known_\max:
    .endm

    .macro new_max max, score
softmax4_new_\max:
    mov \max, \score
    b softmax4_known_\max
    .endm

/* A score to its numerator: (max - score) * factor is max * factor - score * factor. */
    .macro numerator score, max, sum
    mls \score, \score, r8, \max
    smmulr \score, \score, r9
    usat \score, #10, \score
    ldrh \score, [r3, \score, lsl #1]
    add \sum, \score
    .endm

/* Two of the four rows. r0: scores, r1: numerators, r2: end of the numerators, r4 r5: maxima times factor, r6 r7: sums,
 * r10 r11 of one token, r12 lr of the next. */
    .macro numerators2
    cmp r1, r2
    beq 2f
1:  ldrd r10, r11, [r0], #16
    ldrd r12, lr, [r0], #16
    numerator r10, r4, r6
    numerator r12, r4, r6
    numerator r11, r5, r7
    numerator lr, r5, r7
    pkhbt r10, r10, r12, lsl #16
    pkhbt r11, r11, lr, lsl #16
    strd r10, r11, [r1], #16
    cmp r1, r2
    bne 1b
2:  ldr r12, [sp, #ARGS]
    ldr lr, [r12, #12]
    cmp lr, #0
    beq 3f
    ldrd r10, r11, [r0]
    numerator r10, r4, r6
    numerator r11, r5, r7
    strd r10, r11, [r1]
3:
    .endm

    function mcuf_softmax4_dsp
    mov r12, r0
    ldr r0, [r12]
    ldr r1, [r12, #8]
    ldr r2, [r12, #12]
    add r1, r2, r1, lsl #1           /* tokens */
    ldmia r0!, {r4, r5, r6, r7}
    b 2f
1:  ldmia r0!, {r8, r9, r10, r11}
    raise r4, r8
    raise r5, r9
    raise r6, r10
    raise r7, r11
2:  subs r1, #1
    bne 1b
    ldrd r8, r9, [r12, #20]
    mul r4, r4, r8
    mul r5, r5, r8
    mul r6, r6, r8
    mul r7, r7, r8
    strd r6, r7, [sp, #HIGH]
    ldmia r12, {r0, r1, r2, r6, r7}  /* r6: odd, r7: table */
    add r2, r1, r2, lsl #4
    mov r3, r7
    movs r6, #0
    movs r7, #0
    numerators2
    strd r6, r7, [r12, #28]
    ldmia r12, {r0, r1, r2}
    add r2, r1, r2, lsl #4
    adds r0, #8
    add r2, #8
    adds r1, #8
    ldrd r4, r5, [sp, #HIGH]
    movs r6, #0
    movs r7, #0
    numerators2
    strd r6, r7, [r12, #36]
    add sp, #FRAME
    pop {r0, r4-r11, pc}
    new_max r4, r8
    new_max r5, r9
    new_max r6, r10
    new_max r7, r11
    .size mcuf_softmax4_dsp, . - mcuf_softmax4_dsp

/* ---- int8 -> int16 ---- */

/* Four values of a token: pairs (0, 1) to `first`, (2, 3) to `second`. */
    .macro expand_four first, second
    sxtb16 lr, \first
    sxtb16 \first, \first, ror #8
    pkhtb \second, \first, lr, asr #16
    pkhbt \first, lr, \first, lsl #16
    .endm

    .macro expand_odd source, at
    ldrsb r4, [\source], #1
    uxth r4, r4
    cmp r2, #1
    it ne
    ldrsbne r5, [\source], #1
    it eq
    moveq r5, #0
    pkhbt r4, r4, r5, lsl #16
    str r4, [r3, #\at]
    .endm

/* Four values of four tokens. */
    .macro expand4_four
    ldr r5, [r0, r1]
    ldr r6, [r0, r1, lsl #1]
    ldr r4, [r0], #4
    ldr r7, [r8], #4
    expand_four r4, r9
    expand_four r5, r10
    expand_four r6, r11
    expand_four r7, r12
    stmia r3!, {r4, r5, r6, r7, r9, r10, r11, r12}
    .endm

    .global mcuf_expand4_dsp
    .type mcuf_expand4_dsp, %function
    .p2align 2
mcuf_expand4_dsp:
    push {r4-r11, lr}
    ldr r8, [sp, #36]                /* the fourth token */
    subs r2, #8
    blt 2f
1:  expand4_four
    expand4_four
    subs r2, #8
    bge 1b
2:  adds r2, #4                      /* four of 0 to 7 values */
    blt 2f
    expand4_four
    subs r2, #4
2:  adds r2, #4                      /* 0 to 3 values are left */
    ble 4f
    add r9, r0, r1
    add r10, r9, r1
3:  expand_odd r0, 0
    expand_odd r9, 4
    expand_odd r10, 8
    expand_odd r8, 12
    add r3, #16
    subs r2, #2
    bgt 3b
4:  pop {r4-r11, pc}
    .size mcuf_expand4_dsp, . - mcuf_expand4_dsp

/* ---- few outputs of tokens as they are, without a block: mcuf_fc_few(params, input, residual, output, tokens) ---- */

/* The frame: what mcuf_in_place_fc_params has (mcuf_block_dsp.c checks its offsets), and where the kernel is. */
    .equ FEW_ZERO_POINT, 0
    .equ FEW_INPUT, 4          /* of the present token; then residual or NULL, output, tokens left */
    .equ FEW_RESIDUAL, 8
    .equ FEW_OUTPUT, 12
    .equ FEW_INPUTS, 20
    .equ FEW_IN_STEP, 24       /* bytes from token to token */
    .equ FEW_ROWS, 28
    .equ FEW_ROW, 32           /* of the present pair */
    .equ FEW_WEIGHTS, 36
    .equ FEW_BIAS, 40          /* then multiplier, GELU table, scale of the residual */
    .equ FEW_GELU, 48
    .equ FEW_OUT_STEP, 56
    .equ FEW_REST, 60          /* inputs after the present chunk */
    .equ FEW_HIGH, 64          /* the second row's sum before it */
    .equ FEW_BYTES, 68         /* the outputs of a token that is read again for more */
    .equ FEW_FRAME, 84         /* with the saved registers a multiple of 8 */
    .equ FEW_CHUNK, 512        /* inputs: 2 * MCUF_DSP_MOST_WORDS */

    .macro product_row word, a
    smlad r12, \a, \word, r12
    .endm

    .macro product_pair word, a
    sxtb16 lr, \word
    smlad r3, \a, \word, r3
    smlad r12, \a, lr, r12
    .endm

/* r2 inputs at r0 times their weights at r1. */
    .macro few_sums product
    subs r2, #8
    blt 3f
2:  ldr r4, [r0], #4
    ldr r10, [r0], #4
    ldmia r1!, {r6, r7, r8, r9}
    expand_four r4, r5
    expand_four r10, r11
    \product r6, r4
    \product r7, r5
    \product r8, r10
    \product r9, r11
    subs r2, #8
    bge 2b
3:  adds r2, #8
    ble 5f
4:  ldr r6, [r1], #4
    ldrsb r4, [r0], #1
    cmp r2, #1
    ite eq
    moveq r5, #0
    ldrsbne r5, [r0], #1
    pkhbt r4, r4, r5, lsl #16
    \product r6, r4
    subs r2, #2
    bgt 4b
5:
    .endm

/* One or two rows alone, without residual and GELU, to r0: zero point, r2: input, r4: 0, r5: output, r6: tokens left,
 * r7: bias, r8: step of the input, r11: multiplier. */
    .macro few_state
    ldr r4, [sp, #FEW_ROWS]
    cmp r4, #2
    bgt few_finish
    ldmia sp, {r0, r2, r4-r8}
    ldrd r7, r11, [sp, #FEW_BIAS]
    ldr lr, [sp, #FEW_GELU]
    orrs lr, r4
    bne few_finish
    .endm

/* r4: the next token's residual, or NULL. */
    .macro few_next
    subs r6, #1
    beq few_end
    ldr lr, [sp, #FEW_OUT_STEP]
    add r2, r8
    add r5, lr
    add r0, sp, #FEW_INPUT
    stmia r0, {r2, r4, r5, r6}
    .endm

    .global mcuf_fc_few
    .type mcuf_fc_few, %function
    .p2align 2
mcuf_fc_few:
    push {r4-r11, lr}
    sub sp, #FEW_FRAME
    ldmia r0!, {r4-r7}               /* tokens, inputs, stride, rows */
    ldmia r0, {r0, r8-r12, lr}
    ldr r4, [sp, #FEW_FRAME + 36]
    movs r8, #0
    stmia sp, {r0-r12, lr}
    str r7, [sp, #FEW_OUT_STEP]
    strd r8, r8, [sp, #FEW_REST]
    cmp r7, r6
    bgt few_backwards
few_token:
    movs r3, #0
    ldr r1, [sp, #FEW_WEIGHTS]
few_rows:                            /* r3: the first */
    ldr r0, [sp, #FEW_INPUT]
    ldr r2, [sp, #FEW_INPUTS]
    ldr r4, [sp, #FEW_ROWS]
    str r3, [sp, #FEW_ROW]
    subs r4, r3
    mov r12, #0
    cmp r4, #1
    beq few_last_row
    movs r3, #0
    cmp r2, #FEW_CHUNK
    bgt few_chunks
few_pair:
    few_sums product_pair
    ldrd r4, r5, [sp, #FEW_REST]
    sub r3, r3, r12
    add r3, r5, r3, asr #8
    cbnz r4, few_next_chunk
    few_state
    ldrd r10, lr, [r7]
    add r12, r10
    add r3, lr
    ldrd r10, lr, [r11]
    smmlar r12, r12, r10, r0
    smmlar r3, r3, lr, r0
    ssat r12, #8, r12
    ssat r3, #8, r3
    strb r12, [r5]
    strb r3, [r5, #1]
    few_next
    mov r0, r2                       /* as few_token, but for the number of rows */
    ldr r1, [sp, #FEW_WEIGHTS]
    ldr r2, [sp, #FEW_INPUTS]
    mov r12, r4
    movs r3, #0
    cmp r2, #FEW_CHUNK
    ble few_pair
    b few_chunks
few_next_chunk:
    str r3, [sp, #FEW_HIGH]
    mov r3, r12
    mov r2, r4
    cmp r2, #FEW_CHUNK
    bgt few_chunk
    movs r4, #0
    str r4, [sp, #FEW_REST]
    b few_pair
few_chunks:
    str r3, [sp, #FEW_HIGH]
few_chunk:
    sub r4, r2, #FEW_CHUNK
    str r4, [sp, #FEW_REST]
    mov r2, #FEW_CHUNK
    b few_pair
few_last_row:                        /* its halfwords are its weights, since the missing row's are 0 */
    few_sums product_row
    few_state
    ldr r10, [r7]
    ldr lr, [r11]
    add r12, r10
    smmlar r12, r12, lr, r0
    ssat r12, #8, r12
    strb r12, [r5]
few_next_token:
    few_next
    b few_token
few_end:
    add sp, #FEW_FRAME
    pop {r4-r11, pc}
few_finish:                          /* r12: the first row's sum, r3: the second's */
    ldr r2, [sp, #FEW_ROW]
    ldr r8, [sp, #FEW_ROWS]
    ldr r9, [sp, #FEW_ZERO_POINT]
    add r0, sp, #FEW_BIAS
    ldmia r0, {r4-r7}
    ldr r10, [sp, #FEW_RESIDUAL]
    add r11, sp, #FEW_BYTES
few_row:
    ldr r0, [r4, r2, lsl #2]
    add r12, r0
    cmp r10, #0
    beq 1f
    ldrsb r0, [r10, r2]
    ldrsh lr, [r7, r2, lsl #1]
    mla r12, r0, lr, r12
1:  ldr r0, [r5, r2, lsl #2]
    smmlar r12, r12, r0, r9
    ssat r12, #8, r12
    cbz r6, 1f
    add r12, #128
    ldrb r12, [r6, r12]
1:  strb r12, [r11, r2]
    adds r2, #1
    cmp r2, r8
    beq 1f
    mov r12, r3
    lsls r0, r2, #31
    bne few_row
    mov r3, r2
    b few_rows
1:  ldr r0, [sp, #FEW_OUTPUT]
2:  subs r2, #1
    ldrb r4, [r11, r2]
    strb r4, [r0, r2]
    bne 2b
    ldr r8, [sp, #FEW_IN_STEP]
    add r0, sp, #FEW_INPUT
    ldmia r0, {r2, r4, r5, r6}
    cbz r4, 1f
    ldr r0, [sp, #FEW_OUT_STEP]
    add r4, r0
1:  b few_next_token
few_backwards:                       /* outputs take more than inputs */
    subs r8, r4, #1
    mla r1, r8, r6, r1
    mul r8, r8, r7
    add r3, r8
    cbz r2, 1f
    add r2, r8
1:  add r0, sp, #FEW_INPUT
    stmia r0, {r1, r2, r3}
    negs r6, r6
    negs r7, r7
    str r6, [sp, #FEW_IN_STEP]
    str r7, [sp, #FEW_OUT_STEP]
    b few_token
    .size mcuf_fc_few, . - mcuf_fc_few

/* Only relative positions need it: in a section of its own, so that other networks are linked without it. */
    .section .text.mcuf_weigh4_sums_dsp, "ax", %progbits
    function mcuf_weigh4_sums_dsp
    set_entry weigh4_sums_loop, 32
    ldr r1, [r0, #12]
    ldmia r0, {r0, r2}
    weigh_inputs4 weigh4_sums_loop
    ldr r5, [sp, #ARGS]
    ldr r5, [r5, #16]
    stmia r5, {r6-r12, lr}
    end_function mcuf_weigh4_sums_dsp
#endif

#if defined(__linux__) && defined(__ELF__)
    .section .note.GNU-stack, "", %progbits
#endif
