// SPDX-License-Identifier: Apache-2.0
//
// What the params blob of each Streamed op holds, in order: the int32 scalars of its first section, and its sections
// (see params_blob.h). The converter writes the same lists; tests/kernels/test_streamed_layout.py compares them, so
// keep to one name per line. Packed weights lie as core/mcuf_packing.h says. Staged weights are empty here: they lie
// one after another in the weights file, from weights_offset, each at a multiple of 16 bytes.
#ifndef MCUF_KERNELS_STREAMED_LAYOUT_H_
#define MCUF_KERNELS_STREAMED_LAYOUT_H_

namespace mcuformer {
namespace streamed_attention {

enum Scalar {
  kTokensAtOnce,
  kKvHeads,
  kKvHeadsAtOnce,
  kHeadDim,
  kZeroPoint,      // of the attention's output
  kNormZeroPoint,  // of the stream; 0, as epsilon, without layer normalisation
  kEpsilonLow,     // words of the int64 epsilon of the layer normalisation
  kEpsilonHigh,
  kQkvZeroPoint,
  kProjZeroPoint,
  kTileBytes,      // of staged weights; 0: the weights are in their sections
  kWeightsOffset,  // of staged weights, in the weights file
  kPacking,        // of all weights, MCUF_PACKING_*
  // Both are left out where both are 0, as they are without the layers, and the next two are left out:
  kQkvRankZeroPoint,
  kProjRankZeroPoint,
  kGridRows,  // of relative positions; without them, this and the next are left out
  kGridColumns,
  kScalarCount
};

enum Section {
  kScalars,         // int32 [kScalarCount]
  kGamma,           // int16 [d]; empty, as the next two: no layer normalisation
  kBeta,            // int32 [d]
  kFactor,          // uint8 [d], or empty
  kHeadParams,      // int32 [heads, MCUF_ATTENTION_HEAD_PARAMS]
  kResidualScale,   // int16 [d]
  kQkvWeights,      // int8 [(heads + 2 * kv_heads) * head_dim, d, or the rank] as packed
  kQkvBias,         // int32 [(heads + 2 * kv_heads) * head_dim]
  kQkvMultiplier,   // int32, as many
  kProjWeights,     // int8 [d, heads * head_dim, or the rank] as packed
  kProjBias,        // int32 [d]
  kProjMultiplier,  // int32 [d]
  // Of low rank; those at the end are left out, those before others are empty, where the layers do not exist:
  kQkvRankWeights,      // int8 [rank, d] as packed
  kQkvRankBias,         // int32 [rank]
  kQkvRankMultiplier,   // int32 [rank]
  kProjRankWeights,     // int8 [rank, heads * head_dim] as packed
  kProjRankBias,        // int32 [rank]
  kProjRankMultiplier,  // int32 [rank]
  kRelativeParams,  // int32 [heads, MCUF_RELATIVE_HEAD_PARAMS]; left out, as all from here, without relative positions
  kRelativeBias,    // int16 [heads, mcuf_relative_bias_length()], or empty; the last with biases
  kRelativeKeys,    // int8 [mcuf_relative_table_length(), head_dim]
  kRelativeValues,  // int8, as many
  kSectionCount
};

}  // namespace streamed_attention

namespace streamed_mlp {

enum Scalar {
  kTokensAtOnce,
  kNormZeroPoint,  // of the stream; 0, as epsilon, without layer normalisation
  kEpsilonLow,     // words of the int64 epsilon of the layer normalisation
  kEpsilonHigh,
  kGeluLayer,      // the fully connected layer with the GELU, -1: none
  kTileBytes,      // of staged weights; 0: the weights are in their sections
  kWeightsOffset,  // of staged weights, in the weights file
  kPacking,        // of all weights, MCUF_PACKING_*
  kFc0ZeroPoint,   // then those of the other layers; how many there are is the number of layers
};

enum Section {
  kScalars,        // int32 [kFc0ZeroPoint + layers]
  kGamma,          // int16 [d]; empty, as the next two: no layer normalisation
  kBeta,           // int32 [d]
  kFactor,         // uint8 [d], or empty
  kGeluTable,      // int8 [MCUF_GELU_TABLE_SIZE], or empty without GELU
  kResidualScale,  // int16 [d]
  kFc0Weights,     // int8 [out, in] as packed
  kFc0Bias,        // int32 [out]
  kFc0Multiplier,  // int32 [out]
  kFc1Weights,     // and so on
};

constexpr int kSectionsOfFc = kFc1Weights - kFc0Weights;

}  // namespace streamed_mlp

namespace streamed_stem {

enum Scalar {
  kPixelsAtOnce,
  kPadValue,   // what the first convolution reads outside the image
  kPacking,    // of all weights, MCUF_PACKING_*
  kStripRows,  // MCUF_STREAMED_STEM_STRIP_ROWS; 0: the image is a tensor, and so the next three
  kImageHeight,
  kImageWidth,
  kChannels,
  kConv0ZeroPoint,  // then those of the other convolutions; how many there are is the number of convolutions
};

// With blocks, there are zero points and sections of as many convolutions as are possible, zeros and empty for those
// that the stem lacks. Behind them those of the block behind each convolution but the last; how many zero points there
// are is the number of convolutions.
constexpr int kMaxConvs = 8;
constexpr int kBlock0ZeroPoints = kConv0ZeroPoint + kMaxConvs;

enum BlockZeroPoint {  // of each block; zeros where there is none
  kExpanded,
  kDepthwise,
  kOutput,
  kBlockZeroPointCount
};

enum Section {
  kScalars,          // int32 [kConv0ZeroPoint + convolutions]
  kPosition,         // int8 [tokens of patches, d], or empty
  kPositionScale,    // int16 [d], or empty
  kPrefix,           // int8 [prefix tokens, d], or empty
  kConv0Weights,     // int8 [out, 3, 3, in] as packed
  kConv0Bias,        // int32 [out]
  kConv0Multiplier,  // int32 [out]
  kConv1Weights,     // and so on
};

constexpr int kSectionsOfConv = kConv1Weights - kConv0Weights;
constexpr int kBlock0 = kConv0Weights + kSectionsOfConv * kMaxConvs;

enum BlockSection {      // of each block, from kBlock0 on; empty where there is none, left out at the end
  kExpandWeights,        // int8 [hidden, channels] as packed
  kExpandBias,           // int32 [hidden]
  kExpandMultiplier,     // int32 [hidden]
  kDepthwiseWeights,     // int8 [9, hidden]
  kDepthwiseBias,        // int32 [hidden]
  kDepthwiseMultiplier,  // int32 [hidden]
  kProjectWeights,       // int8 [channels, hidden] as packed
  kProjectBias,          // int32 [channels]
  kProjectMultiplier,    // int32 [channels]
  kResidualScale,        // int16 [channels]
  kBlockSectionCount
};

}  // namespace streamed_stem
}  // namespace mcuformer

#endif  // MCUF_KERNELS_STREAMED_LAYOUT_H_
