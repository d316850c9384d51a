/* SPDX-License-Identifier: Apache-2.0
 *
 * What a program in QEMU gets from its board: text output, host files, an instruction counter, a painted stack. Uses
 * semihosting, so nothing here runs on a real board without a debugger. */
#ifndef MCUF_FIRMWARE_BOARD_H_
#define MCUF_FIRMWARE_BOARD_H_

#include <stdint.h>

/* The program's entry; its return value is QEMU's exit status. */
int main(void);

__attribute__((noreturn)) void board_exit(int status);

/* Text and numbers on QEMU's standard output. */
void board_print(const char* text);
void board_print_number(int32_t value);

/* A file in QEMU's working folder, opened for reading: its handle, or -1. */
int32_t board_open(const char* name);
/* Moves to a byte of the file and reads; 0 if all bytes were read. */
int32_t board_seek(int32_t file, uint32_t position);
int32_t board_read(int32_t file, void* target, uint32_t bytes);

/* Called once before main. */
void board_start_counter(void);

/* A counter of QEMU's virtual time; it wraps after about two billion instructions. */
uint32_t board_ticks(void);

/* Instructions from one call of board_ticks() to the next, less those of the call itself. Exact to one, with QEMU's
 * -icount shift=6. They are instructions, not cycles. */
uint32_t board_instructions(uint32_t first, uint32_t second);

/* The most bytes of stack used since the last board_paint_stack(), which paints the stack below its caller.
 * board_stack_here(): bytes in use by the caller and its callers. */
void board_paint_stack(void);
uint32_t board_stack_used(void);
uint32_t board_stack_here(void);

#endif /* MCUF_FIRMWARE_BOARD_H_ */
