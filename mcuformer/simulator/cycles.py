# SPDX-License-Identifier: Apache-2.0
"""Estimated cycles of code that QEMU executed, by what Arm publishes of a core; today of the Cortex-M4.

Source: Cortex-M4 Technical Reference Manual (Arm DDI 0439), "Instruction set summary" with its tables of instructions
and of the DSP instructions, "Load/store timings", and the table of floating-point instructions. They are of zero wait
states. What it gives as a range, or leaves open, is a rule here:

- A taken branch is 1 + P, P from 1 to 3 by alignment and width of its target: Rules.refill. A load into pc reloads
  the pipeline in 3, as the section on loads says.
- SDIV and UDIV take 2 to 12 by their operands: Rules.division.
- IT counts 1, though it can be folded into the instruction before it. A conditional instruction whose condition fails
  counts as one that is executed.
- A load after a load takes 1, not 2, unless its address needs what the first one loads; a store with a register offset
  likewise. LDRD, STRD, LDM, STM, PUSH and POP are 1 + N, beside nothing else.
- A load or store whose address was computed by the instruction just before it waits for 1.
- Barriers, PLD and BKPT count 1.

Left out: wait states and caches of flash, unaligned accesses, contention of instruction fetch with literals and DMA,
interrupts. Arm publishes no such table of the Cortex-M7, which issues two instructions at once and predicts branches:
its cycles are unknown. So are those of the other cores, whose tables are not here.
"""

from __future__ import annotations

import operator
import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from mcuformer.cores import Core
from mcuformer.errors import ToolchainError
from mcuformer.simulator import block_counts
from mcuformer.simulator.block_counts import Block
from mcuformer.simulator.firmware import Program, Run

PC_LOAD_REFILL = 3


@dataclass(frozen=True)
class Rules:
    """What the manual leaves open, in cycles. refill: of the pipeline after a taken branch; division: a division."""

    refill: int = 2
    division: int = 7


DEFAULT = Rules()


ONE = frozenset(
    """mov movs movw movt mvn mvns add adds addw adc adcs adr sub subs subw sbc sbcs rsb rsbs neg negs
    mul muls mla mls umull smull umlal smlal umaal smulbb smulbt smultb smultt smulwb smulwt smlabb smlabt smlatb
    smlatt smlawb smlawt smlalbb smlalbt smlaltb smlaltt smuad smuadx smusd smusdx smlad smladx smlsd smlsdx smlald
    smlaldx smlsld smlsldx smmul smmulr smmla smmlar smmls smmlsr ssat usat ssat16 usat16 cmp cmn tst teq and ands
    eor eors orr orrs orn orns bic bics lsl lsls lsr lsrs asr asrs ror rors rrx rrxs clz sxtb sxth uxtb uxth sxtb16
    uxtb16 sxtab sxtah uxtab uxtah sxtab16 uxtab16 pkhbt pkhtb ubfx sbfx bfi bfc rev rev16 revsh rbit sel qadd qsub
    qdadd qdsub qadd8 qadd16 qsub8 qsub16 uqadd8 uqadd16 uqsub8 uqsub16 sadd8 sadd16 ssub8 ssub16 uadd8 uadd16 usub8
    usub16 shadd8 shadd16 shsub8 shsub16 uhadd8 uhadd16 uhsub8 uhsub16 sasx ssax qasx qsax usad8 usada8 nop sev bkpt
    svc dmb dsb isb pld vmov""".split()
)
NO_RESULT = frozenset("cmp cmn tst teq nop sev bkpt svc dmb dsb isb pld".split())
TWO_RESULTS = frozenset(
    "umull smull umlal smlal umaal smlalbb smlalbt smlaltb smlaltt smlald smlaldx smlsld smlsldx".split()
)
LOADS = frozenset("ldr ldrb ldrh ldrsb ldrsh ldrt ldrex ldrexb ldrexh vldr".split())
STORES = frozenset("str strb strh strt strex strexb strexh vstr".split())
MULTIPLE = frozenset("ldm ldmia ldmdb ldmfd stm stmia stmdb push pop vldmia vstmia vldmdb vstmdb vpush vpop".split())
BRANCHES = frozenset("b bl blx bx".split())
CONDITIONS = frozenset("eq ne cs hs cc lo mi pl vs vc hi ls ge lt gt le".split())
_LINE = re.compile(r"^ *([0-9a-f]+):\t([a-z0-9.]+)(?:\t([^;@<]*))?")
_REGISTER = re.compile(r"\b(?:r1[0-2]|r[0-9]|sl|fp|ip|sp|lr|pc)\b")


