// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "camera.h"

class HM0360 : public ImageSensor {};
