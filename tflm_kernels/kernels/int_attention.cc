// SPDX-License-Identifier: Apache-2.0
//
// mcuformer.IntAttention: multi-head attention on each token's q, k, v; see core/mcuf_int_attention_s8.h.
//   inputs   qkv [1,N,S] int8, S >= (h + 2 * kv_heads) * head_dim; head_params [h,4] int32; with relative positions
//            relative_params [h,2] int32, and relative_bias [h,B] int16 or relative_keys and relative_values
//            [E,head_dim] int8; see core/mcuf_relative_position.h for B and E
//   output   [1,N,S], which may overwrite qkv, or [1,N,h*head_dim]
//   options  kv_heads, head_dim, zero_point; with relative positions grid_rows, grid_columns
#include "../core/mcuf_int_attention_s8.h"
#include "../mcuformer_ops.h"
#include "kernel_check.h"
#include "staged_weights.h"

namespace mcuformer {
namespace {

enum { kQkv, kHeadParams, kRelativeParams, kRelativeBias, kRelativeKeys, kRelativeValues, kInputs };

struct OpData {
  int scratch;
  int16_t kv_heads;
  int16_t head_dim;
  int8_t zero_point;
};

mcuf_relative_position RelativePosition(const Context* context, const Node* node) {
  mcuf_relative_position relative = {};
  const EvalTensor* params = Input(context, node, kRelativeParams);
  if (params == nullptr) return relative;
  relative.rows = CheckedOption(node, "grid_rows");
  relative.columns = CheckedOption(node, "grid_columns");
  relative.head_params = Data<int32_t>(params);
  relative.bias = Data<int16_t>(Input(context, node, kRelativeBias));
  relative.keys = Data<int8_t>(Input(context, node, kRelativeKeys));
  relative.values = Data<int8_t>(Input(context, node, kRelativeValues));
  relative.kernels = &mcuf_relative;
  return relative;
}

mcuf_int_attention_params Params(const Context* context, const Node* node, const OpData& data) {
  const EvalTensor* qkv = Input(context, node, kQkv);
  const EvalTensor* head_params = Input(context, node, kHeadParams);
  mcuf_int_attention_params params;
  params.tokens = Dim(qkv, 1);
  params.num_heads = Dim(head_params, 0);
  params.kv_heads = data.kv_heads;
  params.head_dim = data.head_dim;
  params.in_stride = Dim(qkv, -1);
  params.out_stride = Dim(Output(context, node, 0), -1);
  params.zero_point = data.zero_point;
  params.head_params = Data<int32_t>(head_params);
  params.relative = RelativePosition(context, node);
  return params;
}

// The inputs and options of relative positions.
void CheckRelativePosition(PrepareCheck* check, int64_t tokens, int64_t heads, int64_t head_dim) {
  check->OptionalConstant(kRelativeParams, "relative_params", kInt32, Shape(heads, MCUF_RELATIVE_HEAD_PARAMS));
  const bool tables = check->Has(kRelativeKeys);
  check->Require(tables == check->Has(kRelativeValues), "relative_keys and relative_values go together");
  check->Require(
      check->Has(kRelativeParams) == (tables || check->Has(kRelativeBias)) && !(tables && check->Has(kRelativeBias)),
      "relative_params go with relative_bias, or with relative_keys and relative_values");
  if (!check->Has(kRelativeParams)) return;
  const int64_t rows = check->Option("grid_rows", 1, MCUF_ATTENTION_MAX_TOKENS);
  const int64_t columns = check->Option("grid_columns", 1, MCUF_ATTENTION_MAX_TOKENS);
  check->Require(rows * columns <= tokens, "grid_rows * grid_columns is more than the tokens");
  check->Require(tokens <= MCUF_ATTENTION_MAX_TOKENS, "there are too many tokens");
  if (!check->ok()) return;  // only now are the sizes known to be small enough for the next lines
  const int32_t r = static_cast<int32_t>(rows), c = static_cast<int32_t>(columns), n = static_cast<int32_t>(tokens);
  const Shape table(mcuf_relative_table_length(r, c, n), head_dim);
  check->OptionalConstant(kRelativeBias, "relative_bias", kInt16, Shape(heads, mcuf_relative_bias_length(r, c, n)));
  check->OptionalConstant(kRelativeKeys, "relative_keys", kInt8, table);
  check->OptionalConstant(kRelativeValues, "relative_values", kInt8, table);
}

Status Prepare(Context* context, Node* node) {
  PrepareCheck check(context, node, kIntAttentionName, kRelativeParams, kInputs);
  OpData* data = check.OpData<OpData>();
  const EvalTensor* qkv = check.Activation(kQkv, "qkv");
  const EvalTensor* output = check.OutputActivation();
  const int64_t heads = check.InputDim(kHeadParams, 0);
  const int64_t head_dim = check.Option("head_dim", 1, MCUF_ATTENTION_MAX_HEAD_DIM);
  data->head_dim = static_cast<int16_t>(head_dim);
  data->kv_heads = static_cast<int16_t>(check.Option("kv_heads", 1, MCUF_MAX_FEATURES));
  data->zero_point = check.Int8Option("zero_point");
  const int64_t tokens = Dim(qkv, 1), stride = Dim(qkv, 2);
  check.SingleBatch(qkv, "qkv", 3);
  check.ShapeIs(output, "output", Shape(1, tokens, Dim(output, -1) == stride ? stride : heads * head_dim));
  check.Constant(kHeadParams, "head_params", kInt32, Shape(heads, MCUF_ATTENTION_HEAD_PARAMS));
  CheckRelativePosition(&check, tokens, heads, head_dim);
  if (!check.ok()) return kError;
  const mcuf_int_attention_params params = Params(context, node, *data);
  check.Kernel(
      mcuf_int_attention_s8_check(&params),
      "score_multiplier from 0, out_multiplier from 2^30, out_exponent from -8 to 12, less with more than 512 "
      "tokens, score_shift in int32; relative positions: factor of biases from 1 to head_dim, multipliers from 0");
  if (!check.ok()) return kError;  // only now are the sizes known to be small enough for the next line
  const mcuf_relative_position& relative = params.relative;
  const int32_t length =
      relative.keys == nullptr ? 0 : mcuf_relative_table_length(relative.rows, relative.columns, params.tokens);
  check.Scratch(mcuf_int_attention_s8_scratch_bytes(params.tokens, params.head_dim, length), &data->scratch);
  return check.status();
}

Status Eval(Context* context, Node* node) {
  const OpData& data = *static_cast<const OpData*>(node->user_data);
  const mcuf_int_attention_params params = Params(context, node, data);
  return EvalStatus(
      context, kIntAttentionName,
      mcuf_int_attention_s8(&params, Data<int8_t>(Input(context, node, kQkv)),
                            MutableData<int8_t>(Output(context, node, 0)), GetScratch(context, data.scratch)));
}

}  // namespace

Registration Register_INT_ATTENTION() { return MakeRegistration(InitOpData<OpData>, Prepare, Eval); }

}  // namespace mcuformer
