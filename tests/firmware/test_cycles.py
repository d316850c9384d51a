# SPDX-License-Identifier: Apache-2.0
"""Estimated cycles: what the manual says of an instruction, a sequence and a branch; and what QEMU executes of them."""

import subprocess

import pytest
from arm_tests import needs_tools

from mcuformer.errors import ToolchainError
from mcuformer.simulator import block_counts, cycles, firmware
from mcuformer.simulator.block_counts import Block
from mcuformer.simulator.cycles import Code, Rules, cost, parse

M4 = firmware.MACHINES["mps2-an386"]
SEQUENCES = {  # what follows each other, and the cycles of each; those in the manual's examples among them
    "one each": ("smlad r6, r4, r2, r6; sxtb16 r3, r2; smull r0, r1, r2, r3; mls r0, r1, r2, r3", 1, 1, 1, 1),
    "a load": ("mov r5, r6; ldr r0, [r1]", 1, 2),
    "two loads": ("ldr r0, [r1]; ldr r1, [r2]", 2, 1),
    "three loads": ("ldr r0, [r1, r5]; ldr r1, [r2]; ldr r2, [r3, #4]", 2, 1, 1),
    "a base that moves on": ("ldr.w r2, [r1], #4; ldr.w r4, [r1], #4", 2, 1),
    "an address that was just loaded": ("ldr r0, [r1]; ldrb r1, [r0, #3]", 2, 2),
    "load and store": ("ldr r0, [r1, r2]; str r0, [r3, #20]", 2, 1),
    "load and store at an offset": ("ldr r0, [r1, r2]; str r1, [r3, r2]", 2, 1),
    "a store at an offset": ("nop; strb r1, [r3, r2]; ldr r0, [r1]", 1, 2, 2),
    "a load after a store": ("str r1, [r3, #4]; ldr r0, [r1]", 1, 2),
    "two words": ("ldr r2, [r1]; ldrd r4, r5, [r0], #8; ldr r3, [r1]", 2, 3, 2),
    "several words": ("ldmia.w r1!, {r2, r3, r4, r5}; stmia r2!, {r6-r12, lr}; push {r0, r4-r11, lr}", 5, 9, 11),
    "an address that was just computed": ("add r2, r1; ldr r0, [r2, #8]; subs r3, #8; ldmia r3, {r0, r1}", 1, 3, 1, 4),
    "one that was computed earlier": ("add r2, r1; nop; ldr r0, [r2, #8]", 1, 1, 2),
    "compared, not computed": ("cmp r2, r1; ldr r0, [r2, #8]", 1, 2),
    "conditions": ("it gt; movgt r0, r1; ite ne; ldrsbne r5, [r0], #1; moveq r5, #0", 1, 1, 1, 2, 1),
    "division": ("udiv r0, r1, r2", cycles.DEFAULT.division),
    "floating point": ("vldr s0, [r1]; vpush {s16-s19}; vmov r0, s1", 2, 5, 1),
}  # fmt: skip


def instructions(text):
    """As objdump writes them, four bytes each."""
    lines = [f"    {4 * i:x}:\t" + part.strip().replace(" ", "\t", 1) for i, part in enumerate(text.split(";"))]
    return [parse(line) for line in lines]


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_a_sequence_takes_what_the_manual_says(sequence):
    text, *wanted = SEQUENCES[sequence]
    listed = instructions(text)
    assert [cost(one, before) for one, before in zip(listed, [None, *listed], strict=False)] == wanted


def test_what_is_in_no_table_is_named():
    with pytest.raises(ToolchainError, match="0x4: the cycles of 'vmladavas' are unknown; add it to "):
        cost(parse("    4:\tvmladavas.s8 r0, q1, q2"))


def test_a_jump_pays_for_the_refill_and_breaks_a_pair():
    listed = instructions("ldr r0, [r1]; ldr r2, [r3]; subs r4, #1; bne 4 <f+0x4>; ldr pc, [sp, #4]; bl 0 <f>")
    code = Code(listed)
    # Falls in once; jumps back to the second load nine times, at the end of nine of ten rounds.
    once, loop = Block(0, 1, 1, 1, 0), Block(4, 3, 10, 9, 9)
    assert code.cycles([once]) == 2
    assert code.cycles([loop]) == 1 + 9 * 2 + 10 * 2 + 9 * 2
    assert Code(listed, Rules(refill=3)).cycles([loop]) - Code(listed, Rules(refill=1)).cycles([loop]) == 2 * 9
    assert code.cycles([Block(16, 1, 1, 1, 0)]) == 5  # even to the next address
    assert code.cycles([Block(20, 1, 2, 2, 2)]) == 2 * 3


APP = """
#include "board.h"
void kernel(int rounds);
__asm__(
    ".syntax unified\\n .thumb\\n .globl kernel\\n .type kernel, %function\\n .p2align 2\\n"
    "kernel: ldr r1, [sp]\\n ldr r2, [sp]\\n"
    "1: ldrd r2, r3, [sp]\\n smlad r2, r3, r1, r2\\n subs r0, #1\\n bne 1b\\n bx lr\\n");
int main(void) {
  for (int rounds = 1; rounds < 8; rounds += 6) {
    const uint32_t first = board_ticks();
    kernel(rounds);
    board_print_number((int32_t)board_instructions(first, board_ticks()));
    board_print("\\n");
  }
  return 0;
}
"""


@needs_tools
def test_a_program_is_counted_where_it_runs(tmp_path):
    (tmp_path / "app.c").write_text(APP)
    program = firmware.build([tmp_path / "app.c"], M4, tmp_path, flags=firmware.C_FLAGS)
    run, took = cycles.timed(program)
    assert run.text == firmware.run(program).text
    first, second = map(int, run.text.split())
    assert second - first == 6 * 4 and took[1] - took[0] == 6 * (3 + 1 + 1 + 1 + 2)
    # Beyond one each: bl, the first load in front, the two words, bx; the last round does not branch.
    assert took[0] - first == 2 + 1 + 2 + 2
    _, parts = block_counts.run(program, "board_ticks")
    assert len(parts) == 2 * cycles.TICKS_OF_A_COUNT
    assert block_counts.instructions(parts[0]) - block_counts.instructions(parts[4]) == first
    with pytest.raises(ToolchainError, match="program.elf has 0 functions op_done, not one"):
        block_counts.run(program, "op_done")


@needs_tools
def test_where_it_cannot_be_counted_a_line_says_why(tmp_path, monkeypatch):
    (tmp_path / "app.c").write_text("int main(void) { return 0; }")
    program = firmware.build([tmp_path / "app.c"], M4, tmp_path)
    with pytest.raises(ToolchainError, match="QEMU on mps2-an386: .*nothing.so"):
        firmware.run(program, plugin=str(tmp_path / "nothing.so"))
    monkeypatch.setattr(block_counts, "COMPILERS", ("no-such-compiler",))
    with pytest.raises(ToolchainError, match="cycles need a C compiler of the host: none of no-such-compiler is"):
        block_counts.run(program, "main")
    m7 = firmware.MACHINES["mps2-an500"]
    with pytest.raises(ToolchainError, match="cycles on Cortex-M7 are unknown: "):
        cycles.timed(firmware.Program(program.path, m7, {}))


@needs_tools
def test_the_plugin_compiles_without_a_warning(tmp_path):
    source = firmware.firmware_folder() / block_counts.SOURCE
    command = ["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", source, "-o", tmp_path / "p.so"]
    subprocess.run(command, check=True)
