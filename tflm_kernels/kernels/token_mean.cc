// SPDX-License-Identifier: Apache-2.0
//
// mcuformer.TokenMean: means over one or two ranges of tokens; see core/mcuf_token_mean_s8.h.
//   inputs   x [1,N,d] int8, or int16 of a wide residual stream
//   output   of the type of x, [1,d], or [1,2*d] with a second range; may overwrite x
//   options  in_zero_point, zero_point, multiplier; first_token, token_count of the first range, if it is not all
//            tokens; second_token, second_count, second_multiplier of a second range
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

// Options that few models have are not kept in op data, which costs arena. They are read again for every run.
int32_t Kept(const Node* node, const char* key) {
  int64_t value = 0;
  return ReadOption(node, key, &value) ? static_cast<int32_t>(value) : 0;
}

mcuf_token_mean_params Params(const Context* context, const Node* node, const OpData& data) {
  const EvalTensor* x = Input(context, node, 0);
  mcuf_token_mean_params params;
  params.tokens = Dim(x, 1);
  params.features = Dim(x, 2);
  params.in_zero_point = data.in_zero_point;
  params.zero_point = data.zero_point;
  params.multiplier = data.multiplier;
  params.first_token = Kept(node, "first_token");
  params.token_count = Kept(node, "token_count");
  params.second_token = Kept(node, "second_token");
  params.second_count = Kept(node, "second_count");
  params.second_multiplier = Kept(node, "second_multiplier");
  return params;
}

Status Prepare(Context* context, Node* node) {
  PrepareCheck check(context, node, kTokenMeanName, 1, 1);
  OpData* data = check.OpData<OpData>();
  const EvalTensor* x = check.Stream(0, "x");
  const int64_t tokens = Dim(x, 1), d = Dim(x, 2);
  check.SingleBatch(x, "x", 3);
  const EvalTensor* output = check.OutputStream();
  check.Require(IsWide(output) == IsWide(x), "x and output have different types");
  data->in_zero_point = check.Int8Option("in_zero_point");
  data->zero_point = check.Int8Option("zero_point");
  data->multiplier = static_cast<int32_t>(check.Option("multiplier", 0, INT32_MAX));
  const int64_t first = check.OptionOr("first_token", 0, 0, tokens - 1);
  check.OptionOr("token_count", tokens, 1, tokens - first);
  const int64_t second = check.OptionOr("second_token", 0, 0, tokens - 1);
  const bool two = check.OptionOr("second_count", 0, 1, tokens - second) > 0;
  if (two) {
    check.Option("second_multiplier", 0, INT32_MAX);
  } else {
    check.OptionOr("second_multiplier", 0, 0, 0);
  }
  check.ShapeIs(output, "output", Shape(1, two ? 2 * d : d));
  if (!check.ok()) return kError;
  const mcuf_token_mean_params params = Params(context, node, *data);
  check.Kernel(IsWide(x) ? mcuf_token_mean_s16_check(&params) : mcuf_token_mean_s8_check(&params),
               "zero points from -128 to 127 (0 for int16), multipliers from 0");
  return check.status();
}

Status Eval(Context* context, Node* node) {
  const mcuf_token_mean_params params = Params(context, node, *static_cast<const OpData*>(node->user_data));
  const EvalTensor* x = Input(context, node, 0);
  EvalTensor* output = Output(context, node, 0);
  return EvalStatus(context, kTokenMeanName,
                    IsWide(x) ? mcuf_token_mean_s16(&params, Data<int16_t>(x), MutableData<int16_t>(output))
                              : mcuf_token_mean_s8(&params, Data<int8_t>(x), MutableData<int8_t>(output)));
}

}  // namespace

Registration Register_TOKEN_MEAN() { return MakeRegistration(InitOpData<OpData>, Prepare, Eval); }

}  // namespace mcuformer
