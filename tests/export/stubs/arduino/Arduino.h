/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
#include <cstdint>
#include <cstdio>

struct SerialPort {
  void begin(long) {}
  void println(const char* line) { std::puts(line); }
};
static SerialPort Serial;
static inline uint32_t micros() { return 0; }
static inline void delay(unsigned) {}
void setup();
void loop();
