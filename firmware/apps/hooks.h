/* SPDX-License-Identifier: Apache-2.0
 *
 * The hooks of run_model.c: the compiler's MCUF_HOOKS_H, of the model, and of kernels that are to call them too. */
#ifndef MCUF_FIRMWARE_HOOKS_H_
#define MCUF_FIRMWARE_HOOKS_H_

#include <stdint.h>

void op_done(int32_t index);
void yielded(void);
#define MCUF_OP_DONE(index) op_done(index)
#define MCUF_YIELD() yielded()

#endif /* MCUF_FIRMWARE_HOOKS_H_ */
