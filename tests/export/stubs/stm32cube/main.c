/* SPDX-License-Identifier: Apache-2.0 */
void mcuformer_self_test(void);

int main(void) {
  mcuformer_self_test();
  return 0;
}
