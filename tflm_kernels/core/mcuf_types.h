/* SPDX-License-Identifier: Apache-2.0
 *
 * Types shared by all C kernels. C99; no heap, no floats, no globals. */
#ifndef MCUF_TYPES_H_
#define MCUF_TYPES_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Makes the library's symbols visible when it is built as a shared library, so that tests can call them. */
#if defined(_WIN32)
#define MCUF_API __declspec(dllexport)
#elif defined(__GNUC__)
#define MCUF_API __attribute__((visibility("default")))
#else
#define MCUF_API
#endif

/* A pointer as a number, for checks of alignment and overlap in C and C++. */
#ifdef __cplusplus
#define MCUF_ADDRESS(pointer) reinterpret_cast<uintptr_t>(pointer)
#else
#define MCUF_ADDRESS(pointer) ((uintptr_t)(pointer))
#endif

typedef enum {
  MCUF_OK = 0,
  MCUF_ERROR_NULL = 1,    /* a pointer that must not be NULL is NULL */
  MCUF_ERROR_SIZE = 2,    /* a size is out of its legal range, or sizes contradict each other */
  MCUF_ERROR_VALUE = 3,   /* a constant (bias, multiplier, scale, shift ...) is out of its legal range */
  MCUF_ERROR_OVERLAP = 4, /* buffers overlap in a way that the kernel does not allow */
  MCUF_ERROR_SOURCE = 5,  /* a callback for image rows or weights failed */
} mcuf_status;

/* Limits that every op shares. They keep every int32 accumulator below 2^31; see the op headers. */
#define MCUF_MAX_FEATURES 16384                 /* channels of a token, inputs of one output */
#define MCUF_MAX_TOKENS 16384                   /* tokens of one tensor (IntAttention: 2048) */
#define MCUF_MAX_STRIDE (4 * MCUF_MAX_FEATURES) /* bytes from token to token */
#define MCUF_MAX_BIAS (1 << 30)                 /* |bias| */
#define MCUF_MAX_IMAGE_SIDE 4096                /* pixels */
#define MCUF_GELU_TABLE_SIZE 256                /* one output per int8 value */

/* One line of English for a status, for use in messages. Never NULL. */
MCUF_API const char* mcuf_status_text(mcuf_status status);

#ifdef __cplusplus
}
#endif

#endif /* MCUF_TYPES_H_ */
