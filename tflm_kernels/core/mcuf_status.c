/* SPDX-License-Identifier: Apache-2.0 */
#include "mcuf_types.h"
#include "mcuf_version.h"

mcuf_status mcuf_kernels_0_1_0(void) { return MCUF_OK; }

const char* mcuf_status_text(mcuf_status status) {
  switch (status) {
    case MCUF_OK:
      return "ok";
    case MCUF_ERROR_NULL:
      return "a needed tensor is missing";
    case MCUF_ERROR_SIZE:
      return "a size is out of range or does not fit the others";
    case MCUF_ERROR_VALUE:
      return "a constant is out of its legal range";
    case MCUF_ERROR_OVERLAP:
      return "tensors overlap in memory in a way this op does not allow";
    case MCUF_ERROR_SOURCE:
      return "the source of the image or of the weights failed, or gave too little";
  }
  return "unknown status";
}
