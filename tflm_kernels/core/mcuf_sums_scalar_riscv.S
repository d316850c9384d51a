/* SPDX-License-Identifier: Apache-2.0
 *
 * Loops of mcuf_sums_scalar.h for 32-bit RISC-V with multiplication. */
#include "mcuf_target.h"

#if MCUF_SCALAR_RISCV

#define X a0
#define W0 a1
#define W1 a2
#define W2 a4
#define W3 ra
#define ROUNDS a3
#define P0 t0
#define P1 t1
#define P2 t2
#define P3 a5
#define VALUE a6
#define PRODUCT a7

/* One value of a token, and the four weights. */
.macro token at, s0, s1, s2, s3
  lh VALUE, \at(X)
  mul PRODUCT, P0, VALUE
  add \s0, \s0, PRODUCT
  mul PRODUCT, P1, VALUE
  add \s1, \s1, PRODUCT
  mul PRODUCT, P2, VALUE
  add \s2, \s2, PRODUCT
  mul PRODUCT, P3, VALUE
  add \s3, \s3, PRODUCT
.endm

.macro step4 input
  lb P0, \input(W0)
  lb P1, \input(W1)
  lb P2, \input(W2)
  lb P3, \input(W3)
  token 8 * \input, s0, s4, s8, t3
  token 8 * \input + 2, s1, s5, s9, t4
  token 8 * \input + 4, s2, s6, s10, t5
  token 8 * \input + 6, s3, s7, s11, t6
.endm

.macro step1 input
  lb P0, \input(W0)
  lb P1, \input(W1)
  lb P2, \input(W2)
  lb P3, \input(W3)
  token 2 * \input, t3, t4, t5, t6
.endm

.macro advance inputs, tokens
  addi X, X, 2 * \inputs * \tokens
  addi W0, W0, \inputs
  addi W1, W1, \inputs
  addi W2, W2, \inputs
  addi W3, W3, \inputs
  addi ROUNDS, ROUNDS, -1
.endm

.macro four_steps step
  \step 0
  \step 1
  \step 2
  \step 3
.endm

.macro eight_steps step
  four_steps \step
  \step 4
  \step 5
  \step 6
  \step 7
.endm

/* All inputs, n of them: the rest of rounds of 2^log one by one, and the rounds. n is kept at LEFT of the stack. */
.macro inputs step, round, log, tokens, left
  sw a3, \left(sp)
  andi ROUNDS, a3, (1 << \log) - 1
  beqz ROUNDS, 2f
1:
  \step 0
  advance 1, \tokens
  bnez ROUNDS, 1b
2:
  lw ROUNDS, \left(sp)
  srli ROUNDS, ROUNDS, \log
  beqz ROUNDS, 4f
3:
  \round \step
  advance (1 << \log), \tokens
  bnez ROUNDS, 3b
4:
.endm

/* a0: x, a1: w, a2: stride, a3: n, a4: acc. The sums of four rows are s0 .. s3, s4 .. s7, s8 .. s11, t3 .. t6. */
  .section .text.mcuf_halfwords_quad4, "ax", @progbits
  .align 2
  .global mcuf_halfwords_quad4
  .type mcuf_halfwords_quad4, @function
mcuf_halfwords_quad4:
  addi sp, sp, -64
  sw ra, 0(sp)
  sw s0, 4(sp)
  sw s1, 8(sp)
  sw s2, 12(sp)
  sw s3, 16(sp)
  sw s4, 20(sp)
  sw s5, 24(sp)
  sw s6, 28(sp)
  sw s7, 32(sp)
  sw s8, 36(sp)
  sw s9, 40(sp)
  sw s10, 44(sp)
  sw s11, 48(sp)
  sw a4, 52(sp)
  lw s0, 0(a4)
  lw s1, 4(a4)
  lw s2, 8(a4)
  lw s3, 12(a4)
  lw s4, 16(a4)
  lw s5, 20(a4)
  lw s6, 24(a4)
  lw s7, 28(a4)
  lw s8, 32(a4)
  lw s9, 36(a4)
  lw s10, 40(a4)
  lw s11, 44(a4)
  lw t3, 48(a4)
  lw t4, 52(a4)
  lw t5, 56(a4)
  lw t6, 60(a4)
  slli W2, a2, 1
  add W3, W2, a2
  add W2, W2, W0
  add W3, W3, W0
  add W1, a2, W0
  inputs step4, four_steps, 2, 4, 56
  lw a4, 52(sp)
  sw s0, 0(a4)
  sw s1, 4(a4)
  sw s2, 8(a4)
  sw s3, 12(a4)
  sw s4, 16(a4)
  sw s5, 20(a4)
  sw s6, 24(a4)
  sw s7, 28(a4)
  sw s8, 32(a4)
  sw s9, 36(a4)
  sw s10, 40(a4)
  sw s11, 44(a4)
  sw t3, 48(a4)
  sw t4, 52(a4)
  sw t5, 56(a4)
  sw t6, 60(a4)
  lw ra, 0(sp)
  lw s0, 4(sp)
  lw s1, 8(sp)
  lw s2, 12(sp)
  lw s3, 16(sp)
  lw s4, 20(sp)
  lw s5, 24(sp)
  lw s6, 28(sp)
  lw s7, 32(sp)
  lw s8, 36(sp)
  lw s9, 40(sp)
  lw s10, 44(sp)
  lw s11, 48(sp)
  addi sp, sp, 64
  ret
  .size mcuf_halfwords_quad4, . - mcuf_halfwords_quad4

