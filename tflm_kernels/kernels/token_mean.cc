// SPDX-License-Identifier: Apache-2.0
//
// mcuformer.TokenMean: mean over tokens; see core/mcuf_token_mean_s8.h.
//   inputs   x [1,N,d] int8
//   output   [1,d], may overwrite x
//   options  in_zero_point, zero_point, multiplier
#include "../core/mcuf_token_mean_s8.h"
#include "../mcuformer_ops.h"
#include "kernel_check.h"

namespace mcuformer {
namespace {

struct OpData {
  int32_t multiplier;
  int8_t in_zero_point;
  int8_t zero_point;
};

mcuf_token_mean_params Params(const Context* context, const Node* node, const OpData& data) {
  const EvalTensor* x = Input(context, node, 0);
  mcuf_token_mean_params params;
  params.tokens = Dim(x, 1);
  params.features = Dim(x, 2);
  params.in_zero_point = data.in_zero_point;
  params.zero_point = data.zero_point;
  params.multiplier = data.multiplier;
  return params;
}

Status Prepare(Context* context, Node* node) {
  PrepareCheck check(context, node, kTokenMeanName, 1, 1);
  OpData* data = check.OpData<OpData>();
  const EvalTensor* x = check.Activation(0, "x");
  const int64_t d = Dim(x, 2);
  check.SingleBatch(x, "x", 3);
  check.ShapeIs(check.OutputActivation(), "output", Shape(1, d));
  data->in_zero_point = check.Int8Option("in_zero_point");
  data->zero_point = check.Int8Option("zero_point");
  data->multiplier = static_cast<int32_t>(check.Option("multiplier", 0, INT32_MAX));
  if (!check.ok()) return kError;
  const mcuf_token_mean_params params = Params(context, node, *data);
  check.Kernel(mcuf_token_mean_s8_check(&params), "zero points from -128 to 127, multiplier from 0");
  return check.status();
}

Status Eval(Context* context, Node* node) {
  const mcuf_token_mean_params params = Params(context, node, *static_cast<const OpData*>(node->user_data));
  return EvalStatus(context, kTokenMeanName,
                    mcuf_token_mean_s8(&params, Data<int8_t>(Input(context, node, 0)),
                                       MutableData<int8_t>(Output(context, node, 0))));
}

}  // namespace

Registration Register_TOKEN_MEAN() { return MakeRegistration(InitOpData<OpData>, Prepare, Eval); }

}  // namespace mcuformer
