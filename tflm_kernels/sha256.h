// SPDX-License-Identifier: Apache-2.0
//
// SHA-256 (FIPS 180-4), as small as it can be.
#ifndef MCUF_SHA256_H_
#define MCUF_SHA256_H_

#include <cstdint>

namespace mcuformer {

constexpr uint32_t kDigestBytes = 32;

// Whether the digest that lies at bytes[at] is that of bytes[0 .. size), taken with zeros in its own place.
// at + kDigestBytes <= size.
bool HoldsItsDigest(const uint8_t* bytes, uint32_t size, uint32_t at);

}  // namespace mcuformer

#endif  // MCUF_SHA256_H_
