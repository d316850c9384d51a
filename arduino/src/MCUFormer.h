// SPDX-License-Identifier: Apache-2.0
//
// The network of this library as plain C, see models/model/model.h. MCUFormerCamera.h is for cameras,
// MCUFormerTFLM.h for TensorFlow Lite Micro.
#ifndef MCUFORMER_H_
#define MCUFORMER_H_

#include "models/model/model.h"
#include "models/model/model_confidence.h"

#endif  // MCUFORMER_H_
