// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "camera.h"

class GC2145 : public ImageSensor {};
