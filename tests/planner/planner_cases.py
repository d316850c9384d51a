# SPDX-License-Identifier: Apache-2.0
"""Planning problems for the Python planner and the one for the device, and the exact optimum of small ones."""

from __future__ import annotations

import ctypes

import numpy as np

from mcuformer import kernel_library
from mcuformer.converter.graph import Graph, Op, Tensor
from mcuformer.converter.memory import plan as memory_plan
from mcuformer.converter.memory.arena import problem_of
from mcuformer.converter.memory.plan import Buffer, Problem, Solution
from mcuformer.converter.ops import OPS


def random_problem(rng: np.random.Generator, count: int) -> Problem:
    buffers = []
    for i in range(count):
        first = int(rng.integers(0, 10))
        size, last = int(rng.integers(1, 500)), first + int(rng.integers(1, 5))
        candidates = [j for j, b in enumerate(buffers) if b.last == first and all(o.overwrites != j for o in buffers)]
        over = int(rng.choice(candidates)) if candidates and rng.random() < 0.6 else None
        buffers.append(Buffer(f"t{i}", size, first, last, over))
    scratch = [Buffer(f"s{i}", int(rng.integers(1, 200)), step, step) for i, step in enumerate(rng.integers(0, 12, 3))]
    return Problem(tuple(buffers), tuple(scratch))


def shuffled(problem: Problem, rng: np.random.Generator) -> Problem:
    """The same problem with its buffers in another order, so that some come before what they overwrite."""
    order = [int(i) for i in rng.permutation(len(problem.buffers))]
    place = {old: new for new, old in enumerate(order)}
    buffers = []
    for old in order:
        b = problem.buffers[old]
        over = None if b.overwrites is None else place[b.overwrites]
        buffers.append(Buffer(b.name, b.size, b.first, b.last, over))
    return Problem(tuple(buffers), problem.scratch)


def network_like(rng: np.random.Generator) -> Problem:
    """A residual stream, hidden layers over it in time, scratch in every step."""
    stream, layers = int(rng.integers(100, 2000)), int(rng.integers(1, 6))
    buffers, scratch = [Buffer("image", int(rng.integers(100, 6000)), 0, 1)], []
    buffers.append(Buffer("x0", stream, 1, 0, 0 if rng.random() < 0.7 else None))
    step = 1
    for layer in range(layers):
        x = len(buffers) - 1
        end = step + int(rng.integers(2, 5))
        buffers[x] = Buffer(buffers[x].name, stream, buffers[x].first, end, buffers[x].overwrites)
        over = None
        for hidden in range(step + 1, end):
            buffers.append(Buffer(f"h{layer}.{hidden}", int(rng.integers(1, 4 * stream)), hidden, hidden + 1, over))
            over = len(buffers) - 1 if rng.random() < 0.8 else None
        buffers.append(Buffer(f"x{layer + 1}", stream, end, end, x))
        step = end
    scratch = [Buffer(f"s{i}", int(rng.integers(1, 600)), i, i) for i in range(1, step + 1) if rng.random() < 0.8]
    return Problem(tuple(buffers), tuple(scratch))


ODD_PROBLEMS = {
    "nothing": Problem(()),
    "scratch alone": Problem((), (Buffer("s", 40, 1, 1), Buffer("t", 40, 1, 1), Buffer("u", 99, 2, 2))),
    "one byte": Problem((Buffer("a", 1, 0, 0),)),
    "all equal": Problem(tuple(Buffer(f"t{i}", 64, i, i + 2) for i in range(9))),
    "all at once": Problem(tuple(Buffer(f"t{i}", 16 * i + 1, 0, 9) for i in range(12))),
    "growing chain": Problem(tuple(Buffer(f"t{i}", 50 * i + 1, i, i + 1, i - 1 if i else None) for i in range(20))),
    "chain from the end": Problem(
        tuple(Buffer(f"t{i}", 10 + i, 9 - i, 10 - i, i + 1 if i < 9 else None) for i in range(10))
    ),
    "never read": Problem((Buffer("a", 64, 0, 3), Buffer("dead", 320, 1, 1), Buffer("b", 16, 3, 4, 0))),
    "scratch above all": Problem((Buffer("a", 16, 0, 2), Buffer("b", 16, 1, 2)), (Buffer("s", 4000, 1, 1),)),
    "large": Problem((Buffer("a", 2**30, 0, 1), Buffer("b", 2**29, 1, 2)), ()),
}


def shared_cases():
    """(name, problem): what both planners run."""
    yield from ODD_PROBLEMS.items()
    for seed in range(300):
        rng = np.random.default_rng(seed)
        problem = random_problem(rng, int(rng.integers(1, 25)))
        yield f"random {seed}", problem
        yield f"random {seed}, shuffled", shuffled(problem, rng)
    for seed in range(200):
        yield f"network {seed}", network_like(np.random.default_rng(seed))


def _int32(values) -> ctypes.Array:
    values = list(values)
    return (ctypes.c_int * max(len(values), 1))(*values)


