// SPDX-License-Identifier: Apache-2.0
//
// mcuformer.IntGeLU: int8 -> int8 through a table; see core/mcuf_int_gelu_s8.h.
//   inputs   x int8 of any shape; table [256] int8, indexed by value + 128
//   output   as x, may overwrite it
//   options  none
#include "../core/mcuf_int_gelu_s8.h"
#include "../mcuformer_ops.h"
#include "kernel_check.h"

namespace mcuformer {
namespace {

enum { kX, kTable, kInputs };

Status Prepare(Context* context, Node* node) {
  PrepareCheck check(context, node, kIntGeluName, kInputs, kInputs);
  const EvalTensor* x = check.Activation(kX, "x");
  check.SameShape(check.OutputActivation(), "output", x);
  check.Constant(kTable, "table", kInt8, Shape(MCUF_GELU_TABLE_SIZE));
  return check.status();
}

Status Eval(Context* context, Node* node) {
  const EvalTensor* x = Input(context, node, kX);
  return EvalStatus(context, kIntGeluName,
                    mcuf_int_gelu_s8(Data<int8_t>(Input(context, node, kTable)), Data<int8_t>(x),
                                     MutableData<int8_t>(Output(context, node, 0)), Elements(x)));
}

}  // namespace

Registration Register_INT_GELU() { return MakeRegistration(nullptr, Prepare, Eval); }

}  // namespace mcuformer
