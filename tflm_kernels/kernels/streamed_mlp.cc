// SPDX-License-Identifier: Apache-2.0
//
// mcuformer.StreamedMLP: the MLP half of a layer in place on the residual stream; see streamed_op.h for its tensors,
// streamed_layout.h for its params, core/mcuf_streamed_mlp_s8.h for what it computes.
#include "../core/mcuf_streamed_mlp_s8.h"
#include "../mcuformer_ops.h"
#include "streamed_layout.h"
#include "streamed_op.h"

namespace mcuformer {
namespace {

using namespace streamed_mlp;  // NOLINT

struct StreamedMlp {
  using Params = mcuf_streamed_mlp_params;
  static constexpr int kResidualScale = streamed_mlp::kResidualScale;

  static const char* Name() { return kStreamedMlpName; }
  static const char* Limits() { return "see IntLayerNorm and InPlaceFC; each layer takes the previous one's outputs"; }

  static int32_t Layers(const ParamsBlob& blob) { return blob.Count<int32_t>(kScalars) - kFc0ZeroPoint; }

  static bool IsWhole(const ParamsBlob& blob) {
    if (!blob.IsWhole(kFc1Weights)) return false;  // one layer at least
    const int32_t layers = Layers(blob);
    return layers >= 1 && layers <= MCUF_STREAMED_MLP_MAX_FCS && blob.IsWhole(kFc0Weights + kSectionsOfFc * layers);
  }

  static Params Read(const ParamsBlob& blob, int32_t tokens);

  static void Check(PrepareCheck* check, const EvalTensor*, const ParamsBlob& blob, const Params& params) {
    const int32_t gelu_layer = blob.Data<int32_t>(kScalars)[kGeluLayer];
    check->Require(gelu_layer >= -1 && gelu_layer < params.fc_count, "the layer for the GELU does not exist");
    check->Require(blob.Count<int8_t>(kGeluTable) == (gelu_layer >= 0 ? MCUF_GELU_TABLE_SIZE : 0),
                   "gelu_table must have 256 entries");
  }

  static mcuf_status KernelCheck(const Params& params) { return mcuf_streamed_mlp_s8_check(&params); }

  static int32_t ScratchBytes(const Params& params) { return mcuf_streamed_mlp_s8_scratch_bytes_of(&params); }

  static int32_t TileBytes(const Params& params) { return params.fcs[0].staged.tile_bytes; }

  static void SetSource(Params* params, const mcuf_weight_source* source) {
    for (int32_t i = 0; i < params->fc_count; ++i) params->fcs[i].staged.source = source;
  }

  static mcuf_status Run(const Params& params, void* stream, void* scratch) {
    return mcuf_streamed_mlp_s8(&params, stream, scratch);
  }
};

StreamedMlp::Params StreamedMlp::Read(const ParamsBlob& blob, int32_t tokens) {
  const int32_t* scalars = blob.Data<int32_t>(kScalars);
  Params params;
  params.tokens = tokens;
  params.wide = nullptr;
  params.tokens_at_once = scalars[kTokensAtOnce];
  params.norm = blob.LayerNorm(kGamma, blob.Count<int16_t>(kResidualScale), scalars[kNormZeroPoint],
                               scalars[kEpsilonLow], scalars[kEpsilonHigh]);
  params.fc_count = Layers(blob);
  int32_t offset = scalars[kWeightsOffset], features = params.norm.features;
  for (int32_t i = 0; i < params.fc_count; ++i) {
    params.fcs[i] = blob.FullyConnected(kFc0Weights + kSectionsOfFc * i, scalars[kFc0ZeroPoint + i], features,
                                        scalars[kPacking], scalars[kTileBytes], &offset);
    features = params.fcs[i].out_features;
    if (i == scalars[kGeluLayer]) params.fcs[i].gelu_table = blob.Data<int8_t>(kGeluTable);
  }
  params.fcs[params.fc_count - 1].residual_scale = blob.Data<int16_t>(kResidualScale);
  return params;
}

}  // namespace

Registration Register_STREAMED_MLP() { return RegisterStreamed<StreamedMlp>(); }

}  // namespace mcuformer
