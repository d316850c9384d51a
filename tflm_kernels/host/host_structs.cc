// SPDX-License-Identifier: Apache-2.0
//
// Where the fields of the core's structs are, as this compiler lays them out: Python declares the same structs
// (mcuformer/engines/c_structs.py), and compares before it calls a kernel.
#include <cstddef>

#include "core/mcuf_decomposed_patch_embed_s8.h"
#include "core/mcuf_in_place_fc_s8.h"
#include "core/mcuf_int_attention_s8.h"
#include "core/mcuf_int_layer_norm_s8.h"
#include "core/mcuf_stem_conv_s8.h"
#include "core/mcuf_streamed_attention_s8.h"
#include "core/mcuf_streamed_mlp_s8.h"
#include "core/mcuf_token_mean_s8.h"
#include "core/mcuf_weight_source.h"
#include "host/host_abi.h"

namespace {

struct Place {
  const char* type;
  const char* field;  // "": the whole struct
  size_t offset, bytes;
};

// clang-format off
#define WHOLE(type) {#type, "", 0, sizeof(type)}
#define FIELD(type, field) {#type, #field, offsetof(type, field), sizeof(type::field)}
// clang-format on

const Place kPlaces[] = {
    WHOLE(mcuf_weight_source),
    FIELD(mcuf_weight_source, read),
    FIELD(mcuf_weight_source, user),

    WHOLE(mcuf_staged_weights),
    FIELD(mcuf_staged_weights, source),
    FIELD(mcuf_staged_weights, tile_bytes),
    FIELD(mcuf_staged_weights, offset),

    WHOLE(mcuf_int_layer_norm_params),
    FIELD(mcuf_int_layer_norm_params, tokens),
    FIELD(mcuf_int_layer_norm_params, features),
    FIELD(mcuf_int_layer_norm_params, zero_point),
    FIELD(mcuf_int_layer_norm_params, epsilon),
    FIELD(mcuf_int_layer_norm_params, gamma),
    FIELD(mcuf_int_layer_norm_params, beta),
    FIELD(mcuf_int_layer_norm_params, factor),

    WHOLE(mcuf_in_place_fc_params),
    FIELD(mcuf_in_place_fc_params, tokens),
    FIELD(mcuf_in_place_fc_params, in_features),
    FIELD(mcuf_in_place_fc_params, in_stride),
    FIELD(mcuf_in_place_fc_params, out_features),
    FIELD(mcuf_in_place_fc_params, zero_point),
    FIELD(mcuf_in_place_fc_params, packing),
    FIELD(mcuf_in_place_fc_params, weights),
    FIELD(mcuf_in_place_fc_params, bias),
    FIELD(mcuf_in_place_fc_params, multiplier),
    FIELD(mcuf_in_place_fc_params, gelu_table),
    FIELD(mcuf_in_place_fc_params, residual_scale),
    FIELD(mcuf_in_place_fc_params, staged),
    FIELD(mcuf_in_place_fc_params, block),

    WHOLE(mcuf_int_attention_params),
    FIELD(mcuf_int_attention_params, tokens),
    FIELD(mcuf_int_attention_params, num_heads),
    FIELD(mcuf_int_attention_params, kv_heads),
    FIELD(mcuf_int_attention_params, head_dim),
    FIELD(mcuf_int_attention_params, in_stride),
    FIELD(mcuf_int_attention_params, out_stride),
    FIELD(mcuf_int_attention_params, zero_point),
    FIELD(mcuf_int_attention_params, head_params),

    WHOLE(mcuf_token_mean_params),
    FIELD(mcuf_token_mean_params, tokens),
    FIELD(mcuf_token_mean_params, features),
    FIELD(mcuf_token_mean_params, in_zero_point),
    FIELD(mcuf_token_mean_params, zero_point),
    FIELD(mcuf_token_mean_params, multiplier),

    WHOLE(mcuf_decomposed_patch_embed_params),
    FIELD(mcuf_decomposed_patch_embed_params, image_height),
    FIELD(mcuf_decomposed_patch_embed_params, image_width),
    FIELD(mcuf_decomposed_patch_embed_params, channels),
    FIELD(mcuf_decomposed_patch_embed_params, patch_size),
    FIELD(mcuf_decomposed_patch_embed_params, embed_dim),
    FIELD(mcuf_decomposed_patch_embed_params, zero_point),
    FIELD(mcuf_decomposed_patch_embed_params, packing),
    FIELD(mcuf_decomposed_patch_embed_params, weights),
    FIELD(mcuf_decomposed_patch_embed_params, bias),
    FIELD(mcuf_decomposed_patch_embed_params, multiplier),
    FIELD(mcuf_decomposed_patch_embed_params, position),
    FIELD(mcuf_decomposed_patch_embed_params, position_scale),
    FIELD(mcuf_decomposed_patch_embed_params, staged),
    FIELD(mcuf_decomposed_patch_embed_params, blocks),

    WHOLE(mcuf_stem_conv_params),
    FIELD(mcuf_stem_conv_params, height),
    FIELD(mcuf_stem_conv_params, width),
    FIELD(mcuf_stem_conv_params, in_channels),
    FIELD(mcuf_stem_conv_params, out_channels),
    FIELD(mcuf_stem_conv_params, pad_value),
    FIELD(mcuf_stem_conv_params, zero_point),
    FIELD(mcuf_stem_conv_params, act_min),
    FIELD(mcuf_stem_conv_params, packing),
    FIELD(mcuf_stem_conv_params, weights),
    FIELD(mcuf_stem_conv_params, bias),
    FIELD(mcuf_stem_conv_params, multiplier),
    FIELD(mcuf_stem_conv_params, position),
    FIELD(mcuf_stem_conv_params, position_scale),

    WHOLE(mcuf_streamed_attention_params),
    FIELD(mcuf_streamed_attention_params, tokens),
    FIELD(mcuf_streamed_attention_params, block),
    FIELD(mcuf_streamed_attention_params, num_heads),
    FIELD(mcuf_streamed_attention_params, kv_heads),
    FIELD(mcuf_streamed_attention_params, kv_heads_at_once),
    FIELD(mcuf_streamed_attention_params, head_dim),
    FIELD(mcuf_streamed_attention_params, zero_point),
    FIELD(mcuf_streamed_attention_params, head_params),
    FIELD(mcuf_streamed_attention_params, norm),
    FIELD(mcuf_streamed_attention_params, qkv),
    FIELD(mcuf_streamed_attention_params, proj),

    WHOLE(mcuf_streamed_mlp_params),
    FIELD(mcuf_streamed_mlp_params, tokens),
    FIELD(mcuf_streamed_mlp_params, block),
    FIELD(mcuf_streamed_mlp_params, norm),
    FIELD(mcuf_streamed_mlp_params, fc_count),
    FIELD(mcuf_streamed_mlp_params, fcs),
};

}  // namespace

// Row `index` of all structs and their fields; false past the end. An empty field stands for the whole struct.
MCUF_EXPORT bool mcuf_host_struct_place(int index, const char** type, const char** field, size_t* offset,
                                        size_t* bytes) {
  if (index < 0 || index >= static_cast<int>(sizeof(kPlaces) / sizeof(kPlaces[0]))) return false;
  *type = kPlaces[index].type;
  *field = kPlaces[index].field;
  *offset = kPlaces[index].offset;
  *bytes = kPlaces[index].bytes;
  return true;
}
