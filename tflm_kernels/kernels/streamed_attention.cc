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
    return blob.IsWhole(kSectionCount) && blob.Count<int32_t>(kScalars) == kScalarCount;
  }

  static Params Read(const ParamsBlob& blob, int32_t tokens);

  static void Check(PrepareCheck* check, const EvalTensor* stream, const ParamsBlob&, const Params&) {
    check->SingleBatch(stream, "stream", 3);
  }

  static mcuf_status CoreCheck(const Params& params) { return mcuf_streamed_attention_s8_check(&params); }

  static int32_t ScratchBytes(const Params& p) {
    return mcuf_streamed_attention_s8_scratch_bytes(p.tokens, p.block, p.norm.features, p.num_heads, p.kv_heads,
                                                    p.kv_heads_at_once, p.head_dim, p.qkv.staged.tile_bytes);
  }

  static int32_t TileBytes(const Params& params) { return params.qkv.staged.tile_bytes; }

  static void SetSource(Params* params, const mcuf_weight_source* source) {
    params->qkv.staged.source = params->proj.staged.source = source;
  }

  static mcuf_status Run(const Params& params, int8_t* stream, void* scratch) {
    return mcuf_streamed_attention_s8(&params, stream, scratch);
  }
};

StreamedAttention::Params StreamedAttention::Read(const ParamsBlob& blob, int32_t tokens) {
  const int32_t* scalars = blob.Data<int32_t>(kScalars);
  Params params;
  params.tokens = tokens;
  params.block = scalars[kBlock];
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
  params.qkv =
      blob.FullyConnected(kQkvWeights, scalars[kQkvZeroPoint], params.norm.features, packing, tile_bytes, &offset);
  const int64_t q_width = int64_t{params.num_heads} * params.head_dim;
  const int32_t proj_in = q_width < 0 || q_width > MCUF_MAX_FEATURES ? 0 : static_cast<int32_t>(q_width);
  params.proj = blob.FullyConnected(kProjWeights, scalars[kProjZeroPoint], proj_in, packing, tile_bytes, &offset);
  params.proj.residual_scale = blob.Data<int16_t>(kResidualScale);
  return params;
}

}  // namespace

Registration Register_STREAMED_ATTENTION() { return RegisterStreamed<StreamedAttention>(); }

}  // namespace mcuformer
