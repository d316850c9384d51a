// SPDX-License-Identifier: Apache-2.0
//
// The custom ops: their names in a .tflite file, and what registers them. Tensors and options of each op are
// listed at the top of kernels/<op>.cc.
#ifndef MCUF_MCUFORMER_OPS_H_
#define MCUF_MCUFORMER_OPS_H_

#include "tflm_compat.h"

namespace mcuformer {

constexpr char kDecomposedPatchEmbedName[] = "mcuformer.DecomposedPatchEmbed";
constexpr char kInPlaceFcName[] = "mcuformer.InPlaceFC";
constexpr char kIntAttentionName[] = "mcuformer.IntAttention";
constexpr char kIntGeluName[] = "mcuformer.IntGeLU";
constexpr char kIntLayerNormName[] = "mcuformer.IntLayerNorm";
constexpr char kStemConvName[] = "mcuformer.StemConv";
constexpr char kStreamedAttentionName[] = "mcuformer.StreamedAttention";
constexpr char kStreamedMlpName[] = "mcuformer.StreamedMLP";
constexpr char kTokenMeanName[] = "mcuformer.TokenMean";

Registration Register_DECOMPOSED_PATCH_EMBED();
Registration Register_IN_PLACE_FC();
Registration Register_INT_ATTENTION();
Registration Register_INT_GELU();
Registration Register_INT_LAYER_NORM();
Registration Register_STEM_CONV();
Registration Register_STREAMED_ATTENTION();
Registration Register_STREAMED_MLP();
Registration Register_TOKEN_MEAN();

}  // namespace mcuformer

#endif  // MCUF_MCUFORMER_OPS_H_