/* The same of one token; the sums are t3 .. t6. */
  .section .text.mcuf_halfwords_quad1, "ax", @progbits
  .align 2
  .global mcuf_halfwords_quad1
  .type mcuf_halfwords_quad1, @function
mcuf_halfwords_quad1:
  addi sp, sp, -16
  sw ra, 0(sp)
  sw a4, 4(sp)
  lw t3, 0(a4)
  lw t4, 4(a4)
  lw t5, 8(a4)
  lw t6, 12(a4)
  slli W2, a2, 1
  add W3, W2, a2
  add W2, W2, W0
  add W3, W3, W0
  add W1, a2, W0
  inputs step1, eight_steps, 3, 1, 8
  lw a4, 4(sp)
  sw t3, 0(a4)
  sw t4, 4(a4)
  sw t5, 8(a4)
  sw t6, 12(a4)
  lw ra, 0(sp)
  addi sp, sp, 16
  ret
  .size mcuf_halfwords_quad1, . - mcuf_halfwords_quad1
/* ---- words: two rows of four tokens at once ---- */
#undef W0
#undef W1
#define W0 a1
#define W1 a2
#define END a3
#define ROUND t6
#define SUM t4
#define MORE t5

/* Words \a and \b of two tokens with weights \p and \q: to the whole and the second token's sums. */
.macro words p, a, q, b, whole, second
  mul SUM, \p, \a
  mul MORE, \q, \b
  add SUM, SUM, MORE
  add \whole, \whole, SUM
  add SUM, SUM, ROUND
  srai SUM, SUM, 16
  add \second, \second, SUM
.endm

.macro word p, a, whole, second
  mul SUM, \p, \a
  add \whole, \whole, SUM
  add SUM, SUM, ROUND
  srai SUM, SUM, 16
  add \second, \second, SUM
.endm

.macro step_words i
  lw a4, 16 * \i(X)
  lw a5, 16 * \i + 4(X)
  lw a6, 16 * \i + 8(X)
  lw a7, 16 * \i + 12(X)
  lb t0, 2 * \i(W0)
  lb t1, 2 * \i + 1(W0)
  lb t2, 2 * \i(W1)
  lb t3, 2 * \i + 1(W1)
  words t0, a4, t1, a6, s0, s1
  words t0, a5, t1, a7, s2, s3
  words t2, a4, t3, a6, s4, s5
  words t2, a5, t3, a7, s6, s7
.endm

.macro load_two at, whole, second
  lw \whole, \at(s8)
  lw \second, \at + 4(s8)
  slli t0, \second, 16
  add \whole, \whole, t0
.endm

.macro store_two at, whole, second
  slli t0, \second, 16
  sub \whole, \whole, t0
  sw \whole, \at(s8)
  sw \second, \at + 4(s8)
.endm

/* a0: x, a1: w, a2: stride, a3: n, a4: acc. Whole sums are in s0, s2, s4, s6, the second tokens' in s1, s3, s5, s7. */
  .section .text.mcuf_add_words4_riscv, "ax", @progbits
  .align 2
  .global mcuf_add_words4_riscv
  .type mcuf_add_words4_riscv, @function
mcuf_add_words4_riscv:
  addi sp, sp, -48
  sw s0, 0(sp)
  sw s1, 4(sp)
  sw s2, 8(sp)
  sw s3, 12(sp)
  sw s4, 16(sp)
  sw s5, 20(sp)
  sw s6, 24(sp)
  sw s7, 28(sp)
  sw s8, 32(sp)
  mv s8, a4
  load_two 0, s0, s1
  load_two 8, s2, s3
  load_two 16, s4, s5
  load_two 24, s6, s7
  li ROUND, 0x8000
  add W1, W1, W0
  andi t0, a3, 1
  add END, a3, W0
  beqz t0, 1f
  lw a4, 0(X)
  lw a5, 4(X)
  lb t2, 0(W0)
  lb t3, 0(W1)
  addi X, X, 8
  addi W0, W0, 1
  addi W1, W1, 1
  word t2, a4, s0, s1
  word t2, a5, s2, s3
  word t3, a4, s4, s5
  word t3, a5, s6, s7
1:
  sub MORE, END, W0
  andi MORE, MORE, 6
  add MORE, MORE, W0
  sw MORE, 36(sp) /* the end of steps one by one */
  beq MORE, W0, 3f
2:
  step_words 0
  addi X, X, 16
  addi W0, W0, 2
  addi W1, W1, 2
  lw t0, 36(sp)
  bne W0, t0, 2b
3:
  beq W0, END, 5f
4:
  step_words 0
  step_words 1
  step_words 2
  step_words 3
  addi X, X, 64
  addi W0, W0, 8
  addi W1, W1, 8
  bne W0, END, 4b
5:
  store_two 0, s0, s1
  store_two 8, s2, s3
  store_two 16, s4, s5
  store_two 24, s6, s7
  lw s0, 0(sp)
  lw s1, 4(sp)
  lw s2, 8(sp)
  lw s3, 12(sp)
  lw s4, 16(sp)
  lw s5, 20(sp)
  lw s6, 24(sp)
  lw s7, 28(sp)
  lw s8, 32(sp)
  addi sp, sp, 48
  ret
  .size mcuf_add_words4_riscv, . - mcuf_add_words4_riscv
#endif /* MCUF_SCALAR_RISCV */
