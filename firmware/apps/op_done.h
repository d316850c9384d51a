/* SPDX-License-Identifier: Apache-2.0
 *
 * Included before an exported model.c, with the compiler's -include: notes when each op is done. */
#ifndef MCUF_FIRMWARE_OP_DONE_H_
#define MCUF_FIRMWARE_OP_DONE_H_

#include <stdint.h>

void op_done(int32_t index);
#define MCUF_OP_DONE(index) op_done(index)

#endif /* MCUF_FIRMWARE_OP_DONE_H_ */
