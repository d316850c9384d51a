/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MCUF_FIRMWARE_SEMIHOSTING_H_
#define MCUF_FIRMWARE_SEMIHOSTING_H_

#include <stdint.h>

enum {
  SEMIHOSTING_OPEN = 0x01,
  SEMIHOSTING_WRITE0 = 0x04,
  SEMIHOSTING_READ = 0x06,
  SEMIHOSTING_SEEK = 0x0A,
  SEMIHOSTING_EXIT_EXTENDED = 0x20
};

static inline int32_t semihosting(int32_t operation, const void* argument) {
#if defined(__riscv)
  register int32_t result __asm__("a0") = operation;
  register const void* a1 __asm__("a1") = argument;
  /* The three instructions, not compressed and in one page, are the call. */
  __asm__ volatile(
      ".option push\n"
      ".balign 16\n"
      ".option norvc\n"
      "slli x0, x0, 0x1f\n"
      "ebreak\n"
      "srai x0, x0, 7\n"
      ".option pop"
      : "+r"(result)
      : "r"(a1)
      : "memory");
#else
  register int32_t result __asm__("r0") = operation;
  register const void* r1 __asm__("r1") = argument;
  __asm__ volatile("bkpt 0xab" : "+r"(result) : "r"(r1) : "memory");
#endif
  return result;
}

#endif /* MCUF_FIRMWARE_SEMIHOSTING_H_ */