@dataclass(frozen=True)
class Instruction:
    """One of a program, as objdump writes it. name: without width and condition."""

    address: int
    name: str
    has_condition: bool
    operands: str

    @property
    def is_load(self) -> bool:
        return self.name in LOADS

    @property
    def results(self) -> frozenset[str]:
        """The registers that data processing writes."""
        if self.name not in ONE or self.name in NO_RESULT:
            return frozenset()
        return frozenset(_registers(self.operands)[: 2 if self.name in TWO_RESULTS else 1])

    @property
    def loaded(self) -> str:
        """The register that a load writes."""
        return self.operands.split(",", 1)[0].strip()

    @property
    def address_registers(self) -> frozenset[str]:
        """Those that a load or store computes its address from."""
        if self.name in ("push", "pop", "vpush", "vpop"):
            return frozenset(["sp"])
        if self.name in MULTIPLE:
            return frozenset(_registers(self.operands)[:1])
        return frozenset(_registers("".join(re.findall(r"\[(.*?)\]", self.operands))))

    @property
    def is_conditional(self) -> bool:
        return self.has_condition or self.name in ("cbz", "cbnz")

    def refill(self, of_branch: int) -> int:
        """Cycles that it costs to go elsewhere; 0 if it goes nowhere."""
        if self.loads_pc or self.name in ("tbb", "tbh"):
            return PC_LOAD_REFILL
        return of_branch if self.name in (*BRANCHES, "cbz", "cbnz") or "pc" in self.results else 0

    @property
    def loads_pc(self) -> bool:
        listed = self.operands.partition("{")[2] if self.name in MULTIPLE else self.loaded
        return (self.is_load or self.name in MULTIPLE) and "pc" in _registers(listed)


def _registers(text: str) -> list[str]:
    return _REGISTER.findall(text)


def require_known(core: Core) -> None:
    """ToolchainError for a core whose cycles are unknown."""
    if core.cycle_coefficients is None:
        raise ToolchainError(f"cycles on {core.label} are unknown: no table of its instructions' cycles is known here")


def parse(line: str) -> Instruction | None:
    """An instruction of a line of objdump; None for any other line."""
    match = _LINE.match(line)
    if match is None or match[2].startswith("."):
        return None
    name = match[2].partition(".")[0]  # without .w, .n, .f32
    has_condition = name[-2:] in CONDITIONS and name not in ONE | BRANCHES
    return Instruction(int(match[1], 16), name[:-2] if has_condition else name, has_condition, (match[3] or "").strip())


def cost(instruction: Instruction, before: Instruction | None = None, rules: Rules = DEFAULT) -> int:
    """Cycles of an instruction, without the refill after a branch. before: the one executed just before it, from the
    address before it. ToolchainError for one that is not in the tables."""
    name = instruction.name
    wait = 0 if before is None else len(before.results & instruction.address_registers) > 0
    pipelines = before is not None and before.is_load and before.loaded not in instruction.address_registers
    if name in ONE or name in BRANCHES or name in ("cbz", "cbnz") or re.fullmatch("it[te]{0,3}", name):
        return 1
    if instruction.is_load:
        return (1 if pipelines and not instruction.loads_pc else 2) + wait
    if name in STORES:
        offset = len(_registers("".join(re.findall(r"\[(.*?)\]", instruction.operands)))) > 1
        return (2 if offset and not pipelines else 1) + wait
    if name in ("ldrd", "strd"):
        return 3 + wait
    if name in MULTIPLE:
        return 1 + _length(instruction.operands) + wait
    if name in ("sdiv", "udiv"):
        return rules.division
    if name in ("tbb", "tbh"):
        return 3 + wait
    if name in ("mrs", "msr", "cpsid", "cpsie", "vmrs", "vmsr"):
        return 2
    raise ToolchainError(f"{instruction.address:#x}: the cycles of {name!r} are unknown; add it to simulator/cycles.py")


