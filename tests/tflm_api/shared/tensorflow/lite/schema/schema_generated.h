// SPDX-License-Identifier: Apache-2.0
#ifndef MCUF_TESTS_SCHEMA_SCHEMA_GENERATED_H_
#define MCUF_TESTS_SCHEMA_SCHEMA_GENERATED_H_

namespace tflite {

struct Model;
const Model* GetModel(const void* data);

}  // namespace tflite

#endif  // MCUF_TESTS_SCHEMA_SCHEMA_GENERATED_H_
