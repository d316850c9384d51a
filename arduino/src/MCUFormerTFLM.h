// SPDX-License-Identifier: Apache-2.0
//
// The same network for TensorFlow Lite Micro: its ops, and the model in models/model/model_tflite.h. Include the
// TFLM library's own header first; without that library the ops are left out of the build.
#ifndef MCUFORMER_TFLM_H_
#define MCUFORMER_TFLM_H_

#include "mcuformer/external_context.h"
#include "mcuformer/model_check.h"
#include "mcuformer/op_resolver.h"
#include "mcuformer/token_overwrite_planner.h"
#include "models/model/model_tflite.h"

#endif  // MCUFORMER_TFLM_H_