def _length(operands: str) -> int:
    """How many registers a list has."""
    count = 0
    for part in operands.partition("{")[2].rstrip("}^ ").split(","):
        first, _, last = part.strip().partition("-")
        count += 1 if not last else int(last.lstrip("rs")) - int(first.lstrip("rs")) + 1
    return count


class Code:
    """A program's instructions, in order, and what its blocks cost."""

    def __init__(self, instructions: Iterable[Instruction], rules: Rules = DEFAULT) -> None:
        self._rules = rules
        self._listed = sorted(instructions, key=operator.attrgetter("address"))
        self._index = {instruction.address: i for i, instruction in enumerate(self._listed)}
        self._known: dict[tuple[int, int], tuple[int, int]] = {}

    @classmethod
    def of(cls, program: Program, rules: Rules = DEFAULT) -> Code:
        """ToolchainError if the core's cycles are unknown."""
        require_known(program.machine.core)
        command = [f"{program.machine.core.toolchain}objdump", "-d", "--no-show-raw-insn", str(program.path)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if done.returncode:
            raise ToolchainError(f"{program.path.name}: {command[0]} says {done.stderr.strip()[:200]}")
        return cls(filter(None, map(parse, done.stdout.splitlines())), rules)

    def cycles(self, blocks: Iterable[Block]) -> int:
        """Estimated, of executed blocks."""
        total = 0
        for block in blocks:
            key = block.address, block.instructions
            if key not in self._known:
                self._known[key] = self._costs(*key)
            fell, jumped = self._known[key]
            total += (block.executed - block.jumped_to) * fell + block.jumped_to * jumped
            last = self._listed[self._index[block.address] + block.instructions - 1]
            total += (block.jumped_away if last.is_conditional else block.executed) * last.refill(self._rules.refill)
        return total

    def _costs(self, address: int, instructions: int) -> tuple[int, int]:
        """Of a block that the program falls into, and of one that it jumps to; without a refill at the end."""
        first = self._index[address]
        run = self._listed[first : first + instructions]
        inside = sum(cost(*pair, self._rules) for pair in zip(run[1:], run[:-1], strict=True))
        ahead = self._listed[first - 1] if first else None
        return inside + cost(run[0], ahead, self._rules), inside + cost(run[0], None, self._rules)


TICKS_OF_A_COUNT = 11  # calls of board_ticks(): one before, one after, nine in board_instructions()


def timed(
    program: Program, folder: str | os.PathLike | None = None, timeout: float = 600, rules: Rules = DEFAULT
) -> tuple[Run, list[int]]:
    """Runs a program in QEMU that counts instructions by `first = board_ticks(); ...; board_instructions(first,
    board_ticks())`, and nothing else by these functions: estimated cycles of what is counted, in order.

    ToolchainError if the core's cycles are unknown, or as block_counts.run().
    """
    require_known(program.machine.core)
    run, parts = block_counts.run(program, "board_ticks", folder, timeout)
    if len(parts) % TICKS_OF_A_COUNT:
        raise ToolchainError(f"board_ticks() was called {len(parts)} times, not a multiple of {TICKS_OF_A_COUNT}")
    code = Code.of(program, rules)
    counted = range(0, len(parts), TICKS_OF_A_COUNT)
    # The fifth is from one of board_instructions()'s calls to the next: board_ticks() itself.
    return run, [code.cycles(parts[i]) - code.cycles(parts[i + 4]) for i in counted]
