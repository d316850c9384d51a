/* SPDX-License-Identifier: Apache-2.0
 *
 * Reset of a 32-bit RISC-V in machine mode: paints the stack, fills .data and .bss, calls main. */
#include "board.h"

extern uint32_t __data_start[], __data_end[], __data_load[], __bss_start[], __bss_end[];

__attribute__((noreturn, used)) static void start(void) {
  const uint32_t* source = __data_load;
  for (volatile uint32_t* word = __data_start; word < __data_end; ++word) *word = *source++;
  for (volatile uint32_t* word = __bss_start; word < __bss_end; ++word) *word = 0;
  board_start_counter();
  board_exit(main());
}

__attribute__((noreturn, used, aligned(4))) static void fault(uint32_t cause) {
  board_print("fault: cause ");
  board_print_number((int32_t)cause);
  board_print("\n");
  board_exit(70);
}

/* Where the machine begins. */
__attribute__((naked, section(".vectors"), used)) void first_instruction(void) {
  __asm__ volatile("tail Reset_Handler");
}

__attribute__((naked, used)) void Reset_Handler(void) {
  __asm__ volatile(
      ".option arch, +zicsr\n"
      "la t0, 3f\n"
      "csrw mtvec, t0\n"
      "la t1, __stack_limit\n"
      "la sp, __stack_top\n"
      "andi sp, sp, -16\n"
      "li t2, 0xA5A5A5A5\n"
      "1: bgeu t1, sp, 2f\n"
      "sw t2, 0(t1)\n"
      "addi t1, t1, 4\n"
      "j 1b\n"
      "2: tail start\n"
      ".balign 4\n"
      "3: csrr a0, mcause\n"
      "tail fault");
}
