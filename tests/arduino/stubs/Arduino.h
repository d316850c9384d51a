/* SPDX-License-Identifier: Apache-2.0
 *
 * What the sketches use of the Arduino core, so that they compile without it; qemu_arduino.c makes them run. */
#ifndef MCUF_TESTS_ARDUINO_H_
#define MCUF_TESTS_ARDUINO_H_

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BOARD_NAME "Nano 33 BLE"
#define LOW 0
#define HIGH 1
#define OUTPUT 1
#define LED_BUILTIN 13
#define LEDG 87

#ifdef __cplusplus
extern "C" {
#endif

void setup(void);
void loop(void);

unsigned long micros(void);
void delay(unsigned long milliseconds);
void pinMode(int pin, int mode);
void digitalWrite(int pin, int value);

void serial_text(const char* text);
void serial_number(long value);

#ifdef __cplusplus
}

class SerialPort {
 public:
  void begin(unsigned long) {}
  explicit operator bool() const { return true; }
  void print(const char* text) { serial_text(text); }
  void print(int value) { serial_number(value); }
  void print(unsigned long value) { serial_number(static_cast<long>(value)); }
  template <class T>
  void println(T value) {
    print(value);
    serial_text("\n");
  }
};

extern SerialPort Serial;
#endif

#endif /* MCUF_TESTS_ARDUINO_H_ */
