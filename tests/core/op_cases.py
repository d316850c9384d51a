# SPDX-License-Identifier: Apache-2.0
"""Runs an op of its own, given as an OpCase, by the kernels."""

from mcuformer import run_op


def run(case, engine, *, without=(), **changed):
    """The case in an engine. changed: options, or constants; without: names of constants."""
    (op,), tensors = case.graph.ops, case.graph.tensors
    given, roles = dict(zip(case.graph.inputs, case.inputs, strict=True)), zip(op.module.INPUTS, op.inputs, strict=True)
    values = {role: given[i] if i in given else tensors[i].data for role, i in roles if i >= 0}
    options = {name: changed.pop(name, value) for name, value in vars(op.options).items()}
    activations = {role: value for role, value in values.items() if any(value is x for x in case.inputs)}
    constants = {role: value for role, value in values.items() if role not in activations and role not in without}
    return run_op(op.kind, activations, constants | changed, options, engine=engine)
