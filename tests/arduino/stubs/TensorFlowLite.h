// SPDX-License-Identifier: Apache-2.0
// Of the library Arduino_TensorFlowLite: it has nothing in it there either. TFLM's headers are tests/tflm_api/a_2023.
