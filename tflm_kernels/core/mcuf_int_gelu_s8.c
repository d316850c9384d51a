/* SPDX-License-Identifier: Apache-2.0 */
#include "mcuf_int_gelu_s8.h"

#include "mcuf_fixed_point.h"
#include "mcuf_hooks.h"

#define YIELD_EVERY 1024 /* values */

mcuf_status mcuf_int_gelu_s8(const int8_t* table, const int8_t* input, int8_t* output, int32_t count) {
  if (table == NULL) return MCUF_ERROR_NULL;
  if (count < 0) return MCUF_ERROR_SIZE;
  if (output != input && mcuf_overlap(output, (size_t)count, input, (size_t)count)) return MCUF_ERROR_OVERLAP;
  for (int32_t i = 0; i < count; ++i) {
    output[i] = table[input[i] + 128];
    if (i % YIELD_EVERY == YIELD_EVERY - 1) MCUF_YIELD();
  }
  return MCUF_OK;
}
