// SPDX-License-Identifier: Apache-2.0
#ifndef MCUF_TESTS_A_2023_MICRO_MICRO_LOG_H_
#define MCUF_TESTS_A_2023_MICRO_MICRO_LOG_H_

void MicroPrintf(const char* format, ...);

#endif  // MCUF_TESTS_A_2023_MICRO_MICRO_LOG_H_
