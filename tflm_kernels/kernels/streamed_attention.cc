// SPDX-License-Identifier: Apache-2.0
//
// mcuformer.StreamedAttention: the attention half of a layer in place on the residual stream; see
// core/mcuf_streamed_attention_s8.h.
//   inputs   stream [1,N,d] int8; params [bytes] uint8: sections (see params_blob.h); none
//              0 int32 block, kv_heads, kv_heads_at_once, head_dim, attention zero point, norm zero point, epsilon low
//                and high word, qkv zero point, proj zero point, tile_bytes and weights_offset of staged weights (0:
//                not), packing of the weights
//              1 gamma [d] int16, 2 beta [d] int32, 3 factor [d] uint8 or none, 4 head_params [heads,4] int32,
//              5 residual_scale [d] int16, 6 .. 8 weights, bias, multiplier of qkv, 9 .. 11 of proj; staged
//                weights are empty here and lie one behind the other in the weights file, at multiples of 16 bytes
//   output   as stream, stands over it
#include <cstring>

#include "../core/mcuf_streamed_attention_s8.h"
#include "../mcuformer_ops.h"
#include "params_blob.h"
#include "staged_weights.h"

namespace mcuformer {
namespace {

enum { kStream, kParams, kWeights, kInputs };
enum { kScalars, kNorm, kHeadParams = kNorm + 3, kResidualScale, kQkv, kProj = kQkv + 3, kSections = kProj + 3 };
enum {
  kBlock,
  kKvHeads,
  kKvHeadsAtOnce,
  kHeadDim,
  kAttentionZeroPoint,
  kNormZeroPoint,
  kEpsilonLow,
  kEpsilonHigh,
  kQkvZeroPoint,
  kProjZeroPoint,
  kTileBytes,
  kWeightsOffset,
  kPacking,
  kScalarCount
};

struct OpData {
  int scratch;
};

ParamsBlob Blob(const Context* context, const Node* node) {
  const EvalTensor* params = Input(context, node, kParams);
  return ParamsBlob(Data<uint8_t>(params), Dim(params, 0));
}

mcuf_streamed_attention_params Params(const Context* context, const Node* node, const ParamsBlob& blob) {
  const int32_t* scalars = blob.Data<int32_t>(kScalars);
  mcuf_streamed_attention_params params;
  params.tokens = Tokens(Input(context, node, kStream));
  params.block = scalars[kBlock];
  params.num_heads = blob.Count<int32_t>(kHeadParams) / MCUF_ATTENTION_HEAD_PARAMS;
  params.kv_heads = scalars[kKvHeads];
  params.kv_heads_at_once = scalars[kKvHeadsAtOnce];
  params.head_dim = scalars[kHeadDim];
  params.zero_point = scalars[kAttentionZeroPoint];
  params.head_params = blob.Data<int32_t>(kHeadParams);
  params.norm = blob.LayerNorm(kNorm, scalars[kNormZeroPoint], scalars[kEpsilonLow], scalars[kEpsilonHigh]);
  const int32_t tile_bytes = scalars[kTileBytes];
  int32_t offset = scalars[kWeightsOffset];
  params.qkv =
      blob.FullyConnected(kQkv, scalars[kQkvZeroPoint], params.norm.features, scalars[kPacking], tile_bytes, &offset);
  const int64_t q_width = int64_t{params.num_heads} * params.head_dim;
  const int32_t proj_in = q_width < 0 || q_width > MCUF_MAX_FEATURES ? 0 : static_cast<int32_t>(q_width);
  params.proj = blob.FullyConnected(kProj, scalars[kProjZeroPoint], proj_in, scalars[kPacking], tile_bytes, &offset);
  params.proj.residual_scale = blob.Data<int16_t>(kResidualScale);
  return params;
}

Status Prepare(Context* context, Node* node) {
  PrepareCheck check(context, node, kStreamedAttentionName, kWeights, kInputs);
  OpData* data = check.OpData<OpData>();
  const EvalTensor* stream = check.Activation(kStream, "stream");
  check.SingleBatch(stream, "stream", 3);
  check.SameShape(check.OutputActivation(), "output", stream);
  check.Require(!check.Has(kWeights), "has a weights tensor, but takes weights from its params or from a weights file");
  check.Constant(kParams, "params", kUInt8, Shape(check.InputDim(kParams, 0)));
  if (!check.ok()) return kError;
  const ParamsBlob blob = Blob(context, node);
  check.Require(blob.IsWhole(kSections) && blob.Count<int32_t>(kScalars) == kScalarCount,
                "params are not whole: the model is damaged");
  if (!check.ok()) return kError;
  const mcuf_streamed_attention_params params = Params(context, node, blob);
  check.Require(params.norm.features > 0, "gamma, beta and factor differ in length");
  check.Require(blob.Count<int16_t>(kResidualScale) == params.norm.features, "residual_scale must have d entries");
  check.Require(Dim(stream, -1) == params.norm.features, "stream and params differ in their channels");
  check.Core(mcuf_streamed_attention_s8_check(&params), "see IntLayerNorm, InPlaceFC and IntAttention");
  if (!check.ok()) return kError;
  check.Scratch(mcuf_streamed_attention_s8_scratch_bytes(params.tokens, params.block, params.norm.features,
                                                         params.num_heads, params.kv_heads, params.kv_heads_at_once,
                                                         params.head_dim, params.qkv.staged.tile_bytes),
                &data->scratch);
  return check.status();
}

Status Eval(Context* context, Node* node) {
  const EvalTensor* stream = Input(context, node, kStream);
  int8_t* output = MutableData<int8_t>(Output(context, node, 0));
  if (output != Data<int8_t>(stream)) memmove(output, Data<int8_t>(stream), static_cast<size_t>(Elements(stream)));
  mcuf_streamed_attention_params params = Params(context, node, Blob(context, node));
  const mcuf_weight_source* source = nullptr;
  if (FindWeightSource(context, kStreamedAttentionName, params.qkv.staged.tile_bytes, &source) != kOk) return kError;
  params.qkv.staged.source = params.proj.staged.source = source;
  void* scratch = GetScratch(context, static_cast<const OpData*>(node->user_data)->scratch);
  return EvalStatus(context, kStreamedAttentionName, mcuf_streamed_attention_s8(&params, output, scratch));
}

}  // namespace

Registration Register_STREAMED_ATTENTION() { return MakeRegistration(InitOpData<OpData>, Prepare, Eval); }

}  // namespace mcuformer
