/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory that moves over itself; the kernels take memcpy and memset alone from the C library. Internal to them. */
#ifndef MCUF_MOVE_UP_H_
#define MCUF_MOVE_UP_H_

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Moves bytes up by `distance`, from the last to the first, in pieces that do not overlap where they go. */
static inline void mcuf_move_up(int8_t* values, size_t bytes, size_t distance) {
  while (distance > 0 && bytes > 0) {
    const size_t piece = bytes < distance ? bytes : distance;
    bytes -= piece;
    memcpy(values + bytes + distance, values + bytes, piece);
  }
}

#endif /* MCUF_MOVE_UP_H_ */
