// SPDX-License-Identifier: Apache-2.0
//
// mcuformer.InPlaceFC: a fully connected layer on each token; see core/mcuf_in_place_fc_s8.h.
//   inputs   x [1,N,S] or [N,S] int8, its first `in` channels are read; weights [out,in] int8, in pairs
//            [ceil(out/2),in rounded up to even,2], or none; bias [out] int32; multiplier [out] int32; gelu_table [256]
//            int8 or none; residual [..,out] int8 or none; residual_scale [out] int16, none without residual
//   output   as x with `out` channels, may overwrite x or residual
//   options  zero_point; packing of the weights, default MCUF_PACKING_ROWS; without weights these are staged (see
//            staged_weights.h): also in_features, tile_bytes, weights_offset, block (params.tokens_per_read)
#include "../core/mcuf_in_place_fc_s8.h"
#include "../mcuformer_ops.h"
#include "kernel_check.h"
#include "staged_weights.h"

namespace mcuformer {
namespace {

enum { kX, kWeights, kBias, kMultiplier, kGeluTable, kResidual, kResidualScale, kInputs };

struct OpData {
  int scratch;
  int8_t zero_point;
  uint8_t packing;
};

mcuf_in_place_fc_params Params(const Context* context, const Node* node, const OpData& data) {
  const EvalTensor* x = Input(context, node, kX);
  const EvalTensor* weights = Input(context, node, kWeights);
  mcuf_in_place_fc_params params;
  params.tokens = Tokens(x);
  params.in_stride = Dim(x, -1);
  params.in_features = weights == nullptr ? CheckedOption(node, "in_features") : Dim(weights, 1);
  if (data.packing == MCUF_PACKING_PAIRS && params.in_features == params.in_stride + 1) {
    params.in_features = params.in_stride;  // was rounded up to even
  }
  params.packing = data.packing;
  params.out_features = Dim(Output(context, node, 0), -1);
  params.zero_point = data.zero_point;
  params.weights = Data<int8_t>(weights);
  params.bias = Data<int32_t>(Input(context, node, kBias));
  params.multiplier = Data<int32_t>(Input(context, node, kMultiplier));
  params.gelu_table = Data<int8_t>(Input(context, node, kGeluTable));
  params.residual_scale = Data<int16_t>(Input(context, node, kResidualScale));
  params.staged = {};
  params.tokens_per_read = 0;
  if (weights == nullptr) {
    params.staged = StagedOptions(node);
    params.tokens_per_read = CheckedOption(node, "block");
  }
  return params;
}

Status Prepare(Context* context, Node* node) {
  PrepareCheck check(context, node, kInPlaceFcName, kMultiplier + 1, kInputs);
  OpData* data = check.OpData<OpData>();
  const EvalTensor* x = check.Activation(kX, "x");
  const EvalTensor* output = check.OutputActivation();
  const int64_t out = Dim(output, -1);
  check.SameTokens(output, "output", x);
  const int64_t in = check.InputDim(kWeights, 1);
  data->packing = check.Layer(kWeights, out, Shape(out, in), Shape((out + 1) / 2, in + in % 2, 2));
  if (!check.Has(kWeights)) {
    CheckStagedOptions(&check, node);
    check.Option("in_features", 1, MCUF_MAX_FEATURES);
    check.Option("block", 1, MCUF_MAX_TOKENS);
  }
  check.OptionalConstant(kGeluTable, "gelu_table", kInt8, Shape(MCUF_GELU_TABLE_SIZE));
  check.OptionalConstant(kResidualScale, "residual_scale", kInt16, Shape(out));
  const bool has_residual = check.Has(kResidual);
  if (has_residual) check.SameShape(check.Activation(kResidual, "residual"), "residual", output);
  check.Require(has_residual == check.Has(kResidualScale), "residual and residual_scale go together");
  data->zero_point = check.Int8Option("zero_point");
  if (!check.ok()) return kError;
  const mcuf_in_place_fc_params params = Params(context, node, *data);
  check.Kernel(mcuf_in_place_fc_s8_check(&params, has_residual), kLayerLimits);
  if (!check.ok()) return kError;  // only now are the sizes known to be small enough for the next line
  check.Scratch(mcuf_in_place_fc_s8_scratch_bytes(params.in_features, params.staged.tile_bytes, params.tokens_per_read),
                &data->scratch);
  return check.status();
}

Status Eval(Context* context, Node* node) {
  const OpData& data = *static_cast<const OpData*>(node->user_data);
  mcuf_in_place_fc_params params = Params(context, node, data);
  if (FindWeightSource(context, kInPlaceFcName, params.staged.tile_bytes, &params.staged.source) != kOk) return kError;
  return EvalStatus(context, kInPlaceFcName,
                    mcuf_in_place_fc_s8(
                        &params, Data<int8_t>(Input(context, node, kX)), Data<int8_t>(Input(context, node, kResidual)),
                        MutableData<int8_t>(Output(context, node, 0)), GetScratch(context, data.scratch)));
}

}  // namespace

Registration Register_IN_PLACE_FC() { return MakeRegistration(InitOpData<OpData>, Prepare, Eval); }

}  // namespace mcuformer
