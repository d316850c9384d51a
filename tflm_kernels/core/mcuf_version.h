/* SPDX-License-Identifier: Apache-2.0
 *
 * The version of the kernels, for the linker: an exported model calls the function that is named after the version that
 * it was made with, so that other kernels do not link. */
#ifndef MCUF_VERSION_H_
#define MCUF_VERSION_H_

#include "mcuf_types.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MCUF_VERSION "0.1.0"

/* MCUF_OK. */
mcuf_status mcuf_kernels_0_1_0(void);

#ifdef __cplusplus
}
#endif

#endif /* MCUF_VERSION_H_ */
