// SPDX-License-Identifier: Apache-2.0
//
// Which headers of the C kernels the library was compiled with. Python reads its structs from the headers that it has,
// and compares before it calls a kernel.
#include "host/host_abi.h"

#ifndef MCUF_HEADERS
#define MCUF_HEADERS ""  // setup.py gives headers_digest() of mcuformer/native.py
#endif

MCUF_EXPORT const char* mcuf_host_headers() { return MCUF_HEADERS; }
