# SPDX-License-Identifier: Apache-2.0
"""Runs a model on the host: the official tflite-micro interpreter with the microcontroller's kernels."""

import sys

import numpy as np

import mcuformer

data = mcuformer.data.load("fashion-mnist", "test")
interpreter = mcuformer.Interpreter(sys.argv[1])
logits = interpreter(data.images)
top1 = (logits.argmax(axis=1) == data.labels).mean()
print(f"top-1 {100 * top1:.2f} % on {len(data)} images, arena {interpreter.arena_used_bytes:,} bytes")

# The integer reference in numpy is the specification: the kernels equal it in every bit.
same = np.array_equal(logits[:100], interpreter.reference(data.images[:100]))
print(f"100 images, logits equal to the numpy reference: {same}")

for image, label in zip(data.images[:3], data.labels[:3], strict=True):
    scores = interpreter(image[None])[0]
    print(f"{data.class_names[label]}: {interpreter.class_names[scores.argmax()]}, logit {scores.max():.2f}")

# What every op makes, dequantised.
for name, values in list(interpreter.layer_outputs(data.images[0]).items())[:4]:
    print(f"{name:20} {'x'.join(map(str, values.shape)):10} from {values.min():6.2f} to {values.max():5.2f}")
