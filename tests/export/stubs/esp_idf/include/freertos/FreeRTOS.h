/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
#include <stddef.h>
#include <stdint.h>

typedef void (*TaskFunction_t)(void*);
typedef void* TaskHandle_t;
typedef int BaseType_t;
typedef unsigned UBaseType_t;
#define tskNO_AFFINITY ((BaseType_t)0x7fffffff)
#define tskIDLE_PRIORITY 0u
