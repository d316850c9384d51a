// SPDX-License-Identifier: Apache-2.0
#include "sha256.h"

namespace mcuformer {
namespace {

constexpr uint32_t kBlockBytes = 64;

// The first 32 bits of the fractional parts of the cube roots of the first 64 primes ...
constexpr uint32_t kRounds[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};
// ... and of the square roots of the first 8.
constexpr uint32_t kStart[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};

uint32_t Turn(uint32_t value, int bits) { return value >> bits | value << (32 - bits); }

// words: the block's 16, which are lost.
void AddBlock(uint32_t* words, uint32_t* state) {
  uint32_t s[8];
  for (int i = 0; i < 8; ++i) s[i] = state[i];
  for (int i = 0; i < 64; ++i) {
    uint32_t* const word = &words[i % 16];
    if (i >= 16) {
      const uint32_t near = words[(i + 14) % 16], far = words[(i + 1) % 16];
      *word += (Turn(far, 7) ^ Turn(far, 18) ^ far >> 3) + words[(i + 9) % 16] +
               (Turn(near, 17) ^ Turn(near, 19) ^ near >> 10);
    }
    const uint32_t first = s[7] + (Turn(s[4], 6) ^ Turn(s[4], 11) ^ Turn(s[4], 25)) + ((s[4] & s[5]) ^ (~s[4] & s[6])) +
                           kRounds[i] + *word;
    const uint32_t second =
        (Turn(s[0], 2) ^ Turn(s[0], 13) ^ Turn(s[0], 22)) + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
    for (int j = 7; j > 0; --j) s[j] = s[j - 1];
    s[4] += first;
    s[0] = first + second;
  }
  for (int i = 0; i < 8; ++i) state[i] += s[i];
}

}  // namespace

bool HoldsItsDigest(const uint8_t* bytes, uint32_t size, uint32_t at) {
  uint32_t state[8];
  for (int i = 0; i < 8; ++i) state[i] = kStart[i];
  const uint32_t blocks = (size + 8) / kBlockBytes + 1;  // with a bit at the end, and the length
  for (uint32_t block = 0; block < blocks; ++block) {
    uint32_t words[16] = {};
    for (uint32_t i = 0; i < kBlockBytes; ++i) {
      const uint32_t from = block * kBlockBytes + i;
      const uint32_t inside = from - at < kDigestBytes ? 0u : from < size ? bytes[from] : from == size ? 0x80u : 0u;
      words[i / 4] |= inside << (24 - 8 * (i % 4));
    }
    if (block + 1 == blocks) {  // in bits
      words[14] = size >> 29;
      words[15] = size << 3;
    }
    AddBlock(words, state);
  }
  uint32_t differences = 0;
  for (uint32_t i = 0; i < kDigestBytes; ++i) {
    differences |= bytes[at + i] ^ (state[i / 4] >> (24 - 8 * (i % 4)) & 0xFF);
  }
  return differences == 0;
}

}  // namespace mcuformer
