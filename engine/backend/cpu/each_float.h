/* Instantiates a family of kernels for f32, bf16 and f64. A file `norm.c` that holds templates does
 *
 *     #ifdef T
 *     static void NAME(row)(const T *x, int64_t n) { VEC s = VSET(0); ... s += LOAD(x + i); ... }
 *     #else
 *     #include "backend/cpu/kernel.h"
 *     #define FAMILY "backend/cpu/norm.c"
 *     #include "backend/cpu/each_float.h"
 *     ... BY_FLOAT(dtype, row)(x, n) ...
 *     #endif
 *
 * Inside the templates: T storage type, REAL compute type (float for bf16), VEC its vector of W
 * lanes, LOAD STORE LOADN STOREN between T and VEC, GET PUT between T and REAL, RLOAD RSTORE RLOADN
 * RSTOREN for arrays of REAL (statistics, gains), VSET a broadcast; DTYPE and ACCUM the enum
 * values. With NO_BF16 defined there are the f32 and f64 instances only (losses), chosen by
 * BY_REAL. */
#include "backend/cpu/simd.h"

#ifndef EACH_CAT
#define EACH_CAT2(a, b) a##_##b
#define EACH_CAT(a, b) EACH_CAT2(a, b)
/* The instance of `name` for a float dtype known at run time. */
#define BY_FLOAT(dtype, name)                                                                      \
    ((dtype) == MIMIC_F32 ? name##_f32 : (dtype) == MIMIC_BF16 ? name##_bf16 : name##_f64)
#define BY_REAL(dtype, name) ((dtype) == MIMIC_F64 ? name##_f64 : name##_f32)
#define NAME(name) EACH_CAT(name, SUFFIX)
#define LOAD(p) EACH_CAT(vload, SUFFIX)(p)
#define STORE(p, v) EACH_CAT(vstore, SUFFIX)(p, v)
#define LOADN(p, n) EACH_CAT(vloadn, SUFFIX)(p, n)
#define STOREN(p, v, n) EACH_CAT(vstoren, SUFFIX)(p, v, n)
#define GET(x) EACH_CAT(get, SUFFIX)(x)
#define PUT(x) EACH_CAT(put, SUFFIX)(x)
#define RLOAD(p) EACH_CAT(vload, RSUFFIX)(p)
#define RSTORE(p, v) EACH_CAT(vstore, RSUFFIX)(p, v)
#define RLOADN(p, n) EACH_CAT(vloadn, RSUFFIX)(p, n)
#define RSTOREN(p, v, n) EACH_CAT(vstoren, RSUFFIX)(p, v, n)
#define VSET(x) EACH_CAT(vset, RSUFFIX)(x)
/* A function of libm in the compute type: RMATH(sqrt)(x). */
#define RMATH(name) EACH_CAT(EACH_CAT(math, name), RSUFFIX)

static inline float get_f32(float x) {
    return x;
}
static inline float put_f32(float x) {
    return x;
}
static inline float get_bf16(uint16_t x) {
    return mimic_bf16_to_f32(x);
}
static inline uint16_t put_bf16(float x) {
    return mimic_f32_to_bf16(x);
}
static inline double get_f64(double x) {
    return x;
}
static inline double put_f64(double x) {
    return x;
}
#define math_sqrt_f32 sqrtf
#define math_sqrt_f64 sqrt
#define math_exp_f32 expf
#define math_exp_f64 exp
#define math_log_f32 logf
#define math_log_f64 log
#define math_fabs_f32 fabsf
#define math_fabs_f64 fabs
#endif

#define T float
#define REAL float
#define VEC vf32
#define W VF32_W
#define SUFFIX f32
#define RSUFFIX f32
#define DTYPE MIMIC_F32
#define ACCUM MIMIC_F32
#include FAMILY
#undef T
#undef SUFFIX
#undef DTYPE

#ifndef NO_BF16
#define T uint16_t
#define SUFFIX bf16
#define DTYPE MIMIC_BF16
#include FAMILY
#undef T
#undef SUFFIX
#undef DTYPE
#endif
#undef REAL
#undef VEC
#undef W
#undef RSUFFIX
#undef ACCUM

#define T double
#define REAL double
#define VEC vf64
#define W VF64_W
#define SUFFIX f64
#define RSUFFIX f64
#define DTYPE MIMIC_F64
#define ACCUM MIMIC_F64
#include FAMILY
#undef T
#undef REAL
#undef VEC
#undef W
#undef SUFFIX
#undef RSUFFIX
#undef DTYPE
#undef ACCUM
#undef FAMILY
#undef NO_BF16
