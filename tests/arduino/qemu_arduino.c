/* SPDX-License-Identifier: Apache-2.0
 *
 * stubs/Arduino.h on a machine of QEMU: runs setup() once and loop() once, unless MAIN_ELSEWHERE. micros() counts
 * instructions: it is no time. */
#include <Arduino.h>

#include "board.h"

unsigned long micros(void) { return board_ticks() >> 4; }
void delay(unsigned long milliseconds) { (void)milliseconds; }
void pinMode(int pin, int mode) { (void)pin, (void)mode; }
void digitalWrite(int pin, int value) { (void)pin, (void)value; }
void serial_text(const char* text) { board_print(text); }
void serial_number(long value) { board_print_number((int32_t)value); }

#ifndef MAIN_ELSEWHERE
int main(void) {
  setup();
  loop();
  return 0;
}
#endif
