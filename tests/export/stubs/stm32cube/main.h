/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
#include <stdint.h>

static inline uint32_t HAL_GetTick(void) { return 0; }
