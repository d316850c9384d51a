/* SPDX-License-Identifier: Apache-2.0
 *
 * A plugin of QEMU, compiled for the host: how often a program executes each block of instructions that follow each
 * other, between calls of one of its functions. Arguments: mark=ADDRESS of the function, out=FILE.
 *
 * For each call of the function, FILE gets a line "mark", then, of the instructions since it, a line for each block:
 * address (hexadecimal), instructions, times executed, how many of these were jumped to, and how many jumped away at
 * the end; the others fell through from and to the next address. What is executed before the first call is left out. */
#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define MOST_BLOCKS 65536

/* QEMU's plugin interface, version 1 (QEMU 4.2 to 8.1): what of it is used here. */
struct qemu_plugin_tb;
struct qemu_plugin_insn;
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb* block);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb* block);
struct qemu_plugin_insn* qemu_plugin_tb_get_insn(const struct qemu_plugin_tb* block, size_t index);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn* instruction);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn* instruction);
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*call)(uint64_t id, struct qemu_plugin_tb* block));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb* block, void (*call)(unsigned cpu, void* user),
                                          int registers, void* user);
void qemu_plugin_register_atexit_cb(uint64_t id, void (*call)(uint64_t id, void* user), void* user);
EXPORT int qemu_plugin_version = 1;

struct block {
  uint64_t start, end; /* addresses; end: after the last instruction */
  unsigned instructions;
  uint64_t executed, jumped_to, jumped_away;
};

static struct block* blocks[MOST_BLOCKS];
static int block_count, marked;
static struct block* last; /* the block executed before */
static uint64_t mark;
static FILE* out;

static void write_counts(void) {
  for (int i = 0; i < block_count; ++i) {
    struct block* b = blocks[i];
    if (marked && b->executed != 0) {
      fprintf(out, "%" PRIx64 " %u %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", b->start, b->instructions, b->executed,
              b->jumped_to, b->jumped_away);
    }
    b->executed = b->jumped_to = b->jumped_away = 0;
  }
}

static void executed(unsigned cpu, void* user) {
  struct block* b = user;
  const int jumped = last == NULL || last->end != b->start;
  (void)cpu;
  if (jumped && last != NULL) ++last->jumped_away;
  if (b->start == mark) {
    write_counts();
    fputs("mark\n", out);
    marked = 1;
  }
  ++b->executed;
  b->jumped_to += (uint64_t)jumped;
  last = b;
}

static void translated(uint64_t id, struct qemu_plugin_tb* block) {
  const size_t count = qemu_plugin_tb_n_insns(block);
  const struct qemu_plugin_insn* final = qemu_plugin_tb_get_insn(block, count - 1);
  const uint64_t start = qemu_plugin_tb_vaddr(block);
  const uint64_t end = qemu_plugin_insn_vaddr(final) + qemu_plugin_insn_size(final);
  (void)id;
  int i = 0; /* translated again, it goes on counting */
  while (i < block_count && !(blocks[i]->start == start && blocks[i]->end == end)) ++i;
  if (i == block_count) {
    if (block_count == MOST_BLOCKS || (blocks[i] = calloc(1, sizeof(struct block))) == NULL) abort();
    blocks[i]->start = start;
    blocks[i]->end = end;
    blocks[i]->instructions = (unsigned)count;
    ++block_count;
  }
  qemu_plugin_register_vcpu_tb_exec_cb(block, executed, 0, blocks[i]);
}

static void ended(uint64_t id, void* user) {
  (void)id, (void)user;
  write_counts();
  fclose(out);
}

EXPORT int qemu_plugin_install(uint64_t id, const void* info, int argc, char** argv) {
  (void)info;
  for (int i = 0; i < argc; ++i) {
    if (strncmp(argv[i], "mark=", 5) == 0) mark = strtoull(argv[i] + 5, NULL, 0);
    if (strncmp(argv[i], "out=", 4) == 0) out = fopen(argv[i] + 4, "w");
  }
  if (out == NULL) return 1;
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_atexit_cb(id, ended, NULL);
  return 0;
}
