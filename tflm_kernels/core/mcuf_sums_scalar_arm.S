/* SPDX-License-Identifier: Apache-2.0
 *
 * Loops of mcuf_sums_scalar.h for Cortex-M without the DSP extension. */
#include "mcuf_target.h"

/* Offsets in mcuf_scalar_sums. */
#define SUMS_X 0
#define SUMS_W 4
#define SUMS_STRIDE 8
#define SUMS_N 12
#define SUMS_ROWS 16
#define SUMS_COUNT 20
#define SUMS_ACC 24
#define SUMS_K 28

#ifdef MCUF_SCALAR_THUMB1
/* One token after another, four rows at once, so that each weight is destroyed by the one product that it has part in.
 * Sums are in the registers that products cannot reach. */
  .syntax unified

#define X r0
#define I r1
#define W0 r2
#define W1 r3
#define W2 r4
#define W3 r5
#define VALUE r6
#define PRODUCT r7
#define ADVANCE r12
#define TOKENS lr

/* Steps in a round, bytes of a step, and what lies on the stack. */
#define STEPS 4
#define STEP_BYTES 30
#define ENTRY 0     /* where the loop begins */
#define TOKEN_ACC 4 /* the token's first sum */
#define TOKEN_X 8
#define MINUS_N 12
#define ROW_BYTES 16 /* of sums */
#define LOCALS 20
#define ARGS (LOCALS + 36)

.macro multiply row, sum
  ldrsb PRODUCT, [\row, I]
  muls PRODUCT, VALUE
  add \sum, PRODUCT
.endm

.macro load_sum sum
  ldr X, [r7]
  mov \sum, X
.endm

.macro store_sum sum
  mov X, \sum
  str X, [r7]
.endm

  .section .text.mcuf_halfwords_quad, "ax", %progbits
  .align 2
  .global mcuf_halfwords_quad
  .type mcuf_halfwords_quad, %function
  .thumb_func
