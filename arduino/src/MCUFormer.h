// SPDX-License-Identifier: Apache-2.0
//
// The network of this library as plain C, see mcuformer/model/model.h. MCUFormerCamera.h is for cameras,
// MCUFormerTFLM.h for TensorFlow Lite Micro.
#ifndef MCUFORMER_H_
#define MCUFORMER_H_

#include "mcuformer/model/model.h"
#include "mcuformer/model/model_confidence.h"

#endif  // MCUFORMER_H_
