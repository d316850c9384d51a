// SPDX-License-Identifier: Apache-2.0
//
// Runs the network on 20 images and compares every output with what the host computed, bit for bit: the first sketch
// to upload to a new board. Needs no other library. `mcuformer check-board --port PORT` reads what it prints; every
// line ends with its checksum.
#include <MCUFormer.h>

#include "self_test.h"
#include "test_images.h"

#if defined(ARDUINO_BOARD)  // of Espressif's core
#define SELF_TEST_BOARD ARDUINO_BOARD
#elif defined(BOARD_NAME)  // of Arduino's Mbed core
#define SELF_TEST_BOARD BOARD_NAME
#else
#define SELF_TEST_BOARD "a board without a name"
#endif

// A line of text, printed in pieces of 63 characters; End() adds the CRC-32 of all of them.
class Line {
 public:
  void Text(const char* text) {
    while (*text != 0) Put(*text++);
  }

  // At least `digits` digits.
  void Number(int32_t value, int digits = 1) {
    char text[12];
    int place = sizeof text - 1;
    uint32_t rest = value < 0 ? 0u - static_cast<uint32_t>(value) : static_cast<uint32_t>(value);
    text[place] = 0;
    for (; digits > 0 || rest > 0; --digits, rest /= 10) text[--place] = static_cast<char>('0' + rest % 10);
    if (value < 0) text[--place] = '-';
    Text(text + place);
  }

  void End() {
    const uint32_t crc = ~crc_;
    Text(" *");
    for (int shift = 28; shift >= 0; shift -= 4) Put("0123456789abcdef"[crc >> shift & 15]);
    Flush();
    Serial.println("");
  }

 private:
  void Put(char c) {
    crc_ ^= static_cast<uint8_t>(c);
    for (int bit = 0; bit < 8; ++bit) crc_ = crc_ >> 1 ^ (0xEDB88320u & (0u - (crc_ & 1u)));
    text_[length_++] = c;
    if (length_ + 1 == sizeof text_) Flush();
  }

  void Flush() {
    text_[length_] = 0;
    length_ = 0;
    Serial.print(static_cast<const char*>(text_));
  }

  uint32_t crc_ = 0xFFFFFFFFu;
  char text_[64];
  size_t length_ = 0;
};

// Rows of image *number, which is a test image mirrored, upside down or with bits flipped. An mcuf_image_rows_fn.
static int32_t rowsOf(void* number, int32_t firstRow, int32_t rowCount, int8_t* rows) {
  const int k = *static_cast<const int*>(number), variant = k / TEST_IMAGES;
  const int8_t* image = test_images[k % TEST_IMAGES];
  const uint8_t mask = static_cast<uint8_t>((variant & 4 ? 0xFF : 0) ^ ((variant >> 3) * 37 & 0x7F));
  for (int32_t row = firstRow; row < firstRow + rowCount; ++row) {
    const int32_t y = variant & 2 ? MODEL_IMAGE_HEIGHT - 1 - row : row;
    for (int32_t column = 0; column < MODEL_IMAGE_WIDTH; ++column) {
      const int32_t x = variant & 1 ? MODEL_IMAGE_WIDTH - 1 - column : column;
      const int8_t* pixel = image + (y * MODEL_IMAGE_WIDTH + x) * MODEL_IMAGE_CHANNELS;
      for (int32_t c = 0; c < MODEL_IMAGE_CHANNELS; ++c) {
        *rows++ = static_cast<int8_t>(static_cast<uint8_t>(pixel[c]) ^ mask);
      }
    }
  }
  return rowCount;
}

// *duration: of the network, in microseconds.
static mcuf_status runImage(int number, int8_t* outputs, unsigned long* duration) {
#ifdef MODEL_STRIP_ROWS
  const unsigned long start = micros();
  const mcuf_status status = model_invoke_strips(rowsOf, &number, outputs);
#else
  rowsOf(&number, 0, MODEL_IMAGE_HEIGHT, model_image());
  const unsigned long start = micros();
  const mcuf_status status = model_invoke(model_image(), outputs);
#endif
  *duration = micros() - start;
  return status;
}

static void printHead() {
  Line line;
  line.Text("MCUFormer " SELF_TEST_VERSION " self-test on " SELF_TEST_BOARD ": ");
  line.Number(SELF_TEST_IMAGES);
  line.Text(" images " SELF_TEST_IMAGES_ID ", ");
  line.Number(SELF_TEST_OUTPUTS);
  line.Text(" outputs " SELF_TEST_OUTPUTS_ID);
  line.End();
}

// Prints the line of one image; whether its outputs are the host's.
static bool printImage(int number, unsigned long* duration) {
  static int8_t outputs[SELF_TEST_OUTPUTS];
  const mcuf_status status = runImage(number, outputs, duration);
  const bool equal = status == MCUF_OK && memcmp(outputs, self_test_outputs[number], SELF_TEST_OUTPUTS) == 0;
  Line line;
  line.Text("image ");
  line.Number(number + 1);
  line.Text(" of ");
  line.Number(SELF_TEST_IMAGES);
  if (status != MCUF_OK) {
    line.Text(": error ");
    line.Number(static_cast<int32_t>(status));
  } else {
    line.Text(equal ? ": equal, " : ": different, ");
    line.Number(static_cast<int32_t>(*duration));
    line.Text(" us:");
    for (int i = 0; i < SELF_TEST_OUTPUTS; ++i) {
      line.Text(" ");
      line.Number(outputs[i]);
    }
  }
  line.End();
  return equal;
}

void setup() {
  Serial.begin(115200);
  while (!Serial) {
  }
}

void loop() {
  printHead();
  int equal = 0;
  unsigned long sum = 0, duration = 0;
  for (int number = 0; number < SELF_TEST_IMAGES; ++number) {
    equal += printImage(number, &duration) ? 1 : 0;
    sum += duration;
  }
  const int32_t mean = static_cast<int32_t>(sum / SELF_TEST_IMAGES);
  Line line;
  line.Number(equal);
  line.Text(" of ");
  line.Number(SELF_TEST_IMAGES);
  line.Text(" equal to the host's, ");
  line.Number(mean / 1000);
  line.Text(".");
  line.Number(mean % 1000, 3);
  line.Text(" ms an image");
  line.End();
  delay(3000);
}