def on_device(problem: Problem) -> Solution | int:
    """The device's plan; minus the reason where it refuses."""
    everything = [*problem.buffers, *problem.scratch]
    offsets = _int32([0] * len(everything))
    head = kernel_library.load().mcuf_host_place_buffers(
        len(problem.buffers),
        len(everything),
        _int32(b.aligned_size for b in everything),
        _int32(b.first for b in everything),
        _int32(b.last for b in everything),
        _int32(-1 if b.overwrites is None else b.overwrites for b in everything),
        _int32([-1] * len(everything)),
        offsets,
    )
    found, tensors = list(offsets)[: len(everything)], len(problem.buffers)
    return head if head < 0 else Solution(tuple(found[:tensors]), tuple(found[tensors:]), head)


def plan_model(
    content: bytes, problem: Problem, fixed: list[int] | None = None, room: int = 1 << 16, length: int | None = None
) -> Solution | str:
    """The TokenOverwritePlanner's plan of a file, given its buffers as TFLM gives them; its log line where it refuses.

    fixed: offline offsets, -1 for none. room: bytes for its lists. length: what it is told of the file's.
    """
    everything = [*problem.buffers, *problem.scratch]
    offsets = _int32([0] * len(everything))
    workspace = ctypes.create_string_buffer(max(room, 1))
    head = kernel_library.load().mcuf_host_plan_model(
        content,
        ctypes.c_size_t(len(content) if length is None else length),
        workspace,
        room,
        len(everything),
        _int32(b.aligned_size for b in everything),
        _int32(b.first for b in everything),
        _int32(b.last for b in everything),
        _int32(fixed or [-1] * len(everything)),
        offsets,
    )
    if head < 0:
        return kernel_library.last_log()
    found, tensors = list(offsets)[: len(everything)], len(problem.buffers)
    return Solution(tuple(found[:tensors]), tuple(found[tensors:]), head)


def odd_graph(rng: np.random.Generator, ops: int) -> Graph:
    """Ops strung together at random: values read twice, never, or after they are the output; tensors in any order."""
    graph = Graph()
    alive = [graph.add_input(f"in{i}", (1, int(rng.integers(1, 30)), 8)) for i in range(int(rng.integers(1, 4)))]
    for i in range(ops):
        kind = str(rng.choice(["IntGeLU", "InPlaceFC", "IntLayerNorm", "TokenMean"]))
        source = int(rng.choice(alive[-4:]))
        tokens, width = graph.tensors[source].shape[-2:]
        if len(graph.tensors[source].shape) == 2:
            tokens, kind = 1, "IntGeLU"
        inputs = {name: -1 for name in OPS[kind].INPUTS}
        shape = graph.tensors[source].shape
        if kind == "InPlaceFC":
            wide = int(rng.integers(1, 40))
            weights = np.zeros((wide, width), np.int8)
            inputs["weights"] = graph.add_tensor(Tensor(f"w{i}", weights.shape, weights.dtype, None, weights))
            bias = np.zeros(wide, np.int32)
            inputs["bias"] = graph.add_tensor(Tensor(f"b{i}", bias.shape, bias.dtype, None, bias))
            shape = (1, tokens, wide)
            same = [t for t in alive if graph.tensors[t].shape == shape]
            if same and rng.random() < 0.7:
                inputs["residual"] = int(rng.choice(same))
        elif kind == "TokenMean":
            shape = (1, width)
        inputs[OPS[kind].INPUTS[0]] = source
        output = graph.add_tensor(Tensor(f"t{i}", shape, np.dtype(np.int8)))
        options = OPS[kind].Options(**dict.fromkeys(OPS[kind].Options.__dataclass_fields__, 1))
        graph.ops.append(Op(kind, tuple(inputs.values()), output, options))
        alive.append(output)
    graph.output = int(rng.choice(alive[-2:])) if ops else alive[0]
    return _shuffle_tensors(graph, rng)


def _shuffle_tensors(graph: Graph, rng: np.random.Generator) -> Graph:
    order = [int(i) for i in rng.permutation(len(graph.tensors))]
    place = {old: new for new, old in enumerate(order)} | {-1: -1}
    ops = [Op(op.kind, tuple(place[i] for i in op.inputs), place[op.output], op.options) for op in graph.ops]
    return Graph([graph.tensors[i] for i in order], ops, [place[i] for i in graph.inputs], place[graph.output])


def graph_problem(graph: Graph) -> Problem:
    return problem_of(graph)[0]


def optimum(problem: Problem) -> int:
    """The smallest head there is, scratch placed freely: first fit over every order, which reaches every tight plan."""
    everything = Problem((*problem.buffers, *problem.scratch))
    bound = memory_plan.lower_bound(problem)
    sizes = [b.aligned_size for b in everything.buffers]
    best = sum(sizes)

    def place(left: list[list[int]], offsets: dict[int, int], head: int) -> None:
        nonlocal best
        if head >= best or best == bound:
            return
        if not left:
            best = head
            return
        for k, group in enumerate(left):
            offset = memory_plan._lowest_offset(everything, group, offsets)
            end = offset + max(sizes[i] for i in group)
            place(left[:k] + left[k + 1 :], offsets | dict.fromkeys(group, offset), max(head, end))

    place(memory_plan._groups(everything), {}, 0)
    return best
