/* SPDX-License-Identifier: Apache-2.0
 *
 * mcuf_scalar_quad() of mcuf_block_scalar.h in 16-bit Thumb: one token after another, four rows at once, so that each
 * weight is destroyed by the one product that it has part in. Sums are in the registers that products cannot reach. */
#include "mcuf_target.h"

#if MCUF_THUMB1
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

  .section .text.mcuf_scalar_quad, "ax", %progbits
  .align 2
  .global mcuf_scalar_quad
  .type mcuf_scalar_quad, %function
  .thumb_func
/* r0: x, r1: count, r2: w, r3: stride; on the stack: n, acc */
mcuf_scalar_quad:
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
  .size mcuf_scalar_quad, . - mcuf_scalar_quad
#endif /* MCUF_THUMB1 */
