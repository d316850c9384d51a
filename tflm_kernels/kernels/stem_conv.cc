// SPDX-License-Identifier: Apache-2.0
//
// mcuformer.StemConv: 3x3 convolution with stride 2; see core/mcuf_stem_conv_s8.h.
//   inputs   x [1,H,W,C] int8; weights [O,3,3,C] int8, in pairs [ceil(O/2),9*C rounded up to even,2]; bias [O] int32;
//            multiplier [O] int32; position [1,N,O] int8 or none; position_scale [O] int16, none without position;
//            prefix [P,O] int8 or none
//   output   [1,ceil(H/2),ceil(W/2),O], or the same as tokens, [1,P+N,O]
//   options  zero_point, pad_value, act_min; packing of the weights, default MCUF_PACKING_ROWS
#include "../core/mcuf_stem_conv_s8.h"
#include "../mcuformer_ops.h"
#include "kernel_check.h"

namespace mcuformer {
namespace {

enum { kX, kWeights, kBias, kMultiplier, kPosition, kPositionScale, kPrefix, kInputs };

struct OpData {
  int scratch;
  int8_t zero_point;
  int8_t pad_value;
  int8_t act_min;
  uint8_t packing;
};

mcuf_stem_conv_params Params(const Context* context, const Node* node, const OpData& data) {
  const EvalTensor* x = Input(context, node, kX);
  mcuf_stem_conv_params params;
  params.height = Dim(x, 1);
  params.width = Dim(x, 2);
  params.in_channels = Dim(x, 3);
  params.out_channels = Dim(Output(context, node, 0), -1);
  params.pad_value = data.pad_value;
  params.zero_point = data.zero_point;
  params.act_min = data.act_min;
  params.packing = data.packing;
  params.weights = Data<int8_t>(Input(context, node, kWeights));
  params.bias = Data<int32_t>(Input(context, node, kBias));
  params.multiplier = Data<int32_t>(Input(context, node, kMultiplier));
  params.position = Data<int8_t>(Input(context, node, kPosition));
  params.position_scale = Data<int16_t>(Input(context, node, kPositionScale));
  params.prefix_tokens = Dim(Input(context, node, kPrefix), 0);
  params.prefix = Data<int8_t>(Input(context, node, kPrefix));
  return params;
}

Status Prepare(Context* context, Node* node) {
  PrepareCheck check(context, node, kStemConvName, kMultiplier + 1, kInputs);
  OpData* data = check.OpData<OpData>();
  const EvalTensor* x = check.Activation(kX, "x");
  const EvalTensor* output = check.OutputActivation();
  const int64_t height = Dim(x, 1), width = Dim(x, 2), channels = Dim(x, 3), out = Dim(output, -1);
  const int64_t out_height = (height + 1) / 2, out_width = (width + 1) / 2;
  check.SingleBatch(x, "x", 4);
  const int64_t prefix = check.InputDim(kPrefix, 0);
  check.OptionalConstant(kPrefix, "prefix", kInt8, Shape(prefix, out));
  if (Dim(output, 3) != 0 && prefix == 0) {
    check.ShapeIs(output, "output", Shape(1, out_height, out_width, out));
  } else {
    check.ShapeIs(output, "output", Shape(1, prefix + out_height * out_width, out));
  }
  const int64_t taps = MCUF_STEM_TAPS * channels;
  check.Require(check.Has(kWeights), "tensor 'weights' is missing");
  data->packing = check.Layer(kWeights, out, Shape(out, 3, 3, channels), Shape((out + 1) / 2, taps + taps % 2, 2));
  check.OptionalConstant(kPosition, "position", kInt8, Shape(1, out_height * out_width, out));
  check.OptionalConstant(kPositionScale, "position_scale", kInt16, Shape(out));
  check.Require(check.Has(kPosition) == check.Has(kPositionScale), "position and position_scale go together");
  data->zero_point = check.Int8Option("zero_point");
  data->pad_value = check.Int8Option("pad_value");
  data->act_min = check.Int8Option("act_min");
  if (!check.ok()) return kError;
  const mcuf_stem_conv_params params = Params(context, node, *data);
  check.Core(mcuf_stem_conv_s8_check(&params), kLayerLimits);
  if (!check.ok()) return kError;  // only now are the sizes known to be small enough for the next line
  check.Scratch(mcuf_stem_conv_s8_scratch_bytes(params.in_channels), &data->scratch);
  return check.status();
}

Status Eval(Context* context, Node* node) {
  const OpData& data = *static_cast<const OpData*>(node->user_data);
  const mcuf_stem_conv_params params = Params(context, node, data);
  return EvalStatus(
      context, kStemConvName,
      mcuf_stem_conv_s8(&params, Data<int8_t>(Input(context, node, kX)), MutableData<int8_t>(Output(context, node, 0)),
                        GetScratch(context, data.scratch)));
}

}  // namespace

Registration Register_STEM_CONV() { return MakeRegistration(InitOpData<OpData>, Prepare, Eval); }

}  // namespace mcuformer
