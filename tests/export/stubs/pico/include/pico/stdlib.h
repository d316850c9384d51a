/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
#include <stdint.h>
#include <stdlib.h>

static inline void stdio_init_all(void) {}
static inline uint32_t time_us_32(void) { return 0; }
static inline void sleep_ms(uint32_t ms) {
  (void)ms;
  exit(0);
}
