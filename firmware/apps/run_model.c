/* SPDX-License-Identifier: Apache-2.0
 *
 * Runs an exported network (model.h) on the images in images.bin and prints, for each, its logits (without a head: its
 * embedding), the stack below the call, the most instructions between two hooks and the instructions of each op.
 * images.bin: int32 number of images, then the images, int8; in strips, only the rows that are requested. weights.bin:
 * staged weights. */
#include "board.h"
#include "hooks.h"
#include "model.h"

#ifdef MODEL_CLASSES
#define OUTPUTS MODEL_CLASSES
#else
#define OUTPUTS MODEL_EMBEDDING_LENGTH
#endif

static int8_t logits[OUTPUTS]; /* of any length, so not on the stack */
static uint32_t marks[MODEL_OPS + 1];

static uint32_t last, longest; /* hook, and most instructions from one to the next */

void yielded(void) {
  const uint32_t took = board_instructions(last, board_ticks());
  longest = took > longest ? took : longest;
  last = board_ticks();
}

/* noipa: where calls of it begin and end is counted (firmware/block_counts.c). */
__attribute__((noipa)) void op_done(int32_t index) {
  marks[index + 1] = board_ticks();
  if (index >= 0) yielded();
  last = board_ticks();
}

static int32_t images;

#ifdef MODEL_STRIP_ROWS
static int32_t read_rows(void* user, int32_t first_row, int32_t row_count, int8_t* rows) {
  (void)user, (void)first_row;
  return board_read(images, rows, (uint32_t)row_count * MODEL_IMAGE_WIDTH * MODEL_IMAGE_CHANNELS) == 0 ? row_count : -1;
}
#endif

#ifdef MODEL_WEIGHTS_BYTES
static int32_t weights;

static int32_t read_weights(void* user, int32_t offset, int32_t bytes, int8_t* target) {
  (void)user;
  return board_seek(weights, (uint32_t)offset) == 0 && board_read(weights, target, (uint32_t)bytes) == 0 ? bytes : -1;
}
#endif

static mcuf_status invoke(void) {
#ifdef MODEL_STRIP_ROWS
  op_done(-1);
  return model_invoke_strips(read_rows, 0, logits);
#else
  if (board_read(images, model_image(), MODEL_IMAGE_BYTES) != 0) return MCUF_ERROR_SOURCE;
  op_done(-1);
  return model_invoke(model_image(), logits);
#endif
}

static void print_hexadecimal(const int8_t* values, int32_t count) {
  for (int32_t i = 0; i < count; ++i) {
    const char digits[] = "0123456789abcdef";
    const char text[3] = {digits[(uint8_t)values[i] >> 4], digits[values[i] & 15], '\0'};
    board_print(text);
  }
}

/* Instructions from one op_done() to the next with nothing between them. */
static uint32_t instructions_of_op_done(void) {
  op_done(-1);
  op_done(0);
  return board_instructions(marks[0], marks[1]);
}

int main(void) {
  int32_t count;
  images = board_open("images.bin");
  if (images < 0 || board_read(images, &count, sizeof(count)) != 0) return 2;
#ifdef MODEL_WEIGHTS_BYTES
  weights = board_open("weights.bin");
  model_set_weights(read_weights, 0);
#endif
  const uint32_t own = instructions_of_op_done();
  for (int32_t i = 0; i < count; ++i) {
    longest = 0;
    const uint32_t above = board_stack_here();
    board_paint_stack();
    const mcuf_status status = invoke();
    const uint32_t used = board_stack_used();
    if (status != MCUF_OK) return 3;
    board_print("logits "), print_hexadecimal(logits, OUTPUTS);
    board_print("\nstack "), board_print_number((int32_t)(used > above ? used - above : 0));
    board_print("\nlongest "), board_print_number((int32_t)longest);
    board_print("\nops");
    for (int32_t op = 0; op < MODEL_OPS; ++op) {
      board_print(" "), board_print_number((int32_t)(board_instructions(marks[op], marks[op + 1]) - own));
    }
    board_print("\n");
  }
  return 0;
}
