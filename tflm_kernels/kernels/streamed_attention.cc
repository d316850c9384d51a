// SPDX-License-Identifier: Apache-2.0
//
// mcuformer.StreamedAttention: the attention half of a layer in place on the residual stream; see streamed_op.h for its
// tensors, streamed_layout.h for its params, core/mcuf_streamed_attention_s8.h for what it computes.
#include "../core/mcuf_streamed_attention_s8.h"
#include "../mcuformer_ops.h"
#include "streamed_layout.h"
#include "streamed_op.h"

namespace mcuformer {
namespace {

using namespace streamed_attention;  // NOLINT

struct StreamedAttention {
  using Params = mcuf_streamed_attention_params;
  static constexpr int kResidualScale = streamed_attention::kResidualScale;

  static const char* Name() { return kStreamedAttentionName; }
  static const char* Limits() { return "see IntLayerNorm, InPlaceFC and IntAttention"; }

  static bool IsWhole(const ParamsBlob& blob) {
    const int32_t scalars = blob.IsWhole(kQkvRankWeights) ? blob.Count<int32_t>(kScalars) : 0;
    return scalars == kQkvRankZeroPoint || scalars == kGridRows || scalars == kScalarCount;
  }

  static Params Read(const ParamsBlob& blob, int32_t tokens);

  static void Check(PrepareCheck* check, const EvalTensor* stream, const ParamsBlob& blob, const Params& params) {
    check->SingleBatch(stream, "stream", 3);
    check->Require(RelativePositionFits(blob, params), "relative positions do not fit the grid, the heads or head_dim");
  }

  static bool RelativePositionFits(const ParamsBlob& blob, const Params& params);

  static mcuf_status KernelCheck(const Params& params) { return mcuf_streamed_attention_s8_check(&params); }

  static int32_t ScratchBytes(const Params& params) { return mcuf_streamed_attention_s8_scratch_bytes_of(&params); }

  static int32_t TileBytes(const Params& params) { return params.qkv.staged.tile_bytes; }

  static void SetSource(Params* params, const mcuf_weight_source* source) {
    params->qkv.staged.source = params->proj.staged.source = source;
    params->qkv_rank.staged.source = params->proj_rank.staged.source = source;
  }

  static mcuf_status Run(const Params& params, void* stream, void* scratch) {
    return mcuf_streamed_attention_s8(&params, stream, scratch);
  }
};

StreamedAttention::Params StreamedAttention::Read(const ParamsBlob& blob, int32_t tokens) {
  const int32_t* scalars = blob.Data<int32_t>(kScalars);
  Params params;
  params.tokens = tokens;
  params.wide = nullptr;
  params.tokens_at_once = scalars[kTokensAtOnce];
  params.num_heads = blob.Count<int32_t>(kHeadParams) / MCUF_ATTENTION_HEAD_PARAMS;
  params.kv_heads = scalars[kKvHeads];
  params.kv_heads_at_once = scalars[kKvHeadsAtOnce];
  params.head_dim = scalars[kHeadDim];
  params.zero_point = scalars[kZeroPoint];
  params.head_params = blob.Data<int32_t>(kHeadParams);
  params.norm = blob.LayerNorm(kGamma, blob.Count<int16_t>(kResidualScale), scalars[kNormZeroPoint],
                               scalars[kEpsilonLow], scalars[kEpsilonHigh]);
  const int32_t packing = scalars[kPacking], tile_bytes = scalars[kTileBytes];
  int32_t offset = scalars[kWeightsOffset];
  const bool more = blob.Count<int32_t>(kScalars) > kQkvRankZeroPoint;
  const int32_t qkv_rank = blob.Count<int32_t>(kQkvRankBias), proj_rank = blob.Count<int32_t>(kProjRankBias);
  const int32_t d = params.norm.features;
  params.qkv = blob.FullyConnected(kQkvWeights, scalars[kQkvZeroPoint], qkv_rank != 0 ? qkv_rank : d, packing,
                                   tile_bytes, &offset);
  const int64_t q_width = int64_t{params.num_heads} * params.head_dim;
  const int32_t proj_in = q_width < 0 || q_width > MCUF_MAX_FEATURES ? 0 : static_cast<int32_t>(q_width);
  params.proj = blob.FullyConnected(kProjWeights, scalars[kProjZeroPoint], proj_rank != 0 ? proj_rank : proj_in,
                                    packing, tile_bytes, &offset);
  params.proj.residual_scale = blob.Data<int16_t>(kResidualScale);
  params.qkv_rank = params.proj_rank = {};
  if (qkv_rank != 0) {
    params.qkv_rank =
        blob.FullyConnected(kQkvRankWeights, more ? scalars[kQkvRankZeroPoint] : 0, d, packing, tile_bytes, &offset);
  }
  if (proj_rank != 0) {
    params.proj_rank = blob.FullyConnected(kProjRankWeights, more ? scalars[kProjRankZeroPoint] : 0, proj_in, packing,
                                           tile_bytes, &offset);
  }
  params.relative = {};
  if (blob.Count<int32_t>(kScalars) == kScalarCount) {
    params.relative.rows = scalars[kGridRows];
    params.relative.columns = scalars[kGridColumns];
    params.relative.head_params = blob.Data<int32_t>(kRelativeParams);
    params.relative.bias = blob.Data<int16_t>(kRelativeBias);
    params.relative.keys = blob.Data<int8_t>(kRelativeKeys);
    params.relative.values = blob.Data<int8_t>(kRelativeValues);
    params.relative.kernels = &mcuf_relative;
  }
  return params;
}

// Whether the sections have the sizes that the kernel trusts: there are none, or biases, or tables.
bool StreamedAttention::RelativePositionFits(const ParamsBlob& blob, const Params& p) {
  const mcuf_relative_position& r = p.relative;
  const int32_t heads = blob.Count<int32_t>(kRelativeParams), biases = blob.Count<int16_t>(kRelativeBias);
  const int32_t keys = blob.Count<int8_t>(kRelativeKeys), values = blob.Count<int8_t>(kRelativeValues);
  if (r.rows == 0) return heads == 0 && biases == 0 && keys == 0 && values == 0;
  if (r.rows < 1 || r.columns < 1 || r.rows > p.tokens || r.columns > p.tokens ||
      p.tokens > MCUF_ATTENTION_MAX_TOKENS || r.rows * r.columns > p.tokens || p.num_heads > MCUF_MAX_FEATURES ||
      p.head_dim < 1 || p.head_dim > MCUF_ATTENTION_MAX_HEAD_DIM) {
    return false;
  }
  if (heads != MCUF_RELATIVE_HEAD_PARAMS * p.num_heads) return false;
  const int64_t bias = int64_t{p.num_heads} * mcuf_relative_bias_length(r.rows, r.columns, p.tokens);
  const int32_t table = mcuf_relative_table_length(r.rows, r.columns, p.tokens) * p.head_dim;
  return biases > 0 ? biases == bias && keys == 0 && values == 0 : keys == table && values == table;
}

}  // namespace

Registration Register_STREAMED_ATTENTION() { return RegisterStreamed<StreamedAttention>(); }

}  // namespace mcuformer
