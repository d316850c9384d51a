# SPDX-License-Identifier: Apache-2.0
"""The state dict of a network in an ONNX file, as torch.onnx.export writes it.

Biases, norms and convolutions keep their names. A matrix loses its own where the export transposes it: its node's path
says whose it is. So do positions that the export folds into constants.
"""

from __future__ import annotations

import os
import re
from typing import Any

import numpy as np
import torch

from mcuformer.errors import ModelError, ToolchainError

ANONYMOUS = "onnx::"
RELATIVE = re.compile(r"(relative_position|position_bias|rel_pos)")
POSITIONS = "embeddings.position_embeddings"


def read(path: str | os.PathLike, part: str | None = None) -> dict[str, torch.Tensor]:
    """part: only what lies below this module, such as "backbone", whose name is taken off. ModelError if the file is
    damaged, holds its weights elsewhere, or has no such part; ToolchainError without the package onnx."""
    try:
        import onnx
    except ImportError as error:
        raise ToolchainError(f"{path}: the package onnx is not installed; pip install onnx") from error
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception as error:  # protobuf's
        raise ModelError(f"{path}: not a readable ONNX file ({type(error).__name__}); copy it again") from error
    if any(one.external_data for one in graph.initializer):
        raise ModelError(f"{path}: its weights lie in another file; export it into one")
    held = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    _refuse_relative(graph, held, path, part)
    state = {name: value for name, value in held.items() if not name.startswith(ANONYMOUS)}
    state |= _matrices(graph, held)
    state |= _positions(graph, held)
    if part is not None:
        state = {name.removeprefix(f"{part}."): value for name, value in state.items() if name.startswith(f"{part}.")}
        if not state:
            raise ModelError(f"{path}: weights = {part!r}: no tensor's name begins with '{part}.'")
    return {name: torch.from_numpy(np.array(value)) for name, value in state.items() if value.dtype.kind == "f"}


def _refuse_relative(graph: Any, held: dict[str, np.ndarray], path: str | os.PathLike, part: str | None) -> None:
    """ModelError if scores have relative positions: an export folds them, so that no tensor's name tells of them."""
    for node in graph.node:
        folded = node.op_type == "Add" and any(
            name.startswith(ANONYMOUS) and name in held and held[name].ndim == 4 for name in node.input
        )
        below = part is None or f"{_path(node)}.".startswith(f"{part}.")
        if below and (folded or RELATIVE.search(_path(node))):
            raise ModelError(
                f"{path}: node '{node.name}' adds relative positions, which the export folded; import the module "
                "itself, or its state dict"
            )


def _path(node: Any) -> str:
    """/encoder/layer.0/mlp/fc1/MatMul -> encoder.layer.0.mlp.fc1"""
    return ".".join(node.name.strip("/").split("/")[:-1])


def _matrices(graph: Any, held: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    found = {}
    for node in graph.node:
        for name in node.input if node.op_type == "MatMul" else ():
            if name.startswith(ANONYMOUS) and name in held and held[name].ndim == 2:
                found[f"{_path(node)}.weight"] = held[name].T
    return found


def _positions(graph: Any, held: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The class token's position and those of patches, [1, n, d] each, are constants of nodes of the embeddings."""
    tables: dict[str, list[np.ndarray]] = {}
    for node in graph.node:
        owner = f"{_path(node)}."
        if "embeddings." not in owner:
            continue
        key = owner[: owner.index("embeddings.")] + POSITIONS
        names = [name for name in node.input if name.startswith(ANONYMOUS) and name in held and held[name].ndim == 3]
        tables.setdefault(key, []).extend(held[name] for name in names)
    ordered = {key: sorted(parts, key=lambda part: part.shape[1]) for key, parts in tables.items() if parts}
    return {key: np.concatenate(parts, axis=1) for key, parts in ordered.items()}
