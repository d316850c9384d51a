// SPDX-License-Identifier: Apache-2.0
#include "../../../../a/tensorflow/lite/micro/micro_mutable_op_resolver.h"
