// SPDX-License-Identifier: Apache-2.0
//
// stubs/PDM.h on a machine of QEMU: a microphone that hears sound.bin, int32 count and then int16 samples, 256 at a
// time; loop() runs after each.
#include <Arduino.h>
#include <PDM.h>

extern "C" {
#include "board.h"
}

PDMClass PDM;

static int32_t file = -1, left = 0;
static void (*on_receive)(void) = nullptr;

int PDMClass::begin(int channels, int sample_rate) {
  file = board_open("sound.bin");
  return channels == 1 && sample_rate == 16000 && file >= 0 && board_read(file, &left, sizeof left) == 0;
}

int PDMClass::read(void* buffer, size_t size) {
  int32_t count = static_cast<int32_t>(size / sizeof(int16_t));
  if (count > left) count = left;
  if (count > 0 && board_read(file, buffer, count * sizeof(int16_t)) != 0) return 0;
  left -= count;
  return count * static_cast<int>(sizeof(int16_t));
}

void PDMClass::onReceive(void (*function)(void)) { on_receive = function; }

int main() {
  setup();
  while (left > 0) {
    on_receive();
    loop();
  }
  return 0;
}
