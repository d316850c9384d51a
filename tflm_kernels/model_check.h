// SPDX-License-Identifier: Apache-2.0
//
// Checks a .tflite file of mcuformer on the device, before an interpreter follows its offsets:
//
//   if (const char* wrong = mcuformer::CheckModel(model_data, model_data_len)) { print it and stop }
//
// Without heap, and without an interpreter. Firmware that is exported calls it if MCUFORMER_CHECK_MODEL is defined.
#ifndef MCUF_MODEL_CHECK_H_
#define MCUF_MODEL_CHECK_H_

#include <cstddef>

namespace mcuformer {

// nullptr if the `bytes` at `model` are a whole, undamaged model; else what is wrong with them, one line. It is if
// - its SHA-256 is the one in the file,
// - all that TFLM's interpreter reads lies inside the file and is aligned, and nothing is there that mcuformer does not
//   write,
// - all indices are in range, constants have as many bytes as their shape says, and every activation is made once,
//   before it is read, where no constant is,
// - no tensor of the memory plan, if there is one, lies over another in use, but an output over the input that its op
//   may overwrite.
// What the ops themselves need is checked in their Prepare.
const char* CheckModel(const void* model, size_t bytes);

}  // namespace mcuformer

#endif  // MCUF_MODEL_CHECK_H_
