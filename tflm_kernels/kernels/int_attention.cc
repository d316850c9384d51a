// SPDX-License-Identifier: Apache-2.0
//
// mcuformer.IntAttention: multi-head attention on each token's q, k, v; see core/mcuf_int_attention_s8.h.
//   inputs   qkv [1,N,S] int8, S >= (h + 2 * kv_heads) * head_dim; head_params [h,4] int32
//   output   [1,N,S], which may overwrite qkv, or [1,N,h*head_dim]
//   options  kv_heads, head_dim, zero_point
#include "../core/mcuf_int_attention_s8.h"
#include "../mcuformer_ops.h"
#include "kernel_check.h"

namespace mcuformer {
namespace {

enum { kQkv, kHeadParams, kInputs };

struct OpData {
  int scratch;
  int16_t kv_heads;
  int16_t head_dim;
  int8_t zero_point;
};

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
  return params;
}

Status Prepare(Context* context, Node* node) {
  PrepareCheck check(context, node, kIntAttentionName, kInputs, kInputs);
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
  if (!check.ok()) return kError;
  const mcuf_int_attention_params params = Params(context, node, *data);
  check.Core(mcuf_int_attention_s8_check(&params),
             "score_multiplier from 0, out_multiplier from 2^30, out_exponent from -8 to 12, less with more than 512 "
             "tokens, score_shift in int32");
  if (!check.ok()) return kError;  // only now are the sizes known to be small enough for the next line
  check.Scratch(mcuf_int_attention_s8_scratch_bytes(params.tokens, params.head_dim), &data->scratch);
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
