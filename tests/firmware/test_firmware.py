# SPDX-License-Identifier: Apache-2.0
import re

import pytest
from arm_tests import MICROBIT, all_machines, every_machine, needs_tools

from mcuformer.cores import CORES
from mcuformer.errors import ConfigError, PlanError, ToolchainError
from mcuformer.simulator import firmware
from mcuformer.simulator.firmware import KB, MACHINES

APP = """
#include "board.h"
#include <string.h>

static volatile unsigned char ram[%d];
static const unsigned char flash[%d] = {1};
static int table = 5; /* .data */

__attribute__((noinline)) static int use_stack(int bytes) {
  volatile unsigned char local[1024];
  for (int i = 0; i < bytes; ++i) local[i] = 1;
  return local[0];
}

int main(void) {
  uint32_t loop[2];
  for (int i = 0; i < 2; ++i) {
    const uint32_t first = board_ticks();
    int turns = i ? 2000 : 1000;
#ifdef __riscv
    __asm__ volatile("1: addi %%0, %%0, -1\\n bnez %%0, 1b" : "+r"(turns));
#else
    __asm__ volatile(".syntax unified\\n 1: subs %%0, #1\\n bne 1b" : "+l"(turns)::"cc");
#endif
    loop[i] = board_instructions(first, board_ticks());
  }
  board_print("loop "), board_print_number((int32_t)loop[0]);
  board_print(" "), board_print_number((int32_t)(loop[1] - loop[0]));
  const uint32_t here = board_stack_here();
  board_paint_stack();
  const uint32_t before = board_stack_used();
  use_stack(1024);
  board_print("\\nstack "), board_print_number((int32_t)(board_stack_used() - before));
  board_print(" "), board_print_number((int32_t)(before - here));
  char text[8];
  const int file = board_open("words.txt");
  const int failed = file < 0 || board_seek(file, 6) || board_read(file, text, 5);
  text[5] = 0;
  board_print("\\nfile "), board_print(failed ? "failed" : text);
  board_print("\\nnumber "), board_print_number(-2147483647 - 1);
  return table - 1 + use_stack(1) + ram[0] + flash[ram[0] + 1];
}
"""


def app(folder, ram=64, flash=64):
    path = folder / "app.c"
    path.write_text(APP % (ram, flash))
    return path


