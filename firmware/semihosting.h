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
  register int32_t r0 __asm__("r0") = operation;
  register const void* r1 __asm__("r1") = argument;
  __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
}

#endif /* MCUF_FIRMWARE_SEMIHOSTING_H_ */
