// SPDX-License-Identifier: Apache-2.0
//
// The custom ops: their names in a .tflite file, and their registrations. The top of kernels/<op>.cc lists each op's
// tensors and options.
#ifndef MCUF_MCUFORMER_OPS_H_
#define MCUF_MCUFORMER_OPS_H_

#include "tflm_compat.h"

namespace mcuformer {

// The only list of ops. OP(constant, name, registration, first, second): the constant that holds the name; the name in
// a .tflite file; the function that registers the op; the inputs that its output may overwrite, by position, in order
// of preference, -1: no more. The converter's modules say the same in NAME and OVERWRITES; a test compares.
#define MCUF_OPS(OP)                                                                                       \
  OP(kDecomposedPatchEmbedName, "mcuformer.DecomposedPatchEmbed", Register_DECOMPOSED_PATCH_EMBED, 0, -1)  \
  OP(kInPlaceFcName, "mcuformer.InPlaceFC", Register_IN_PLACE_FC, 5, 0) /* the residual, else the input */ \
  OP(kIntAttentionName, "mcuformer.IntAttention", Register_INT_ATTENTION, 0, -1)                           \
  OP(kIntGeluName, "mcuformer.IntGeLU", Register_INT_GELU, 0, -1)                                          \
  OP(kIntLayerNormName, "mcuformer.IntLayerNorm", Register_INT_LAYER_NORM, 0, -1)                          \
  OP(kStemConvName, "mcuformer.StemConv", Register_STEM_CONV, -1, -1)                                      \
  OP(kStreamedAttentionName, "mcuformer.StreamedAttention", Register_STREAMED_ATTENTION, 0, -1)            \
  OP(kStreamedMlpName, "mcuformer.StreamedMLP", Register_STREAMED_MLP, 0, -1)                              \
  OP(kStreamedStemName, "mcuformer.StreamedStem", Register_STREAMED_STEM, 0, -1)                           \
  OP(kTokenMeanName, "mcuformer.TokenMean", Register_TOKEN_MEAN, 0, -1)

#define MCUF_DECLARE_OP(constant, name, registration, first, second) \
  constexpr char constant[] = name;                                  \
  Registration registration();
MCUF_OPS(MCUF_DECLARE_OP)
#undef MCUF_DECLARE_OP

}  // namespace mcuformer

#endif  // MCUF_MCUFORMER_OPS_H_
