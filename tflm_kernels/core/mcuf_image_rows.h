/* SPDX-License-Identifier: Apache-2.0
 *
 * Where the rows of an image come from that is never whole in memory. */
#ifndef MCUF_IMAGE_ROWS_H_
#define MCUF_IMAGE_ROWS_H_

#include <stdint.h>

/* Writes image rows [first_row, first_row + row_count) to rows, int8 [row_count, width, channels] (uint8 - 128). Called
 * with rising first_row, each row once. Returns the number of rows written; anything but row_count is a failure. */
typedef int32_t (*mcuf_image_rows_fn)(void* user, int32_t first_row, int32_t row_count, int8_t* rows);

#endif /* MCUF_IMAGE_ROWS_H_ */
