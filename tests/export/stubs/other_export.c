/* SPDX-License-Identifier: Apache-2.0
 *
 * Linked beside a kind's example: runs the model of a second export when the program ends. */
#include <stdio.h>

#include "gamma_self_test.h"

__attribute__((destructor)) static void at_exit(void) {
  printf("gamma: %d of %d values equal, 0 us\n", (int)gamma_self_test(), GAMMA_CLASSES);
}
