// SPDX-License-Identifier: Apache-2.0
//
// mcuformer.StreamedMLP: the MLP half of a layer in place on the residual stream; see core/mcuf_streamed_mlp_s8.h.
//   inputs   stream [1,N,d] int8; params [bytes] uint8: sections (see params_blob.h); none
//              0 int32 block, norm zero point, epsilon low and high word, index of the layer with GELU (-1: none),
//                tile_bytes and weights_offset of staged weights (0: not staged), packing of the weights, then the
//                zero point of every layer
//              1 gamma [d] int16, 2 beta [d] int32, 3 factor [d] uint8 or none, 4 gelu_table [256] int8,
//              5 residual_scale [d] int16, then weights, bias, multiplier of every layer; staged
//                weights are empty here and lie one behind the other in the weights file, at multiples of 16 bytes
//   output   as stream, stands over it
#include <cstring>

#include "../core/mcuf_streamed_mlp_s8.h"
#include "../mcuformer_ops.h"
#include "params_blob.h"
#include "staged_weights.h"

namespace mcuformer {
namespace {

enum { kStream, kParams, kWeights, kInputs };
enum { kScalars, kNorm, kGeluTable = kNorm + 3, kResidualScale, kFirstFc };
enum {
  kBlock,
  kNormZeroPoint,
  kEpsilonLow,
  kEpsilonHigh,
  kGeluLayer,
  kTileBytes,
  kWeightsOffset,
  kPacking,
  kFirstZeroPoint
};

struct OpData {
  int scratch;
};

ParamsBlob Blob(const Context* context, const Node* node) {
  const EvalTensor* params = Input(context, node, kParams);
  return ParamsBlob(Data<uint8_t>(params), Dim(params, 0));
}

// Whole: at least the first fully connected layer's sections.
bool IsWhole(const ParamsBlob& blob) {
  if (!blob.IsWhole(kFirstFc + 3)) return false;
  const int32_t fcs = blob.Count<int32_t>(kScalars) - kFirstZeroPoint;
  return fcs >= 1 && fcs <= MCUF_STREAMED_MLP_MAX_FCS && blob.IsWhole(kFirstFc + 3 * fcs);
}

mcuf_streamed_mlp_params Params(const Context* context, const Node* node, const ParamsBlob& blob) {
  const int32_t* scalars = blob.Data<int32_t>(kScalars);
  mcuf_streamed_mlp_params params;
  params.tokens = Tokens(Input(context, node, kStream));
  params.block = scalars[kBlock];
  params.norm = blob.LayerNorm(kNorm, scalars[kNormZeroPoint], scalars[kEpsilonLow], scalars[kEpsilonHigh]);
  params.fc_count = blob.Count<int32_t>(kScalars) - kFirstZeroPoint;
  int32_t offset = scalars[kWeightsOffset], features = params.norm.features;
  for (int32_t i = 0; i < params.fc_count; ++i) {
    params.fcs[i] = blob.FullyConnected(kFirstFc + 3 * i, scalars[kFirstZeroPoint + i], features, scalars[kPacking],
                                        scalars[kTileBytes], &offset);
    features = params.fcs[i].out_features;
    if (i == scalars[kGeluLayer]) params.fcs[i].gelu_table = blob.Data<int8_t>(kGeluTable);
  }
  params.fcs[params.fc_count - 1].residual_scale = blob.Data<int16_t>(kResidualScale);
  return params;
}

Status Prepare(Context* context, Node* node) {
  PrepareCheck check(context, node, kStreamedMlpName, kWeights, kInputs);
  OpData* data = check.OpData<OpData>();
  const EvalTensor* stream = check.Activation(kStream, "stream");
  check.SameShape(check.OutputActivation(), "output", stream);
  check.Require(!check.Has(kWeights), "has a weights tensor, but takes weights from its params or from a weights file");
  check.Constant(kParams, "params", kUInt8, Shape(check.InputDim(kParams, 0)));
  if (!check.ok()) return kError;
  const ParamsBlob blob = Blob(context, node);
  check.Require(IsWhole(blob), "params are not whole: the model is damaged");
  if (!check.ok()) return kError;
  const mcuf_streamed_mlp_params params = Params(context, node, blob);
  const int32_t gelu_layer = blob.Data<int32_t>(kScalars)[kGeluLayer];
  check.Require(gelu_layer >= -1 && gelu_layer < params.fc_count, "no such layer to have the GELU");
  check.Require(blob.Count<int8_t>(kGeluTable) == (gelu_layer >= 0 ? 256 : 0), "gelu_table must have 256 entries");
  check.Require(params.norm.features > 0, "gamma, beta and factor differ in length");
  check.Require(blob.Count<int16_t>(kResidualScale) == params.norm.features, "residual_scale must have d entries");
  check.Require(Dim(stream, -1) == params.norm.features, "stream and params differ in their channels");
  check.Core(mcuf_streamed_mlp_s8_check(&params),
             "see IntLayerNorm and InPlaceFC; every layer takes what the last gives");
  if (!check.ok()) return kError;
  check.Scratch(mcuf_streamed_mlp_s8_scratch_bytes_of(&params), &data->scratch);
  return check.status();
}

Status Eval(Context* context, Node* node) {
  const EvalTensor* stream = Input(context, node, kStream);
  int8_t* output = MutableData<int8_t>(Output(context, node, 0));
  if (output != Data<int8_t>(stream)) memmove(output, Data<int8_t>(stream), static_cast<size_t>(Elements(stream)));
  mcuf_streamed_mlp_params params = Params(context, node, Blob(context, node));
  const mcuf_weight_source* source = nullptr;
  if (FindWeightSource(context, kStreamedMlpName, params.fcs[0].staged.tile_bytes, &source) != kOk) return kError;
  for (int32_t i = 0; i < params.fc_count; ++i) params.fcs[i].staged.source = source;
  void* scratch = GetScratch(context, static_cast<const OpData*>(node->user_data)->scratch);
  return EvalStatus(context, kStreamedMlpName, mcuf_streamed_mlp_s8(&params, output, scratch));
}

}  // namespace

Registration Register_STREAMED_MLP() { return MakeRegistration(InitOpData<OpData>, Prepare, Eval); }

}  // namespace mcuformer
