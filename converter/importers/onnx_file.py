# SPDX-License-Identifier: Apache-2.0
"""The state dict of a network in an ONNX file, as torch.onnx.export writes it.

Biases, norms and convolutions keep their names. A matrix loses its own where the export transposes it, and constants
that the export works out have new ones: "onnx::MatMul_214" or, of the exporter of torch 2.5 and later, "val_12",
"expand". The path of a product's node, or its metadata, says whose matrix it is. Class and other tokens are those that
a node puts before the patches; positions may be constants of nodes of the embeddings.
"""

from __future__ import annotations

import ast
import os
import re
from typing import Any

import numpy as np
import torch

from mcuformer.errors import ModelError, ToolchainError

LEGACY = "onnx::"
ANONYMOUS = re.compile(r"onnx::.*|val_\d+|(expand|scalar_tensor_default)(_\d+)?")
RELATIVE = re.compile(r"(relative_position|position_bias|rel_pos)")
POSITIONS = "embeddings.position_embeddings"
ATTENTION, IN_PROJ = "self_attention", "in_proj_weight"  # torch's MultiheadAttention has its first matrix itself
READERS, LEAVES = ("LayerNormalization", "Add", "Mul", "Gemm", "Conv"), ("weight", "bias", "gamma", "lambda1")
SCOPES = "pkg.torch.onnx.name_scopes"  # of a node's metadata: its modules, from the whole network to the function


