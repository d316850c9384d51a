/* SPDX-License-Identifier: Apache-2.0
 *
 * Reset of a Cortex-M: paints the stack, fills .data and .bss, turns on FPU, MVE and low-overhead loops, calls main. */
#include "board.h"

#define CPACR (*(volatile uint32_t*)0xE000ED88)
#define CCR (*(volatile uint32_t*)0xE000ED14)
#define CCR_UNALIGN_TRP (1u << 3)
#define CCR_LOB (1u << 19)

extern uint32_t __data_start[], __data_end[], __data_load[], __bss_start[], __bss_end[], __stack_top[];

__attribute__((noreturn, used)) static void start(void) {
  const uint32_t* source = __data_load;
  for (volatile uint32_t* word = __data_start; word < __data_end; ++word) *word = *source++;
  for (volatile uint32_t* word = __bss_start; word < __bss_end; ++word) *word = 0;
#if __ARM_ARCH < 7
  CCR |= CCR_UNALIGN_TRP; /* as on every Cortex-M0, should the machine have a larger core */
#else
  CPACR |= 0xFu << 20;
#if __ARM_ARCH >= 8
  CCR |= CCR_LOB;
#endif
  CCR &= ~CCR_UNALIGN_TRP;
#endif
  __asm__ volatile("dsb\n isb");
  board_start_counter();
  board_exit(main());
}

__attribute__((naked, used)) void Reset_Handler(void) {
  __asm__ volatile(
      ".syntax unified\n"
      "ldr r0, =__stack_limit\n"
      "ldr r1, =__stack_top\n"
      "mov sp, r1\n"
      "ldr r2, =0xA5A5A5A5\n"
      "1: cmp r0, r1\n"
      "bhs 2f\n"
      "str r2, [r0]\n"
      "adds r0, #4\n"
      "b 1b\n"
      "2: ldr r0, =start\n"
      "bx r0\n"
      ".ltorg");
}

static void fault(void) {
  uint32_t exception;
  __asm__("mrs %0, ipsr" : "=r"(exception));
  board_print("fault: exception ");
  board_print_number((int32_t)(exception & 0x1FF));
  board_print("\n");
  board_exit(70);
}

__attribute__((section(".vectors"), used)) void (*const vectors[16])(void) = {
    (void (*)(void))__stack_top,
    Reset_Handler,
    fault,
    fault,
    fault,
    fault,
    fault,
    fault,
    0,
    0,
    0,
    fault,
    fault,
    0,
    fault,
    fault,
};