@needs_tools
@every_machine
def test_bytes_of_objects_are_those_that_are_linked(machine, tmp_path):
    called = "const int table_of_%s[%d] = {1}; int %s(int i); int %s(int i) { return table_of_%s[i & 7]; }"
    sources = {"main.c": "int used(int i); int main(void) { return used(1); }"}
    for name, bytes_ in (("used", 64), ("left_out", 4096)):
        sources["both.c"] = sources.get("both.c", "") + called % (name, bytes_ // 4, name, name, name) + "\n"
    for name, text in sources.items():
        (tmp_path / name).write_text(text)
    app, both = firmware.compile_objects([tmp_path / name for name in sources], machine.core, tmp_path / "objects")
    board = firmware.firmware_objects(machine, tmp_path / "board")
    program = firmware.link([app, both, *board], machine, tmp_path / "program.elf")
    assert 64 < firmware.linked_bytes(program, [both]) < 128
    assert 0 < firmware.linked_bytes(program, [app]) < 32
    most = program.code_bytes + program.constant_bytes
    assert most - 512 < firmware.linked_bytes(program, [app, both, *board]) <= most


@needs_tools
@all_machines
def test_program_counts_instructions_and_stack_and_reads_files(machine, tmp_path):
    (tmp_path / "words.txt").write_text("hello world")
    program = firmware.build([app(tmp_path)], machine, tmp_path / "build", ram_bytes=64 * KB, stack_bytes=2 * KB)
    first, again = firmware.run(program, tmp_path), firmware.run(program, tmp_path)
    assert first == again and first.status == 5
    found = dict(line.split(" ", 1) for line in first.text.splitlines())
    once, more = map(int, found["loop"].split())
    assert 2001 <= once <= 2006 and abs(more - 2000) <= 1  # two instructions a turn
    deep, shallow = map(int, found["stack"].split())
    assert 1016 <= deep <= 1064 and shallow < 64
    assert found["file"] == "world" and found["number"] == "-2147483648"
    assert program.stack_bytes == 2 * KB and 64 <= program.static_bytes < 128
    assert 0 < program.code_bytes < 4 * KB and 64 <= program.constant_bytes < 1 * KB


def test_a_long_count_on_risc_v(tmp_path):
    """More than the low half of its counter holds, 2^26 instructions."""
    machine = firmware.get_machine("rv32imc")
    if missing := firmware.missing_tools(machine.core):
        pytest.skip(missing)
    (tmp_path / "app.c").write_text("""
#include "board.h"
int main(void) {
  int turns = 40000000;
  const uint32_t first = board_ticks();
  __asm__ volatile("1: addi %0, %0, -1\\n bnez %0, 1b" : "+r"(turns));
  board_print_number((int32_t)board_instructions(first, board_ticks()));
  return 0;
}
""")
    program = firmware.build([tmp_path / "app.c"], machine, tmp_path / "build")
    assert abs(int(firmware.run(program).text) - 80_000_000) < 8


@needs_tools
@every_machine
def test_limits_are_hard(machine, tmp_path):
    sources = [app(tmp_path, 30 * KB, 40 * KB)]
    program = firmware.build(sources, machine, tmp_path / "a", ram_bytes=64 * KB, flash_bytes=64 * KB)
    ram = program.static_bytes + program.stack_bytes
    for short, limits in ((8, {"ram_bytes": ram - 8}), (16, {"flash_bytes": program.flash_bytes - 16})):
        with pytest.raises(PlanError, match=f"{machine.name}: [0-9]+ bytes over the ") as error:
            firmware.build(sources, machine, tmp_path / "b", **limits)
        over = int(re.search(r"([0-9]+) bytes over", str(error.value))[1])
        # Sections are aligned; on RISC-V calls are longer until all else is in place.
        assert short <= over <= short + (16 if machine.emulator == firmware.QEMU else 256)
    with pytest.raises(ConfigError, match="ram_bytes = 99999999: must be"):
        firmware.build(sources, machine, tmp_path / "b", ram_bytes=99999999)
    with pytest.raises(ConfigError, match="stack_bytes = 3"):
        firmware.build(sources, machine, tmp_path / "b", stack_bytes=3)


@needs_tools
def test_an_unaligned_access_faults_on_a_cortex_m0_alone(tmp_path):
    (tmp_path / "app.c").write_text("""
#include "board.h"
static const char bytes[8] = {1, 2, 3, 4, 5, 6, 7, 8};
int main(void) {
  const char* at = bytes + 1;
  __asm__("" : "+r"(at));
  return *(const volatile uint32_t*)at == 0x05040302u ? 0 : 1;
}
""")
    m3 = firmware.build([tmp_path / "app.c"], firmware.get_machine("m3"), tmp_path / "m3")
    assert firmware.run(m3).status == 0
    for machine in (firmware.get_machine("m0plus"), MICROBIT):
        program = firmware.build([tmp_path / "app.c"], machine, tmp_path / machine.name)
        with pytest.raises(ToolchainError, match=f"on {machine.name} ended in a fault: exception 3"):
            firmware.run(program)


@needs_tools
def test_a_fault_and_an_endless_loop_are_errors(tmp_path):
    machine = MACHINES["mps2-an386"]
    (tmp_path / "fault.c").write_text('int main(void) { __asm__ volatile("udf #0"); return 0; }')
    (tmp_path / "loop.c").write_text('int main(void) { for (;;) __asm__ volatile(""); }')
    (tmp_path / "broken.c").write_text("int main(void) { return nothing; }")
    with pytest.raises(ToolchainError, match="ended in a fault: exception"):
        firmware.run(firmware.build([tmp_path / "fault.c"], machine, tmp_path / "a"))
    with pytest.raises(ToolchainError, match="did not end within 1 s"):
        firmware.run(firmware.build([tmp_path / "loop.c"], machine, tmp_path / "b"), timeout=1)
    with pytest.raises(ToolchainError, match="broken.c does not compile: .*nothing"):
        firmware.build([tmp_path / "broken.c"], machine, tmp_path / "c")


def test_missing_tools_name_the_packages(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolchainError, match="arm-none-eabi-gcc .*, qemu-system-arm .*apt-get install gcc-arm"):
        firmware.build([], MACHINES["mps2-an386"], tmp_path)
    tools = tmp_path / "tools"  # a compiler without headers: it prints the bare name of a library it does not find
    tools.mkdir()
    for tool in (firmware.COMPILER, firmware.QEMU):
        (tools / tool).write_text("#!/bin/sh\ncase $1 in -print*) echo libc.a;; *) exit 1;; esac\n")
        (tools / tool).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/bin")
    line = firmware.missing_tools()
    assert line.startswith("not installed: newlib's C headers and libc.a (libnewlib-arm-none-eabi), the C++ standard")
    with pytest.raises(ConfigError, match=r"'mps2' is unknown; choose one of mps2-an385-m0plus \(m0plus\), mps2-"):
        firmware.get_machine("mps2")
    with pytest.raises(ConfigError, match="core Cortex-M85: QEMU has no machine for it"):
        firmware.get_machine("m85")
    assert firmware.get_machine("Cortex-M4").name == "mps2-an386" and firmware.get_machine("m3").name == "mps2-an385"


def test_missing_tools_of_another_architecture_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    firmware._missing_packages.cache_clear()
    line = firmware.missing_tools(CORES["rv32imc"])
    firmware._missing_packages.cache_clear()
    packages = "apt-get install gcc-riscv64-unknown-elf qemu-system-misc"
    assert line.startswith("not installed: riscv64-unknown-elf-gcc (gcc-riscv64-unknown-elf)") and packages in line
