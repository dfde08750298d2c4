/* Elementwise: one operand, two of equal shape, two with broadcasting. One pass, bound by memory:
 * 16 bytes a thread wherever the addresses allow it. */
#include "backend/cuda/map.h"

/* --- the arithmetic, in f32 --- */

struct scale_fn {
    float p, q;
    __device__ float operator()(float a) const {
        return a * p + q;
    }
};
struct exp_fn {
    __device__ float operator()(float a) const {
        return expf(a);
    }
};
struct log_fn {
    __device__ float operator()(float a) const {
        return logf(a);
    }
};
struct sqrt_fn {
    __device__ float operator()(float a) const {
        return sqrtf(a);
    }
};
struct add_fn {
    __device__ float operator()(float a, float b) const {
        return a + b;
    }
};
struct sub_fn {
    __device__ float operator()(float a, float b) const {
        return a - b;
    }
};
struct mul_fn {
    __device__ float operator()(float a, float b) const {
        return a * b;
    }
};
struct div_fn {
    __device__ float operator()(float a, float b) const {
        return a / b;
    }
};

/* Axes of y, merged where both operands run on; stride 0 where one is repeated. */
struct spread {
    int rank;
    int64_t n[MIMIC_MAX_RANK], a[MIMIC_MAX_RANK], b[MIMIC_MAX_RANK];
};

template <class T, class F>
__global__ void map_spread(const T *a, const T *b, T *y, int64_t n, spread s, F f) {
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, rest = i, ia = 0, ib = 0;
    if (i >= n)
        return;
    for (int k = s.rank - 1; k >= 0; k--) {
        int64_t at = rest % s.n[k];
        rest /= s.n[k];
        ia += at * s.a[k];
        ib += at * s.b[k];
    }
    put(y + i, f(get(a[ia]), get(b[ib])));
}

/* --- launches --- */

template <class T, class F> static void run_one(mimic_call *c, F f) {
    const T *a = (const T *)mimic_data(c->in[0]);
    T *y = (T *)mimic_data(c->out[0]);
    int64_t n = mimic_numel(c->in[0]);
    if (n > 0)
        map(state_of(c->ctx)->stream, a, y, n, f);
}

template <class F> static mimic_status one(mimic_call *c, F f) {
    if (c->in[0]->dtype == MIMIC_F32)
        run_one<float>(c, f);
    else
        run_one<bf16>(c, f);
    return done(c);
}

static spread plan(const mimic_tensor *a, const mimic_tensor *b, const mimic_tensor *y) {
    spread s = {};
    int64_t pa = 1, pb = 1, sa[MIMIC_MAX_RANK], sb[MIMIC_MAX_RANK];
    for (int i = 0; i < y->rank; i++) { /* from the right */
        int64_t da = i < a->rank ? a->shape[a->rank - 1 - i] : 1;
        int64_t db = i < b->rank ? b->shape[b->rank - 1 - i] : 1;
        sa[y->rank - 1 - i] = da == 1 ? 0 : pa;
        sb[y->rank - 1 - i] = db == 1 ? 0 : pb;
        pa *= da;
        pb *= db;
    }
    for (int k = 0; k < y->rank; k++) {
        int r = s.rank - 1;
        int64_t n = y->shape[k];
        if (n == 1)
            continue;
        if (r >= 0 && s.a[r] == sa[k] * n && s.b[r] == sb[k] * n) {
            s.n[r] *= n;
            s.a[r] = sa[k];
            s.b[r] = sb[k];
            continue;
        }
        s.n[++r] = n;
        s.a[r] = sa[k];
        s.b[r] = sb[k];
        s.rank++;
    }
    return s;
}

template <class T, class F> static void run_two(mimic_call *c, F f) {
    const T *a = (const T *)mimic_data(c->in[0]), *b = (const T *)mimic_data(c->in[1]);
    T *y = (T *)mimic_data(c->out[0]);
    int64_t n = mimic_numel(c->out[0]);
    cudaStream_t stream = state_of(c->ctx)->stream;
    spread s = plan(c->in[0], c->in[1], c->out[0]);
    if (n == 0)
        return;
    if (s.rank == 0 || (s.rank == 1 && s.a[0] == 1 && s.b[0] == 1))
        map(stream, a, b, y, n, f);
    else
        LAUNCH((map_spread<T, F>), blocks_of(n, MAP_THREADS), MAP_THREADS, 0, stream, a, b, y, n, s,
               f);
}

template <class F> static mimic_status two(mimic_call *c, F f) {
    if (c->in[0]->dtype == MIMIC_F32)
        run_two<float>(c, f);
    else
        run_two<bf16>(c, f);
    return done(c);
}

KERNEL(add) {
    return two(c, add_fn());
}

KERNEL(sub) {
    return two(c, sub_fn());
}

KERNEL(mul) {
    return two(c, mul_fn());
}

KERNEL(div) {
    return two(c, div_fn());
}

KERNEL(scale) {
    return one(c, scale_fn{(float)c->attrs.v[0].f, (float)c->attrs.v[1].f});
}

KERNEL(exp) {
    return one(c, exp_fn());
}

KERNEL(log) {
    return one(c, log_fn());
}

KERNEL(sqrt) {
    return one(c, sqrt_fn());
}

KERNEL(relu) {
    return one(c, relu_fn());
}

KERNEL(gelu) {
    return c->attrs.v[0].i ? one(c, gelu_tanh_fn()) : one(c, gelu_fn());
}

KERNEL(relu_bwd) {
    return two(c, relu_bwd_fn());
}

KERNEL(gelu_bwd) {
    return c->attrs.v[0].i ? two(c, gelu_tanh_bwd_fn()) : two(c, gelu_bwd_fn());
}
