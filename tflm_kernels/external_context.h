// SPDX-License-Identifier: Apache-2.0
//
// What firmware passes to the ops through the interpreter's external context, when the arena should hold less than the
// whole image or the weights are in memory that is not mapped:
//
//   static mcuf_external_context sources = {MCUF_EXTERNAL_CONTEXT_MAGIC, ReadCameraRows, &camera, {ReadFlash, &flash}};
//   interpreter.SetMicroExternalContext(&sources);  // after AllocateTensors: TFLM of 2023 to 2025 insists
//
// The interpreter has only one such place, which others (Ethos-U) use too: the magic number tells this struct apart.
#ifndef MCUF_EXTERNAL_CONTEXT_H_
#define MCUF_EXTERNAL_CONTEXT_H_

#include "core/mcuf_decomposed_patch_embed_s8.h"
#include "core/mcuf_weight_source.h"
#include "tflm_compat.h"

#define MCUF_EXTERNAL_CONTEXT_MAGIC 0x4655434Du /* "MCUF" */

typedef struct {
  uint32_t magic;                /* MCUF_EXTERNAL_CONTEXT_MAGIC */
  mcuf_image_rows_fn image_rows; /* gives rows of the image, see mcuf_image_rows_fn */
  void* image_user;              /* handed to image_rows */
  mcuf_weight_source weights;    /* reads staged weights, see mcuf_weights_fn */
} mcuf_external_context;

namespace mcuformer {

// What the firmware has set; nullptr if that is something else, or nothing.
inline const mcuf_external_context* ExternalSources(Context* context) {
  const auto* sources = static_cast<const mcuf_external_context*>(ExternalContext(context));
  return sources == nullptr || sources->magic != MCUF_EXTERNAL_CONTEXT_MAGIC ? nullptr : sources;
}

}  // namespace mcuformer

#endif  // MCUF_EXTERNAL_CONTEXT_H_
