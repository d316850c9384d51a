// SPDX-License-Identifier: Apache-2.0
//
// What the two Streamed ops share: Prepare and Eval of an op that works in place on the residual stream, with all its
// constants in one params blob.
//   inputs   stream [1,N,d] int8, or int16 if it is wide; params [bytes] uint8, see params_blob.h and
//   streamed_layout.h; none output   as stream, may overwrite it
//
// An Op is a struct of static functions:
//   const char* Name()                                    of the op, for messages
//   const char* Limits()                                  which constants the kernel takes, in a few words
//   bool IsWhole(blob)                                    whether the blob has all sections that Read() reads
//   Params Read(blob, tokens)                             the kernel's params, for an int8 stream; sizes that
//   contradict each other set
//                                                         features or in_features to 0, which the kernel refuses
//   void Check(check, stream, blob, params)               the op's own checks
//   mcuf_status KernelCheck(params); int32_t ScratchBytes(params)
//   int32_t TileBytes(params); void SetSource(params, source)    of staged weights
//   mcuf_status Run(params, stream, scratch)
// and the type Params, which has a `norm`, and kResidualScale, the number of that section.
#ifndef MCUF_KERNELS_STREAMED_OP_H_
#define MCUF_KERNELS_STREAMED_OP_H_

#include <cstring>

#include "../core/mcuf_wide_stream.h"
#include "params_blob.h"
#include "staged_weights.h"

namespace mcuformer {

enum { kStreamedStream, kStreamedParams, kStreamedWeights, kStreamedInputs };

struct StreamedOpData {
  int scratch;
};

inline ParamsBlob StreamedBlob(const Context* context, const Node* node) {
  const EvalTensor* params = Input(context, node, kStreamedParams);
  return ParamsBlob(Data<uint8_t>(params), Dim(params, 0));
}

template <typename Op>
Status PrepareStreamed(Context* context, Node* node) {
  PrepareCheck check(context, node, Op::Name(), kStreamedWeights, kStreamedInputs);
  StreamedOpData* data = check.OpData<StreamedOpData>();
  const EvalTensor* stream = check.Stream(kStreamedStream, "stream");
  const EvalTensor* output = check.OutputStream();
  check.SameShape(output, "output", stream);
  check.Require(IsWide(output) == IsWide(stream), "stream and output have different types");
  check.Require(!check.Has(kStreamedWeights),
                "has a weights tensor, but takes weights from its params or from a weights file");
  check.Constant(kStreamedParams, "params", kUInt8, Shape(check.InputDim(kStreamedParams, 0)));
  if (!check.ok()) return kError;
  const ParamsBlob blob = StreamedBlob(context, node);
  check.Require(Op::IsWhole(blob), "params are not whole: the model is damaged");
  if (!check.ok()) return kError;
  typename Op::Params params = Op::Read(blob, Tokens(stream));
  params.wide = IsWide(stream) ? &mcuf_wide : nullptr;
  Op::Check(&check, stream, blob, params);
  check.Require(params.norm.features > 0, "gamma, beta and factor differ in length");
  check.Require(blob.Count<int16_t>(Op::kResidualScale) == params.norm.features, "residual_scale must have d entries");
  check.Require(Dim(stream, -1) == params.norm.features, "stream and params differ in their channels");
  check.Kernel(Op::KernelCheck(params), Op::Limits());
  if (!check.ok()) return kError;  // only now are the sizes known to be small enough for the next line
  check.Scratch(Op::ScratchBytes(params), &data->scratch);
  return check.status();
}

template <typename Op>
Status EvalStreamed(Context* context, Node* node) {
  const EvalTensor* stream = Input(context, node, kStreamedStream);
  void* output = MutableData<void>(Output(context, node, 0));
  typename Op::Params params = Op::Read(StreamedBlob(context, node), Tokens(stream));
  params.wide = IsWide(stream) ? &mcuf_wide : nullptr;
  if (output != Data<void>(stream)) {
    const int32_t bytes = Elements(stream) * mcuf_stream_bytes(params.wide);
    memmove(output, Data<void>(stream), static_cast<size_t>(bytes));
  }
  const mcuf_weight_source* source = nullptr;
  if (FindWeightSource(context, Op::Name(), Op::TileBytes(params), &source) != kOk) return kError;
  Op::SetSource(&params, source);
  void* scratch = GetScratch(context, static_cast<const StreamedOpData*>(node->user_data)->scratch);
  return EvalStatus(context, Op::Name(), Op::Run(params, output, scratch));
}

template <typename Op>
Registration RegisterStreamed() {
  return MakeRegistration(InitOpData<StreamedOpData>, PrepareStreamed<Op>, EvalStreamed<Op>);
}

}  // namespace mcuformer

#endif  // MCUF_KERNELS_STREAMED_OP_H_
