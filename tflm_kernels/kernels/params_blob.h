// SPDX-License-Identifier: Apache-2.0
//
// The constants of a Streamed op in one uint8 tensor, since every tensor costs arena: int32 words [count, offset, size,
// offset, size ...], then the sections, each at a multiple of 16 bytes. converter/ops/params_blob.py writes it.
#ifndef MCUF_KERNELS_PARAMS_BLOB_H_
#define MCUF_KERNELS_PARAMS_BLOB_H_

#include "../core/mcuf_in_place_fc_s8.h"
#include "../core/mcuf_int_layer_norm_s8.h"
#include "kernel_check.h"

namespace mcuformer {

class ParamsBlob {
 public:
  static constexpr int kMaxSections = 98;    // of a stem with all convolutions and blocks
  static constexpr int32_t kAlignment = 16;  // of sections, and of staged weights in their file

  ParamsBlob(const uint8_t* data, int32_t bytes) : data_(data), bytes_(bytes) {}

  // Whether the table and all sections lie inside the tensor, aligned, with `count` sections or more.
  bool IsWhole(int count) const {
    if (data_ == nullptr || bytes_ < 4 || (reinterpret_cast<uintptr_t>(data_) & 3) != 0) return false;
    const int32_t n = Word(0);
    if (n < count || n > kMaxSections || 4 + 8 * n > bytes_) return false;
    for (int32_t i = 0; i < n; ++i) {
      const int32_t offset = Word(1 + 2 * i), size = Word(2 + 2 * i);
      if (offset < 0 || size < 0 || offset % kAlignment != 0 || offset > bytes_ || size > bytes_ - offset) return false;
    }
    return true;
  }

  // Elements and data of a section; nullptr if it is empty or left out at the end.
  template <typename T>
  int32_t Count(int section) const {
    return section < Word(0) ? Word(2 + 2 * section) / static_cast<int32_t>(sizeof(T)) : 0;
  }
  template <typename T>
  const T* Data(int section) const {
    return Count<T>(section) == 0 ? nullptr : reinterpret_cast<const T*>(data_ + Word(1 + 2 * section));
  }

  // Sections [gamma, beta, factor] from `section`, or all of them empty: no LayerNorm, of tokens of `features`
  // channels. Sizes that contradict each other set features to 0.
  mcuf_int_layer_norm_params LayerNorm(int section, int32_t features, int32_t zero_point, int32_t epsilon_low,
                                       int32_t epsilon_high) const;

  // Sections [weights, bias, multiplier] from `section`, for tokens of in_features channels; sizes that contradict each
  // other set in_features to 0. With tile_bytes the weights are staged: their section is empty, they lie at *offset in
  // the weights file, and *offset then moves past them.
  mcuf_in_place_fc_params FullyConnected(int section, int32_t zero_point, int32_t in_features, int32_t packing,
                                         int32_t tile_bytes, int32_t* offset) const;

 private:
  int32_t Word(int index) const { return reinterpret_cast<const int32_t*>(data_)[index]; }

  const uint8_t* data_;
  int32_t bytes_;
};

}  // namespace mcuformer

#endif  // MCUF_KERNELS_PARAMS_BLOB_H_
