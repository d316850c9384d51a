# SPDX-License-Identifier: Apache-2.0
"""Float network -> int8 graph -> memory plan -> .tflite."""
