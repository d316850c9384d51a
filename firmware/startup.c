/* SPDX-License-Identifier: Apache-2.0
 *
 * Reset: paints the stack, fills .data and .bss, turns on FPU, MVE and low-overhead loops, calls main. */
#include "board.h"
#include "semihosting.h"

#define STACK_PAINT 0xA5A5A5A5u

#define CPACR (*(volatile uint32_t*)0xE000ED88)
#define CCR (*(volatile uint32_t*)0xE000ED14)
#define CCR_UNALIGN_TRP (1u << 3)
#define CCR_LOB (1u << 19)

extern uint32_t __data_start[], __data_end[], __data_load[], __bss_start[], __bss_end[], __stack_limit[], __stack_top[];

__attribute__((noreturn)) void board_exit(int status) {
  const uint32_t arguments[2] = {0x20026u /* ADP_Stopped_ApplicationExit */, (uint32_t)status};
  for (;;) semihosting(SEMIHOSTING_EXIT_EXTENDED, arguments);
}

__attribute__((noreturn, used)) static void start(void) {
  const uint32_t* source = __data_load;
  for (volatile uint32_t* word = __data_start; word < __data_end; ++word) *word = *source++;
  for (volatile uint32_t* word = __bss_start; word < __bss_end; ++word) *word = 0;
  CPACR |= 0xFu << 20;
#if __ARM_ARCH >= 8
  CCR |= CCR_LOB;
#endif
  CCR &= ~CCR_UNALIGN_TRP;
  __asm__ volatile("dsb\n isb");
  board_start_counter();
  board_exit(main());
}

__attribute__((naked, used)) void Reset_Handler(void) {
  __asm__ volatile(
      "ldr r0, =__stack_limit\n"
      "ldr r1, =__stack_top\n"
      "mov sp, r1\n"
      "ldr r2, =0xA5A5A5A5\n"
      "1: cmp r0, r1\n"
      "it lo\n"
      "strlo r2, [r0], #4\n"
      "blo 1b\n"
      "b start\n"
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

static inline uint32_t* stack_pointer(void) {
  uint32_t* sp;
  __asm__ volatile("mov %0, sp" : "=r"(sp));
  return sp;
}

__attribute__((noinline)) void board_paint_stack(void) {
  for (volatile uint32_t* word = __stack_limit; word < stack_pointer(); ++word) *word = STACK_PAINT;
}

__attribute__((noinline)) uint32_t board_stack_used(void) {
  const uint32_t* word = __stack_limit;
  while (word < __stack_top && *word == STACK_PAINT) ++word;
  return (uint32_t)(__stack_top - word) * 4;
}

__attribute__((noinline)) uint32_t board_stack_here(void) { return (uint32_t)(__stack_top - stack_pointer()) * 4; }
