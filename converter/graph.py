# SPDX-License-Identifier: Apache-2.0
"""The integer graph: tensors, ops, and its run in integers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

from mcuformer.converter.ops import OPS, wide_activations
from mcuformer.converter.quantise import Quantisation


def to_int8(images: np.ndarray) -> np.ndarray:
    """uint8 pixels -> the int8 values a model takes: uint8 - 128."""
    return (np.ascontiguousarray(images) ^ np.uint8(128)).view(np.int8)


@dataclass(frozen=True)
class Tensor:
    """One tensor of the graph. Activations have data None and a leading batch dimension of 1; they are int8, and int16
    on a wide residual stream.

    features: how many values of the last dimension are meaningful; None: all (attention leaves k and v behind).
    quantisation: of those; None for constants.
    external: in neither arena nor model file: an image in strips, or staged weights.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    quantisation: Quantisation | None = None
    data: np.ndarray | None = None
    features: int | None = None
    external: bool = False

    @property
    def is_constant(self) -> bool:
        return self.data is not None

    @property
    def quantised_by(self) -> Quantisation:
        """The quantisation of an activation. ValueError for a tensor without one."""
        if self.quantisation is None:
            raise ValueError(f"tensor {self.name} has no quantisation")
        return self.quantisation

    @property
    def values(self) -> np.ndarray:
        """The data of a constant. ValueError for a tensor without data."""
        if self.data is None:
            raise ValueError(f"tensor {self.name} has no data here")
        return self.data

    def dequantise(self, value: np.ndarray) -> np.ndarray:
        """Integers [..., last dimension] -> float64, only the meaningful features."""
        return self.quantised_by.dequantise(value[..., : self.features])

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


@dataclass(frozen=True)
class Op:
    """One op. kind: a key of ops.OPS; inputs: tensor indices, -1 for an optional one left out; options: of its module's
    type Options."""

    kind: str
    inputs: tuple[int, ...]
    output: int
    options: Any

    @property
    def module(self) -> ModuleType:
        return OPS[self.kind]


@dataclass
class Graph:
    """Tensors and ops in order of execution. inputs and output are tensor indices. External tensors come last."""

    tensors: list[Tensor] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    output: int = -1

    def add_tensor(self, tensor: Tensor) -> int:
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def add_input(
        self, name: str, shape: tuple[int, ...], quantisation: Quantisation | None = None,
        dtype: np.dtype = np.dtype(np.int8),
    ) -> int:  # fmt: skip
        self.inputs.append(self.add_tensor(Tensor(name, tuple(shape), dtype, quantisation)))
        return self.inputs[-1]

    def add_op(
        self,
        kind: str,
        name: str,
        options,
        activations: dict[str, int],
        constants: dict[str, np.ndarray | None],
        quantisation: Quantisation | None = None,
        features: int | None = None,
    ) -> int:
        """Appends an op whose output is called `name` (constants: `name/...`); returns the output's tensor index."""
        module = OPS[kind]
        inputs = []
        for role in module.INPUTS:
            if role in activations:
                inputs.append(activations[role])
            elif constants.get(role) is not None:
                data = np.ascontiguousarray(constants[role])
                inputs.append(self.add_tensor(Tensor(f"{name}/{role}", data.shape, data.dtype, None, data)))
            else:
                inputs.append(-1)
        shape = module.output_shape(options, self._shapes(inputs))
        dtype = np.dtype(np.int16 if "output" in wide_activations(module, options) else np.int8)
        index = self.add_tensor(Tensor(name, tuple(shape), dtype, quantisation, features=features))
        self.ops.append(Op(kind, tuple(inputs), index, options))
        return index

    @property
    def is_wide(self) -> bool:
        """Whether the residual stream is int16."""
        return any(getattr(op.options, "wide", 0) for op in self.ops)

    def dims(self, op: Op) -> Any:
        """The op's dimensions, of its module's type Dims."""
        return op.module.dims(op.options, self._shapes(op.inputs))

    def scratch_bytes(self, op: Op) -> int:
        """Bytes of scratch that the op's kernel asks for."""
        return op.module.scratch_bytes(self.dims(op))

    def weights(self, op: Op) -> list[int]:
        """The op's weight matrices, which may be packed or staged: tensor indices."""
        module = op.module
        found = [op.inputs[module.INPUTS.index(name)] for name in getattr(module, "WEIGHTS", ())]
        return [i for i in found if i >= 0]

    def _shapes(self, indices) -> list[tuple[int, ...] | None]:
        return [self.tensors[i].shape if i >= 0 else None for i in indices]

    def run(self, *inputs: np.ndarray, record: Callable[[str, np.ndarray], None] | None = None) -> np.ndarray:
        """Runs the integer reference on int8 inputs [batch, ...] -> int8 [batch, ...] (the logits of a model).

        record(name, value) is called with every activation, int8 or int16 [batch, ...].
        """
        last_use = {i: step for step, op in enumerate(self.ops) for i in op.inputs}
        values = dict(zip(self.inputs, inputs, strict=True))
        batch = len(inputs[0])
        for step, op in enumerate(self.ops):
            sources = [None if i < 0 else values.get(i, self.tensors[i].data) for i in op.inputs]
            tensor = self.tensors[op.output]
            value = op.module.reference(op.options, *sources).reshape(batch, *tensor.shape[1:])
            values[op.output] = value
            if record:
                record(tensor.name, value[..., : tensor.features])
            for i in op.inputs:
                if i in values and last_use[i] == step and i != self.output:
                    del values[i]
        return values[self.output]

    @property
    def output_scale(self) -> float:
        """What one step of the int8 output is worth: (value - output_zero_point) * output_scale."""
        return float(self.tensors[self.output].quantised_by.scale)

    @property
    def output_zero_point(self) -> int:
        return int(self.tensors[self.output].quantised_by.zero_point)

    def logits(self, output: np.ndarray) -> np.ndarray:
        """int8 outputs of the graph -> float32 logits, or the embedding of a network without a head."""
        return self.tensors[self.output].quantised_by.dequantise(output).astype(np.float32)

    def reference(self, images: np.ndarray, batch_size: int = 32) -> np.ndarray:
        """The integer reference's logits. images uint8 [n, H, W, C] -> float32 [n, classes]."""
        classes = self.tensors[self.output].shape[-1]
        parts = [self.run(to_int8(images[i : i + batch_size])) for i in range(0, len(images), batch_size)]
        return self.logits(np.concatenate(parts) if parts else np.zeros((0, classes), np.int8))
