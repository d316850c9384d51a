/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
#include <stdio.h>

#include "FreeRTOS.h"

static inline BaseType_t xTaskCreatePinnedToCore(TaskFunction_t task, const char* name, uint32_t stack_bytes,
                                                 void* argument, UBaseType_t priority, TaskHandle_t* handle,
                                                 BaseType_t core) {
  (void)stack_bytes, (void)priority, (void)handle;
  if (core != tskNO_AFFINITY) printf("task %s on core %d\n", name, core);
  task(argument);
  return 1;
}

static inline BaseType_t xTaskCreate(TaskFunction_t task, const char* name, uint32_t stack_bytes, void* argument,
                                     UBaseType_t priority, TaskHandle_t* handle) {
  return xTaskCreatePinnedToCore(task, name, stack_bytes, argument, priority, handle, tskNO_AFFINITY);
}

static inline void vTaskDelete(TaskHandle_t task) { (void)task; }
