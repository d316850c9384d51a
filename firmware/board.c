/* SPDX-License-Identifier: Apache-2.0 */
#include "board.h"

#include "semihosting.h"

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

#if __ARM_ARCH >= 8 /* mps3-an547: the system counter, 32 MHz */
#define COUNTER_CONTROL (*(volatile uint32_t*)0x58100000)
#define COUNTER_VALUE (*(volatile uint32_t*)0x58100008)
/* 64 ns per instruction, 31.25 ns per tick */
static uint32_t to_instructions(uint32_t ticks) { return (uint32_t)(((uint64_t)ticks * 125 + 128) >> 8); }
void board_start_counter(void) { COUNTER_CONTROL = 1; }
__attribute__((noipa)) uint32_t board_ticks(void) { return COUNTER_VALUE; }
#else /* mps2: CMSDK timer 0, 25 MHz, downwards */
#define TIMER_CONTROL (*(volatile uint32_t*)0x40000000)
#define TIMER_VALUE (*(volatile uint32_t*)0x40000004)
#define TIMER_RELOAD (*(volatile uint32_t*)0x40000008)
/* 64 ns per instruction, 40 ns per tick */
static uint32_t to_instructions(uint32_t ticks) { return (uint32_t)(((uint64_t)ticks * 5 + 4) >> 3); }
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
