# SPDX-License-Identifier: Apache-2.0
"""Every op on an int16 residual stream: C and glue against the reference; what they refuse."""


import numpy as np
import pytest
import wide_cases

from mcuformer import run_op


def run(case, engine, constants=None, **options):
    (op,) = case.graph.ops
    roles = dict(zip(op.module.INPUTS, op.inputs, strict=True))
    given = dict(zip(case.graph.inputs, case.inputs, strict=True))
    activations = {role: given[i] for role, i in roles.items() if i in given}
    held = {role: case.graph.tensors[i].data for role, i in roles.items() if i >= 0 and role not in activations}
    return run_op(op.kind, activations, {**held, **(constants or {})}, {**vars(op.options), **options}, engine=engine)


@pytest.mark.parametrize("kind", sorted(set(wide_cases.KINDS), key=str), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("engine", ["c", "tflm"])
def test_c_equals_the_reference(kind, engine):
    rng = np.random.default_rng(0)
    for _ in range(15):
        case = kind(rng)
        want = case.reference()
        got = run(case, engine)
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want, err_msg=str(case.graph.ops[0]))
