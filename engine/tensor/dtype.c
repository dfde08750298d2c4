/* Element types: names, sizes, and conversion of whole buffers. */
#include <string.h>

#include "tensor/tensor_impl.h"

static const char *const names[MIMIC_DTYPE_COUNT] = {"f32", "bf16", "f64", "i32", "u8"};
static const uint8_t sizes[MIMIC_DTYPE_COUNT] = {4, 2, 8, 4, 1};

const char *mimic_dtype_name(mimic_dtype dtype) {
    return (unsigned)dtype < MIMIC_DTYPE_COUNT ? names[dtype] : "?";
}

bool mimic_dtype_parse(const char *name, mimic_dtype *out) {
    for (int i = 0; i < MIMIC_DTYPE_COUNT; i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (mimic_dtype)i;
            return true;
        }
    return false;
}

size_t mimic_dtype_size(mimic_dtype dtype) {
    return sizes[dtype];
}

static double load(mimic_dtype dtype, const void *p, int64_t i) {
    switch (dtype) {
    case MIMIC_F32:
        return ((const float *)p)[i];
    case MIMIC_BF16:
        return mimic_bf16_to_f32(((const uint16_t *)p)[i]);
    case MIMIC_F64:
        return ((const double *)p)[i];
    case MIMIC_I32:
        return ((const int32_t *)p)[i];
    default:
        return ((const uint8_t *)p)[i];
    }
}

/* Integers saturate and NaN becomes 0, so that no conversion is undefined. */
static double clamp(double x, double lo, double hi) {
    return x > lo ? (x < hi ? x : hi) : (x == x ? lo : 0);
}

static void store(mimic_dtype dtype, void *p, int64_t i, double x) {
    switch (dtype) {
    case MIMIC_F32:
        ((float *)p)[i] = (float)x;
        break;
    case MIMIC_BF16:
        ((uint16_t *)p)[i] = mimic_f32_to_bf16((float)x);
        break;
    case MIMIC_F64:
        ((double *)p)[i] = x;
        break;
    case MIMIC_I32:
        ((int32_t *)p)[i] = (int32_t)clamp(x, INT32_MIN, INT32_MAX);
        break;
    default:
        ((uint8_t *)p)[i] = (uint8_t)clamp(x, 0, 255);
    }
}

void mimic_convert(mimic_dtype to, void *dst, mimic_dtype from, const void *src, int64_t n,
                   int64_t src_stride) {
    if (to == from && src_stride == 1) {
        if (n > 0) /* of no elements the pointers may be NULL */
            memmove(dst, src, (size_t)n * sizes[to]);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        store(to, dst, i, load(from, src, i * src_stride));
}
