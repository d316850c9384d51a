// SPDX-License-Identifier: Apache-2.0
//
// Reads the options of a custom op: a FlexBuffers map with integer values. No heap; safe on any bytes.
#ifndef MCUF_FLEXBUFFER_OPTIONS_H_
#define MCUF_FLEXBUFFER_OPTIONS_H_

#include <cstddef>
#include <cstdint>

namespace mcuformer {

// Reads the integer under `key` of the map that is the root of `buffer`, signed or unsigned, 1 to 8 bytes
// wide. False, with *value unchanged, if the map is damaged, has no such key, or holds no integer there or
// one above 2^63 - 1.
bool ReadInt(const uint8_t* buffer, size_t length, const char* key, int64_t* value);

}  // namespace mcuformer

#endif  // MCUF_FLEXBUFFER_OPTIONS_H_
