/* A module of another version of the interface: refused before anything in it is looked at. With
 * NO_MODULE set it gives none at all. */
#include <stdlib.h>

__attribute__((visibility("default"))) const void *mimic_cuda_module(void);
const void *mimic_cuda_module(void) {
    static const int api = 1;
    return getenv("NO_MODULE") ? NULL : &api;
}
