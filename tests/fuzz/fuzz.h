/* A fuzz target: a function that must return for any bytes, and seeds to start from. Built with
 * libFuzzer (clang, MIMIC_FUZZ) or with driver.c, which mutates deterministically. To add one:
 * fuzz_NAME.c with the two functions; inputs that once failed go to crashes/NAME/ and are replayed
 * by every test run. */
#ifndef MIMIC_FUZZ_H
#define MIMIC_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size); /* 0 */
/* Seed number i into out (at most cap bytes); its size, 0 when there are no more. */
size_t fuzz_seed(int i, uint8_t *out, size_t cap);

#endif
