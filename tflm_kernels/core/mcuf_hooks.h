/* SPDX-License-Identifier: Apache-2.0
 *
 * Calls of the firmware's own while a network runs: to feed a watchdog, yield to another task, show progress. A header
 * of yours, given to the compiler as -DMCUF_HOOKS_H='"my_hooks.h"', defines one macro or both:
 *
 *   MCUF_OP_DONE(index)   after op `index` of an exported model
 *   MCUF_YIELD()          inside ops, after every block: at most four tokens or pixels through a layer, or four queries
 *                         of a head
 *
 * A third macro, MCUF_YIELD_MACS, limits a fully connected layer's multiply-accumulates between two calls, which are
 * 4 * inputs * outputs without it; at least 16 * inputs.
 *
 * A hook may do anything but run the model or touch its arena. Without the header there is no call. */
#ifndef MCUF_HOOKS_H_
#define MCUF_HOOKS_H_

#ifdef MCUF_HOOKS_H
#include MCUF_HOOKS_H
#endif

#ifndef MCUF_OP_DONE
#define MCUF_OP_DONE(index) ((void)(index))
#endif

#ifndef MCUF_YIELD
#define MCUF_YIELD() ((void)0)
#endif

#endif /* MCUF_HOOKS_H_ */
