// SPDX-License-Identifier: Apache-2.0
//
// mcuformer.IntLayerNorm: layer normalisation of each token; see core/mcuf_int_layer_norm_s8.h.
//   inputs   x [1,N,d] or [N,d] int8, or int16 of a wide residual stream, or k tokens side by side, [..,k*d]; gamma [d]
//   int16; beta [d] int32; factor [d]
//            uint8 or none
//   output   int8, of the shape of x, may overwrite it
//   options  zero_point, epsilon (64 bit)
#include "../core/mcuf_int_layer_norm_s8.h"
#include "../mcuformer_ops.h"
#include "kernel_check.h"

namespace mcuformer {
namespace {

enum { kX, kGamma, kBeta, kFactor, kInputs };

struct OpData {
  int64_t epsilon;
  int8_t zero_point;
};

mcuf_int_layer_norm_params Params(const Context* context, const Node* node, const OpData& data) {
  const EvalTensor* x = Input(context, node, kX);
  mcuf_int_layer_norm_params params;
  params.features = Dim(Input(context, node, kGamma), 0);
  params.tokens = Elements(x) / params.features;
  params.zero_point = data.zero_point;
  params.epsilon = data.epsilon;
  params.gamma = Data<int16_t>(Input(context, node, kGamma));
  params.beta = Data<int32_t>(Input(context, node, kBeta));
  params.factor = Data<uint8_t>(Input(context, node, kFactor));
  return params;
}

Status Prepare(Context* context, Node* node) {
  PrepareCheck check(context, node, kIntLayerNormName, kBeta + 1, kInputs);
  OpData* data = check.OpData<OpData>();
  const EvalTensor* x = check.Stream(kX, "x");
  const int32_t width = Dim(x, -1), features = check.InputDim(kGamma, 0);
  const int64_t d = features > 0 && width % features == 0 ? features : width;
  check.SameShape(check.OutputActivation(), "output", x);
  check.Constant(kGamma, "gamma", kInt16, Shape(d));
  check.Constant(kBeta, "beta", kInt32, Shape(d));
  check.OptionalConstant(kFactor, "factor", kUInt8, Shape(d));
  data->zero_point = check.Int8Option("zero_point");
  data->epsilon = check.Option("epsilon", 0, MCUF_LAYER_NORM_MAX_EPSILON);
  if (!check.ok()) return kError;
  const mcuf_int_layer_norm_params params = Params(context, node, *data);
  check.Kernel(IsWide(x) ? mcuf_int_layer_norm_s16_check(&params) : mcuf_int_layer_norm_s8_check(&params),
               "2^10 * (sqrt(d) + 1) * |gamma| + |beta| below 2^31, factor from 1 to 127 (none for an int16 x)");
  return check.status();
}

Status Eval(Context* context, Node* node) {
  const mcuf_int_layer_norm_params params = Params(context, node, *static_cast<const OpData*>(node->user_data));
  const EvalTensor* x = Input(context, node, kX);
  int8_t* output = MutableData<int8_t>(Output(context, node, 0));
  return EvalStatus(context, kIntLayerNormName,
                    IsWide(x) ? mcuf_int_layer_norm_s16(&params, Data<int16_t>(x), output)
                              : mcuf_int_layer_norm_s8(&params, Data<int8_t>(x), output));
}

}  // namespace

Registration Register_INT_LAYER_NORM() { return MakeRegistration(InitOpData<OpData>, Prepare, Eval); }

}  // namespace mcuformer