def read(path: str | os.PathLike, part: str | None = None) -> dict[str, torch.Tensor]:
    """part: only what lies below this module, such as "backbone", whose name is taken off. ModelError if the file is
    damaged, holds its weights elsewhere, has no such part, or a matrix of no known owner; ToolchainError without the
    package onnx."""
    try:
        import onnx
    except ImportError as error:
        raise ToolchainError(f"{path}: the package onnx is not installed; pip install onnx") from error
    try:
        graph = onnx.load(path, load_external_data=False).graph
        _check_texts(graph)
        outside = any(one.external_data for one in graph.initializer)
        held = {} if outside else {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    except Exception as error:  # of protobuf, of numpy: a damaged file raises many kinds
        raise ModelError(f"{path}: not a readable ONNX file ({type(error).__name__}); copy it again") from error
    if outside:
        raise ModelError(f"{path}: its weights lie in another file; export it into one (external_data=False)")
    _refuse_relative(graph, held, path, part)
    held |= _shared(graph, held)
    state = {name: value for name, value in held.items() if not ANONYMOUS.fullmatch(name)}
    known: set[str] = set()
    state |= _matrices(graph, held, known, str(path))
    state |= _positions(graph, held, known)
    state |= _tokens(graph, held, known, state, str(path))
    for name, value in held.items():
        if (
            ANONYMOUS.fullmatch(name)
            and name not in known
            and value.size > 1
            and value.dtype.kind == "f"
            and value.any()
        ):
            raise ModelError(f"{path}: constant '{name}' {list(value.shape)} is of no module that is known: export the "
                             "network as it is, without changes to its forward()")  # fmt: skip
    if part is not None:
        state = {name.removeprefix(f"{part}."): value for name, value in state.items() if name.startswith(f"{part}.")}
        if not state:
            raise ModelError(f"{path}: weights = {part!r}: no tensor's name begins with '{part}.'")
    return {name: torch.from_numpy(np.array(value)) for name, value in state.items() if value.dtype.kind == "f"}


def _check_texts(graph: Any) -> None:
    """TypeError if a name is no text: protobuf gives bytes that are not UTF-8 as they are."""
    for node in graph.node:
        scopes = (text for one in node.metadata_props for text in (one.key, one.value))
        "".join([node.name, node.op_type, *node.input, *node.output, *scopes])
    "".join(one.name for one in graph.initializer)


def _refuse_relative(graph: Any, held: dict[str, np.ndarray], path: str | os.PathLike, part: str | None) -> None:
    """ModelError if scores have relative positions: an export folds them, so that no tensor's name tells of them."""
    for node in graph.node:
        folded = node.op_type == "Add" and any(
            ANONYMOUS.fullmatch(name) and name in held and held[name].ndim == 4 and held[name].any()
            for name in node.input
        )  # a mask of zeros, as transformers has it, adds nothing
        below = part is None or f"{_path(node)}.".startswith(f"{part}.")
        if below and (folded or RELATIVE.search(_path(node))):
            raise ModelError(
                f"{path}: node '{node.name}' adds relative positions, which the export folded; import the module "
                "itself, or its state dict"
            )


def _path(node: Any) -> str:
    """The module that a node is of: /blocks/blocks.0/mlp/fc1/MatMul -> blocks.0.mlp.fc1, or what its metadata say."""
    scopes = next((one.value for one in node.metadata_props if one.key == SCOPES), None)
    if scopes is not None:
        try:
            return str(ast.literal_eval(scopes)[-2])
        except (ValueError, SyntaxError, IndexError, TypeError):
            return ""
    parts = node.name.strip("/").split("/")[:-1]
    # A list's entry comes after the list, and has its name too.
    return ".".join(one for i, one in enumerate(parts) if not "".join(parts[i + 1 : i + 2]).startswith(f"{one}."))


def _matrices(graph: Any, held: dict[str, np.ndarray], known: set[str], source: str) -> dict[str, np.ndarray]:
    """Anonymous [in, out] of products, as the [out, in] of their modules. Adds those names to known."""
    found = {}
    for node in graph.node:
        for name in node.input if node.op_type in ("MatMul", "Gemm") else ():
            if ANONYMOUS.fullmatch(name) and name in held and held[name].ndim == 2:
                owner = _path(node)
                if not owner:
                    raise ModelError(f"{source}: matrix '{name}' of node '{node.name}': nothing says whose it is")
                found[f"{owner}.{IN_PROJ if owner.endswith(ATTENTION) else 'weight'}"] = held[name].T
                known.add(name)
    return found


def _shared(graph: Any, held: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Equal tensors may be stored once: under an Identity's output, or read by a node of another module."""
    found: dict[str, np.ndarray] = {}
    for node in graph.node:
        if node.op_type == "Identity" and node.input and node.input[0] in held:
            found.update((name, held[node.input[0]]) for name in node.output)
        scope = _path(node)
        if not scope or scope.endswith(ATTENTION) or node.op_type not in READERS:
            continue
        for name in node.input:
            owner, _, leaf = name.rpartition(".")
            if name in held and owner and owner != scope and leaf in LEAVES:
                found[f"{scope}.{leaf}"] = held[name]
    return {name: value for name, value in found.items() if name not in held}


def _tokens(
    graph: Any, held: dict[str, np.ndarray], known: set[str], state: dict[str, np.ndarray], source: str
) -> dict[str, np.ndarray]:
    """Constants [batch, n, d] that a node puts beside the patches: first the class token, then distillation or
    registers."""
    found: dict[str, np.ndarray] = {}
    for node in graph.node:
        for name in node.input if node.op_type == "Concat" else ():
            if not name.startswith("expand") or name not in held or held[name].ndim != 3:
                continue
            token, at = held[name][:1], _path(node)
            hf = f"{at}." if at.rpartition(".")[2] == "embeddings" else ""
            names = ("cls_token", "distillation_token", "register_tokens") if hf else (
                "class_token" if "conv_proj.weight" in state else "cls_token", "dist_token", "reg_token")  # fmt: skip
            choice = names[0]
            if f"{hf}{choice}" in {**state, **found}:
                choice = names[1] if token.shape[1] == 1 and (hf or "head_dist.weight" in state) else names[2]
            if f"{hf}{choice}" in {**state, **found}:
                raise ModelError(
                    f"{source}: constant '{name}' of node '{node.name}': a third kind of token, or unknown"
                )
            found[f"{hf}{choice}"] = token
            known.add(name)
    return found


def _positions(graph: Any, held: dict[str, np.ndarray], known: set[str]) -> dict[str, np.ndarray]:
    """The class token's position and those of patches, [1, n, d] each, are constants of nodes of the embeddings."""
    tables: dict[str, list[np.ndarray]] = {}
    for node in graph.node:
        owner = f"{_path(node)}."
        if "embeddings." not in owner:
            continue
        key = owner[: owner.index("embeddings.")] + POSITIONS
        names = [name for name in node.input if name.startswith(LEGACY) and name in held and held[name].ndim == 3]
        tables.setdefault(key, []).extend(held[name] for name in names)
        known.update(names)
    ordered = {key: sorted(parts, key=lambda part: part.shape[1]) for key, parts in tables.items() if parts}
    return {key: np.concatenate(parts, axis=1) for key, parts in ordered.items()}
