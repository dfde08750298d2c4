/* Single values in NumPy's .npy files. */
#ifndef MIMIC_NPY_H
#define MIMIC_NPY_H

#include "data/dataset_impl.h"

/* The one value of a file of shape () or (1,): a number, or a text that is a number ("3", dtype U
 * or S). Whatever else is refused by name; nothing in the file is executed. */
mimic_status mimic_npy_scalar(mimic_ctx *ctx, const char *path, double *out);

#endif
