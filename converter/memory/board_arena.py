# SPDX-License-Identifier: Apache-2.0
"""The arena that a model needs on a 32-bit microcontroller, bytes: head, tail, and what planning needs temporarily.

The head is the host's: kernels ask for the same scratch, and buffers begin at multiples of 16 bytes there too. The tail
holds structures of pointers, which are half as large. Sizes below are those of Cortex-M; if versions of TFLM from
2021-09 on differ, the largest. They were read from its headers, and the sums measured on a Cortex-M4 (see the test).
"""

from __future__ import annotations

from mcuformer.converter.file_form import stored_tensors
from mcuformer.converter.graph import Graph
from mcuformer.converter.memory.arena import ArenaPlan, with_op_data
from mcuformer.converter.memory.plan import ALIGNMENT, align

# The tail.
BASE = 140  # allocators 40, 40 and 8, greedy planner 44, graph 8, as in 2022-04; less before, 132 to 136 since
PER_OP = 32  # NodeAndRegistration: node 28, pointer to the registration
PER_TENSOR = 12  # TfLiteEvalTensor: data, dimensions, type
PER_SCRATCH = 4  # ScratchBufferHandle
PER_POINTER = 4  # per input, and to the output
PER_PORT = 60  # per input, and of the output: TfLiteTensor 40 (32 with short enums), quantisation 12, its zero point 8

# Only while the model is being prepared, at the bottom of the arena.
REQUEST = 12  # ScratchBufferRequest
SPARE_REQUESTS = 12  # for those that the next op may make
LIST_BASE = 4  # where the subgraph's tensors begin
PER_BUFFER = 24  # AllocationInfo per tensor and scratch buffer
PER_PLANNED_BUFFER = 40  # in the planner's lists: activations and scratch
OLD_REQUEST = 8  # ScratchBufferRequest until 2022-03

# If TFLM is built without TF_LITE_STATIC_MEMORY, as the Arduino library is.
MORE_PER_OP = 12  # node 40
MORE_PER_PORT = 24  # TfLiteTensor 64


def board_arena_bytes(graph: Graph, plan: ArenaPlan) -> int:
    """Bytes of arena that are always enough on a Cortex-M for a graph and its plan: see arena_of."""
    return arena_of(
        plan.head_bytes,
        op_data=tuple(op.module.OP_DATA_BYTES for op in graph.ops),
        tensors=stored_tensors(graph),
        inputs=sum(not graph.tensors[i].external for i in graph.inputs),
        scratch=len(plan.problem.scratch),
        activations=len(plan.problem.buffers),
    )


def arena_of(head: int, op_data: tuple[int, ...], tensors: int, inputs: int, scratch: int, activations: int) -> int:
    """Bytes of arena, aligned to 16 bytes, that are always enough on a Cortex-M; at most 5 % above the minimum.

    With ops (op_data: bytes of each, 0 for none), tensors (all in the file), scratch buffers and activations counted,
    planned = scratch + activations, and |x| = x rounded up to 16:

        tail      140 + 32 * ops + 12 * tensors, then |tail + op data| for each op that keeps any, then 4 * scratch
        whole     |tail + 4 * inputs| + 60 * inputs, then |... + 4| + 60 for the output

    is what the interpreter takes from the top, `tail` before the head is planned and the rest after it. The arena is
    the largest of

        |head + whole|                                             what arena_used_bytes() reports, rounded up
        |tail| + ||12 * (scratch + 12) + 4 + 24 * (tensors + scratch)| + 40 * planned|
                                                                   while the head is planned
        |tail| + |8 * (scratch + 12)| + head                       TFLM until 2022-03, which checks that the head fits
                                                                   before it frees the list of requests

    For the interpreter's own greedy planner, which is in the tail; TokenOverwritePlanner needs no more: its 40 bytes
    per buffer are the same, and its state is not in the arena.
    """
    tail = BASE + PER_OP * len(op_data) + PER_TENSOR * tensors
    tail = with_op_data(tail, op_data) + PER_SCRATCH * scratch
    whole = tail
    for ports in (inputs, 1):
        whole = align(whole + PER_POINTER * ports) + PER_PORT * ports

    lists = REQUEST * (scratch + SPARE_REQUESTS) + LIST_BASE + PER_BUFFER * (tensors + scratch)
    planner = PER_PLANNED_BUFFER * (activations + scratch)
    return max(
        align(head + whole),
        align(tail) + align(align(lists) + planner),
        align(tail) + align(OLD_REQUEST * (scratch + SPARE_REQUESTS)) + head,
    )


def more_without_static_memory(graph: Graph) -> int:
    """How many bytes more the arena takes if TFLM is built without TF_LITE_STATIC_MEMORY."""
    ports = sum(not graph.tensors[i].external for i in graph.inputs) + 1
    return align(MORE_PER_OP * len(graph.ops) + MORE_PER_PORT * ports) + 2 * ALIGNMENT
