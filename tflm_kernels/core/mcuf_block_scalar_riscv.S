/* SPDX-License-Identifier: Apache-2.0
 *
 * Loops of mcuf_block_scalar.h for 32-bit RISC-V with multiplication. */
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

/* All inputs, n of them: up to three one by one, the others in rounds of four. n is at LEFT of the stack too. */
.macro inputs step, tokens, left
  sw a3, \left(sp)
  andi ROUNDS, a3, 3
  beqz ROUNDS, 2f
1:
  \step 0
  advance 1, \tokens
  bnez ROUNDS, 1b
2:
  lw ROUNDS, \left(sp)
  srli ROUNDS, ROUNDS, 2
  beqz ROUNDS, 4f
3:
  \step 0
  \step 1
  \step 2
  \step 3
  advance 4, \tokens
  bnez ROUNDS, 3b
4:
.endm

/* a0: x, a1: w, a2: stride, a3: n, a4: acc. The sums of four rows are s0 .. s3, s4 .. s7, s8 .. s11, t3 .. t6. */
  .section .text.mcuf_scalar_quad4, "ax", @progbits
  .align 2
  .global mcuf_scalar_quad4
  .type mcuf_scalar_quad4, @function
mcuf_scalar_quad4:
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
  inputs step4, 4, 56
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
  .size mcuf_scalar_quad4, . - mcuf_scalar_quad4

/* The same of one token; the sums are t3 .. t6. */
  .section .text.mcuf_scalar_quad1, "ax", @progbits
  .align 2
  .global mcuf_scalar_quad1
  .type mcuf_scalar_quad1, @function
mcuf_scalar_quad1:
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
  inputs step1, 1, 8
  lw a4, 4(sp)
  sw t3, 0(a4)
  sw t4, 4(a4)
  sw t5, 8(a4)
  sw t6, 12(a4)
  lw ra, 0(sp)
  addi sp, sp, 16
  ret
  .size mcuf_scalar_quad1, . - mcuf_scalar_quad1
#endif /* MCUF_SCALAR_RISCV */
