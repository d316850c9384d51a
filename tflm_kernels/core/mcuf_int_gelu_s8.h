/* SPDX-License-Identifier: Apache-2.0
 *
 * IntGeLU: int8 -> int8 through a table made offline, so that the op has no error but rounding. */
#ifndef MCUF_INT_GELU_S8_H_
#define MCUF_INT_GELU_S8_H_

#include "mcuf_types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* output[i] = table[input[i] + 128]. table: int8 [MCUF_GELU_TABLE_SIZE]. output may equal input; no other overlap.
 * count >= 0. */
MCUF_API mcuf_status mcuf_int_gelu_s8(const int8_t* table, const int8_t* input, int8_t* output, int32_t count);

#ifdef __cplusplus
}
#endif

#endif /* MCUF_INT_GELU_S8_H_ */
