/* SPDX-License-Identifier: Apache-2.0 */
#include "board.h"

#include "semihosting.h"

#define STACK_PAINT 0xA5A5A5A5u /* as the startup code paints it */

__attribute__((noreturn)) void board_exit(int status) {
  const uint32_t arguments[2] = {0x20026u /* ADP_Stopped_ApplicationExit */, (uint32_t)status};
  for (;;) semihosting(SEMIHOSTING_EXIT_EXTENDED, arguments);
}

void board_print(const char* text) { semihosting(SEMIHOSTING_WRITE0, text); }

void board_print_number(int32_t value) {
  char text[12];
  char* at = text + sizeof(text) - 1;
  uint32_t left = value < 0 ? 0u - (uint32_t)value : (uint32_t)value;
  *at = '\0';
  do *--at = (char)('0' + left % 10);
  while ((left /= 10) != 0);
  if (value < 0) *--at = '-';
  board_print(at);
}

int32_t board_open(const char* name) {
  uint32_t length = 0;
  while (name[length] != '\0') ++length;
  const uint32_t arguments[3] = {(uint32_t)(uintptr_t)name, 1 /* "rb" */, length};
  return semihosting(SEMIHOSTING_OPEN, arguments);
}

int32_t board_seek(int32_t file, uint32_t position) {
  const uint32_t arguments[2] = {(uint32_t)file, position};
  return semihosting(SEMIHOSTING_SEEK, arguments);
}

int32_t board_read(int32_t file, void* target, uint32_t bytes) {
  const uint32_t arguments[3] = {(uint32_t)file, (uint32_t)(uintptr_t)target, bytes};
  return semihosting(SEMIHOSTING_READ, arguments);
}

#if defined(__riscv) /* instructions retired; QEMU's -icount counts nanoseconds there, 64 an instruction */
static uint32_t to_instructions(uint32_t ticks) { return ticks; }
void board_start_counter(void) {}
__attribute__((noipa)) uint32_t board_ticks(void) {
  uint32_t low, high = 0, again = 0;
  do { /* until both halves belong together */
    __asm__ volatile(
        ".option push\n"
        ".option arch, +zicsr\n"
        "csrr %1, minstreth\n"
        "csrr %0, minstret\n"
        "csrr %2, minstreth\n"
        ".option pop"
        : "=&r"(low), "=&r"(high), "=&r"(again));
  } while (high != again);
  return high << 26 | low >> 6;
}
#elif defined(__ARM_FEATURE_MVE) /* mps3-an547: the system counter, 32 MHz */
#define COUNTER_CONTROL (*(volatile uint32_t*)0x58100000)
#define COUNTER_VALUE (*(volatile uint32_t*)0x58100008)
/* 64 ns per instruction, 31.25 ns per tick */
static uint32_t to_instructions(uint32_t ticks) { return (uint32_t)(((uint64_t)ticks * 125 + 128) >> 8); }
void board_start_counter(void) { COUNTER_CONTROL = 1; }
__attribute__((noipa)) uint32_t board_ticks(void) { return COUNTER_VALUE; }
#else               /* mps2: CMSDK timer 0, downwards; 64 ns per instruction */
#if __ARM_ARCH >= 8 /* mps2-an505, secure: 20 MHz, 50 ns per tick */
#define TIMER 0x50000000
static uint32_t to_instructions(uint32_t ticks) { return (uint32_t)(((uint64_t)ticks * 25 + 16) >> 5); }
#else /* 25 MHz, 40 ns per tick */
#define TIMER 0x40000000
static uint32_t to_instructions(uint32_t ticks) { return (uint32_t)(((uint64_t)ticks * 5 + 4) >> 3); }
#endif
#define TIMER_CONTROL (*(volatile uint32_t*)TIMER)
#define TIMER_VALUE (*(volatile uint32_t*)(TIMER + 4))
#define TIMER_RELOAD (*(volatile uint32_t*)(TIMER + 8))
void board_start_counter(void) {
  TIMER_RELOAD = TIMER_VALUE = 0xFFFFFFFFu;
  TIMER_CONTROL = 1;
}
__attribute__((noipa)) uint32_t board_ticks(void) { return ~TIMER_VALUE; }
#endif

/* Ticks of eight calls of board_ticks(), a whole number on every machine. */
static uint32_t ticks_of_eight_calls(void) {
  const uint32_t start = board_ticks();
  board_ticks(), board_ticks(), board_ticks(), board_ticks(), board_ticks(), board_ticks(), board_ticks();
  return board_ticks() - start;
}

uint32_t board_instructions(uint32_t first, uint32_t second) {
  const uint32_t all = to_instructions(second - first), own = (to_instructions(ticks_of_eight_calls()) + 4) / 8;
  return all > own ? all - own : 0;
}

extern uint32_t __stack_limit[], __stack_top[];

static inline uint32_t* stack_pointer(void) {
  uint32_t* sp;
#if defined(__riscv)
  __asm__ volatile("mv %0, sp" : "=r"(sp));
#else
  __asm__ volatile("mov %0, sp" : "=r"(sp));
#endif
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