/* r0: x, r1: count, r2: w, r3: stride; on the stack: n, acc */
mcuf_halfwords_quad:
  push {r4-r7, lr}
  mov r4, r8
  mov r5, r9
  mov r6, r10
  mov r7, r11
  push {r4-r7}
  sub sp, #LOCALS
  mov TOKENS, r1
  lsls r1, #2
  str r1, [sp, #ROW_BYTES]
  lsrs r1, #1
  subs r1, #1 /* a value is 2 * count bytes behind the last, and I moves on by one of them */
  mov ADVANCE, r1
  ldr r6, [sp, #ARGS]
  ldr r7, [sp, #(ARGS + 4)]
  str r7, [sp, #TOKEN_ACC]
  adds X, r6
  str X, [sp, #TOKEN_X]
  adds W0, r6 /* rows end there, I counts up to 0 */
  adds W2, W1, W1
  adds W3, W2, W1
  adds W1, W0
  adds W2, W0
  adds W3, W0
  negs I, r6
  str I, [sp, #MINUS_N]
  movs r7, #(STEPS - 1)
  ands r7, I
  movs r6, #STEP_BYTES
  muls r7, r6
  adr r6, 2f
  adds r7, r6
  str r7, [sp, #ENTRY]
1:
  ldr r6, [sp, #ROW_BYTES]
  ldr r7, [sp, #TOKEN_ACC]
  load_sum r8
  adds r7, r6
  load_sum r9
  adds r7, r6
  load_sum r10
  adds r7, r6
  load_sum r11
  ldr X, [sp, #TOKEN_X]
  ldr I, [sp, #MINUS_N]
  ldr r6, [sp, #ENTRY]
  mov pc, r6
  .align 2
2:
.rept STEPS
  ldrsh VALUE, [X, I]
  multiply W0, r8
  multiply W1, r9
  multiply W2, r10
  multiply W3, r11
  add X, ADVANCE
  adds I, #1
.endr
  bne 2b
  ldr r6, [sp, #ROW_BYTES]
  ldr r7, [sp, #TOKEN_ACC]
  store_sum r8
  adds r7, r6
  store_sum r9
  adds r7, r6
  store_sum r10
  adds r7, r6
  store_sum r11
  ldr r7, [sp, #TOKEN_ACC]
  adds r7, #4
  str r7, [sp, #TOKEN_ACC]
  ldr X, [sp, #TOKEN_X]
  adds X, #2
  str X, [sp, #TOKEN_X]
  mov r6, TOKENS
  subs r6, #1
  mov TOKENS, r6
  bne 1b
  add sp, #LOCALS
  pop {r4-r7}
  mov r8, r4
  mov r9, r5
  mov r10, r6
  mov r11, r7
  pop {r4-r7, pc}
  .size mcuf_halfwords_quad, . - mcuf_halfwords_quad

/* ---- words: two rows of two tokens at once ---- */
#undef X
#undef W0
#undef W1
#undef I
#undef ENTRY
#undef STEPS
#undef STEP_BYTES
#undef MINUS_N
#undef ROW_BYTES
#undef LOCALS
#undef ARGS
#define X r0
#define W0 r1
#define W1 r2
#define I r3
#define A r4
#define B r5
#define P0 r6
#define P1 r7
#define ROUND r12
#define SUMS lr
#define STEPS 4 /* of two inputs */
#define STEP_BYTES 42
#define ENTRY 0  /* where the loop begins, */
#define FIRST 4  /* perhaps after one input of an odd number */
#define ACC 8    /* the first token's sum of the first row */
#define PAIR_X 12
#define PAIRS 16 /* of tokens that are left, */
#define ROWS 20  /* and rows */
#define MINUS_N 24
#define ROW_BYTES 28 /* of sums */
#define LOCALS 32

.macro add_word product, whole, second
  add \whole, \product
  add \product, ROUND
  asrs \product, #16
  add \second, \product
.endm

/* The sums of two tokens at r7. */
.macro load_two whole, second
  ldr r4, [r7]
  ldr r5, [r7, #4]
  mov \second, r5
  lsls r5, #16
  adds r4, r5
  mov \whole, r4
.endm

.macro store_two whole, second
  mov r4, \whole
  mov r5, \second
  str r5, [r7, #4]
  lsls r5, #16
  subs r4, r5
  str r4, [r7]
.endm

  .section .text.mcuf_add_words_thumb1, "ax", %progbits
  .align 2
  .global mcuf_add_words_thumb1
  .type mcuf_add_words_thumb1, %function
  .thumb_func
/* The rows end at W0 and W1, I counts up to 0. Whole sums are in r8 and r10, the second tokens' in r9 and r11. */
mcuf_add_words_thumb1:
  push {r4-r7, lr}
  mov r4, r8
  mov r5, r9
  mov r6, r10
  mov r7, r11
  push {r4-r7}
  sub sp, #LOCALS
  mov SUMS, r0
  ldr r4, [r0, #SUMS_ACC]
  str r4, [sp, #ACC]
  ldr r4, [r0, #SUMS_COUNT]
  lsls r4, #2
  str r4, [sp, #ROW_BYTES]
  ldr r4, [r0, #SUMS_ROWS]
  str r4, [sp, #ROWS]
  ldr W0, [r0, #SUMS_W]
  ldr I, [r0, #SUMS_N]
  movs r4, #1
  lsls r4, #15
  mov ROUND, r4
  adr r5, 4f
  lsrs r4, I, #1
  beq 1f /* one input alone */
  adr r5, 3f
  negs r4, r4
  movs r6, #(STEPS - 1)
  ands r4, r6
  movs r6, #STEP_BYTES
  muls r4, r6
  adds r5, r4
1:
  str r5, [sp, #ENTRY]
  lsls r4, I, #31
  beq 1f
  adr r5, 2f
1:
  str r5, [sp, #FIRST]
  negs I, I
  str I, [sp, #MINUS_N]
5: /* two rows from W0 on */
  mov r4, SUMS
  ldr r5, [r4, #SUMS_X]
  str r5, [sp, #PAIR_X]
  ldr r5, [r4, #SUMS_COUNT]
  lsrs r5, #1
  str r5, [sp, #PAIRS]
  ldr r5, [r4, #SUMS_N]
  adds W0, r5
  mov W1, W0
  ldr r5, [sp, #ROWS]
  cmp r5, #1
  beq 6f
  ldr r5, [r4, #SUMS_STRIDE]
  adds W1, r5
6: /* two tokens */
  ldr r7, [sp, #ACC]
  load_two r8, r9
  ldr r5, [sp, #ROW_BYTES]
  adds r7, r5
  load_two r10, r11
  ldr X, [sp, #PAIR_X]
  ldr I, [sp, #MINUS_N]
  ldr r4, [sp, #FIRST]
  mov pc, r4
  .align 2
2:
  ldmia X!, {A}
  ldrsb P0, [W0, I]
  muls P0, A
  ldrsb P1, [W1, I]
  muls P1, A
  add_word P0, r8, r9
  add_word P1, r10, r11
  adds I, #1
  ldr r4, [sp, #ENTRY]
  mov pc, r4
  .align 2
3:
.rept STEPS
  ldmia X!, {A, B}
  ldrsb P0, [W0, I]
  muls P0, A
  ldrsb P1, [W1, I]
  muls P1, A
  adds I, #1
  ldrsb A, [W0, I]
  muls A, B
  adds P0, A
  ldrsb A, [W1, I]
  muls A, B
  adds P1, A
  add_word P0, r8, r9
  add_word P1, r10, r11
  adds I, #1
.endr
  bne 3b
  .align 2
4:
  ldr r7, [sp, #ACC]
  store_two r8, r9
  movs r5, #8
  ldr r6, [sp, #ROW_BYTES]
  adds r5, r7
  str r5, [sp, #ACC]
  adds r7, r6
  store_two r10, r11
  mov r4, SUMS
  ldr r5, [r4, #SUMS_K]
  adds r5, #1
  lsrs r5, #1
  lsls r5, #3
  ldr r6, [sp, #PAIR_X]
  adds r6, r5
  str r6, [sp, #PAIR_X]
  ldr r5, [sp, #PAIRS]
  subs r5, #1
  str r5, [sp, #PAIRS]
  beq 7f
  b 6b
7:
  ldr r5, [sp, #ACC]
  ldr r6, [sp, #ROW_BYTES]
  adds r5, r6
  str r5, [sp, #ACC]
  ldr r5, [r4, #SUMS_STRIDE]
  ldr r6, [r4, #SUMS_N]
  subs r5, r6
  adds W0, r5
  ldr r5, [r4, #SUMS_STRIDE]
  adds W0, r5
  ldr r5, [sp, #ROWS]
  subs r5, #2
  str r5, [sp, #ROWS]
  ble 8f
  b 5b
8:
  add sp, #LOCALS
  pop {r4-r7}
  mov r8, r4
  mov r9, r5
  mov r10, r6
  mov r11, r7
  pop {r4-r7, pc}
  .size mcuf_add_words_thumb1, . - mcuf_add_words_thumb1
#endif /* MCUF_SCALAR_THUMB1 */

#ifdef MCUF_SCALAR_THUMB2
  .syntax unified

/* Where n inputs begin in a loop of `steps` steps of `bytes` bytes, to r5. n: r3; r4 and r6 are free. */
.macro entry_of steps, bytes, loop
  negs r4, r3
  and r4, r4, #(\steps - 1)
  movs r5, #\bytes
  adr r6, \loop
  mla r5, r4, r5, r6
.endm

#define X r0
#define W r1
#define STRIDE r2
#define VALUE r3
#define FIRST r12
#define SECOND lr
#define PAIR_STEPS 8
#define PAIR_STEP_BYTES 56

.macro value first, second
  ldrsh VALUE, [X], #2
  mla \first, FIRST, VALUE, \first
  mla \second, SECOND, VALUE, \second
.endm

  .section .text.mcuf_halfwords_pair4, "ax", %progbits
  .align 2
  .global mcuf_halfwords_pair4
  .type mcuf_halfwords_pair4, %function
  .thumb_func
/* r0: x, r1: w, r2: stride, r3: n; on the stack acc. Sums of the first row in r4 .. r7, of the second in r8 .. r11. */
mcuf_halfwords_pair4:
  push {r4-r11, lr}
  entry_of PAIR_STEPS, PAIR_STEP_BYTES, 1f
  add r3, r1
  push {r3, r5} /* the row's end, and what is left of the stack's 8 bytes */
  ldr r12, [sp, #44]
  mov r3, r5
  ldm r12, {r4-r11}
  mov pc, r3
  .align 2
1:
.rept PAIR_STEPS
  ldrsb SECOND, [W, STRIDE]
  ldrsb FIRST, [W], #1
  value r4, r8
  value r5, r9
  value r6, r10
  value r7, r11
.endr
  ldr VALUE, [sp]
  cmp W, VALUE
  bne 1b
  ldr r12, [sp, #44]
  stm r12, {r4-r11}
  add sp, #8
  pop {r4-r11, pc}
  .size mcuf_halfwords_pair4, . - mcuf_halfwords_pair4

#define W0 r1
#define W1 r2
#define W2 r8
#define W3 r9
#define WEIGHT r12
#define END lr
#define QUAD_STEPS 8
#define QUAD_STEP_BYTES 36

.macro weight row, sum
  ldrsb WEIGHT, [\row], #1
  mla \sum, WEIGHT, VALUE, \sum
.endm

  .section .text.mcuf_halfwords_quad1, "ax", %progbits
  .align 2
  .global mcuf_halfwords_quad1
  .type mcuf_halfwords_quad1, %function
  .thumb_func
/* r0: x, r1: w, r2: stride, r3: n; on the stack acc. Sums in r4 .. r7. */
mcuf_halfwords_quad1:
  push {r4-r9, lr}
  entry_of QUAD_STEPS, QUAD_STEP_BYTES, 1f
  add END, X, r3, lsl #1
  add W2, W0, STRIDE, lsl #1
  add W3, W2, STRIDE
  add W1, W0 /* the stride is not needed again */
  ldr r12, [sp, #28]
  mov r3, r5
  ldm r12, {r4-r7}
  mov pc, r3
  .align 2
1:
.rept QUAD_STEPS
  ldrsh VALUE, [X], #2
  weight W0, r4
  weight W1, r5
  weight W2, r6
  weight W3, r7
.endr
  cmp X, END
  bne 1b
  ldr r12, [sp, #28]
  stm r12, {r4-r7}
  pop {r4-r9, pc}
  .size mcuf_halfwords_quad1, . - mcuf_halfwords_quad1
/* ---- words: a row of four tokens at once ---- */
#undef X
#undef W
#undef END
#define X r0
#define W r1
#define WA r6
#define WB r7
#define ROUND r12
#define END lr
#define ROW_STEPS 8 /* of two inputs */
#define ROW_STEP_BYTES 44

  .section .text.mcuf_add_words4_thumb2, "ax", %progbits
  .align 2
  .global mcuf_add_words4_thumb2
  .type mcuf_add_words4_thumb2, %function
  .thumb_func
/* Whole sums are in r8 and r10, the second tokens' in r9 and r11; the whole has ROUND from each of its parts too. On the
 * stack: sums, acc, where the loop begins, rows, what ROUNDs add up to, next row. */
mcuf_add_words4_thumb2:
  push {r4-r11, lr}
  ldrd r6, r7, [r0, #SUMS_STRIDE] /* and n */
  ldr W, [r0, #SUMS_W]
  ldr r3, [r0, #SUMS_ACC]
  ldr r5, [r0, #SUMS_ROWS]
  mov ROUND, #0x8000
  adds r2, r7, #1
  lsrs r2, r2, #1
  lsls r8, r2, #15
  lsrs r4, r7, #1
  negs r4, r4
  and r4, r4, #(ROW_STEPS - 1)
  mov r2, #ROW_STEP_BYTES
  adr r9, 2f
  mla r4, r4, r2, r9
  subs r9, r6, r7 /* from a row's end to the next row */
  push {r0, r3, r4, r5, r8, r9}
1:
  ldrd r2, r3, [sp] /* sums, acc */
  ldr r4, [sp, #16]
  ldm r3, {r8-r11}
  ldr X, [r2, #SUMS_X]
  ldr r5, [r2, #SUMS_N]
  add END, W, r5
  add r8, r8, r9, lsl #16
  add r10, r10, r11, lsl #16
  subs r8, r8, r4
  subs r10, r10, r4
  tst r5, #1
  ldr r4, [sp, #8]
  it eq
  moveq pc, r4
  ldrsb WA, [W], #1
  ldm X!, {r2, r3}
  mla r2, WA, r2, ROUND
  add r8, r8, r2
  add r9, r9, r2, asr #16
  mla r3, WA, r3, ROUND
  add r10, r10, r3
  add r11, r11, r3, asr #16
  cmp W, END
  beq 3f
  mov pc, r4
  .align 2
2:
.rept ROW_STEPS
  ldmia.w X!, {r2-r5}
  ldrsb.w WA, [W], #1
  ldrsb.w WB, [W], #1
  mla r2, WA, r2, ROUND
  mla r2, WB, r4, r2
  add.w r8, r8, r2
  add.w r9, r9, r2, asr #16
  mla r3, WA, r3, ROUND
  mla r3, WB, r5, r3
  add.w r10, r10, r3
  add.w r11, r11, r3, asr #16
.endr
  cmp W, END
  bne 2b
3:
  ldr r3, [sp, #4]
  sub r8, r8, r9, lsl #16
  sub r10, r10, r11, lsl #16
  stm r3!, {r8-r11}
  str r3, [sp, #4]
  ldr r4, [sp, #20]
  add W, W, r4
  ldr r4, [sp, #12]
  subs r4, r4, #1
  str r4, [sp, #12]
  bne 1b
  add sp, #24
  pop {r4-r11, pc}
  .size mcuf_add_words4_thumb2, . - mcuf_add_words4_thumb2
#endif /* MCUF_SCALAR_THUMB2 */
