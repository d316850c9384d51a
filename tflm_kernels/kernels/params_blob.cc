// SPDX-License-Identifier: Apache-2.0
#include "params_blob.h"

namespace mcuformer {

mcuf_int_layer_norm_params ParamsBlob::LayerNorm(int section, int32_t features, int32_t zero_point, int32_t epsilon_low,
                                                 int32_t epsilon_high) const {
  const int32_t d = Count<int32_t>(section + 1), factors = Count<uint8_t>(section + 2);
  const bool agree = Count<int16_t>(section) == d && (factors == d || factors == 0);
  mcuf_int_layer_norm_params params;
  params.tokens = 1;
  params.features = !agree ? 0 : d > 0 ? d : features;
  params.zero_point = zero_point;
  params.epsilon = static_cast<int64_t>(static_cast<uint64_t>(static_cast<uint32_t>(epsilon_high)) << 32 |
                                        static_cast<uint32_t>(epsilon_low));
  params.gamma = Data<int16_t>(section);
  params.beta = Data<int32_t>(section + 1);
  params.factor = Data<uint8_t>(section + 2);
  return params;
}

mcuf_in_place_fc_params ParamsBlob::FullyConnected(int section, int32_t zero_point, int32_t in_features,
                                                   int32_t packing, int32_t tile_bytes, int32_t* offset) const {
  const int64_t out = Count<int32_t>(section + 1);
  const bool small = out <= MCUF_MAX_FEATURES && in_features <= MCUF_MAX_FEATURES;
  const int64_t rows = small ? mcuf_packed_rows(static_cast<int32_t>(out), packing) : 0;
  const int64_t bytes = rows * (small ? mcuf_packed_row_bytes(in_features, packing) : 0);
  const bool staged = tile_bytes != 0;
  const bool fits = out > 0 && bytes > 0 && Count<int8_t>(section) == (staged ? 0 : bytes) &&
                    Count<int32_t>(section + 2) == out && *offset >= 0 &&
                    bytes <= INT32_MAX - kAlignment - int64_t{*offset};
  mcuf_in_place_fc_params params;
  params.tokens = 1;
  params.in_features = params.in_stride = fits ? in_features : 0;
  params.out_features = static_cast<int32_t>(out);
  params.zero_point = zero_point;
  params.packing = packing;
  params.weights = Data<int8_t>(section);
  params.bias = Data<int32_t>(section + 1);
  params.multiplier = Data<int32_t>(section + 2);
  params.gelu_table = nullptr;
  params.residual_scale = nullptr;
  params.staged = {nullptr, tile_bytes, *offset};
  params.block = 0;
  if (staged && fits) *offset += static_cast<int32_t>((bytes + kAlignment - 1) / kAlignment * kAlignment);
  return params;
}

}  // namespace mcuformer
