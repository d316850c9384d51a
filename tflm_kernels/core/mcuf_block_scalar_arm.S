/* SPDX-License-Identifier: Apache-2.0
 *
 * Loops of mcuf_block_scalar.h for Cortex-M without the DSP extension. */
#include "mcuf_target.h"

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

  .section .text.mcuf_scalar_pair4, "ax", %progbits
  .align 2
  .global mcuf_scalar_pair4
  .type mcuf_scalar_pair4, %function
  .thumb_func
/* r0: x, r1: w, r2: stride, r3: n; on the stack acc. Sums of the first row in r4 .. r7, of the second in r8 .. r11. */
mcuf_scalar_pair4:
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
  .size mcuf_scalar_pair4, . - mcuf_scalar_pair4

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

  .section .text.mcuf_scalar_quad1, "ax", %progbits
  .align 2
  .global mcuf_scalar_quad1
  .type mcuf_scalar_quad1, %function
  .thumb_func
/* r0: x, r1: w, r2: stride, r3: n; on the stack acc. Sums in r4 .. r7. */
mcuf_scalar_quad1:
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
  .size mcuf_scalar_quad1, . - mcuf_scalar_quad1
#endif /* MCUF_SCALAR_THUMB2 */
