// SPDX-License-Identifier: Apache-2.0
//
// What firmware hands to the ops through the interpreter's external context, where the arena should hold less than the
// whole image:
//
//   static mcuf_external_context sources = {MCUF_EXTERNAL_CONTEXT_MAGIC, ReadCameraRows, &camera};
//   interpreter.SetMicroExternalContext(&sources);
//
// The interpreter has one such place, and others (Ethos-U) use it too: the magic number tells this struct from theirs.
#ifndef MCUF_EXTERNAL_CONTEXT_H_
#define MCUF_EXTERNAL_CONTEXT_H_

#include "core/mcuf_decomposed_patch_embed_s8.h"

#define MCUF_EXTERNAL_CONTEXT_MAGIC 0x4655434Du /* "MCUF" */

typedef struct {
  uint32_t magic;                /* MCUF_EXTERNAL_CONTEXT_MAGIC */
  mcuf_image_rows_fn image_rows; /* brings rows of the image, see mcuf_image_rows_fn */
  void* image_user;              /* handed to image_rows */
} mcuf_external_context;

#endif  // MCUF_EXTERNAL_CONTEXT_H_
