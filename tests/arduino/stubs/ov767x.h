// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "camera.h"

class OV7670 : public ImageSensor {};
class OV7675 : public OV7670 {};
