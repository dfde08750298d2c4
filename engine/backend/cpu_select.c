/* Chooses among the CPU backends this program holds: the best the machine runs, or one by name. */
#include "ops/op_impl.h"

#include <stdio.h>
#include <string.h>
#ifdef MIMIC_HAVE_amx
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

extern const mimic_backend mimic_cpu_base_backend;
#ifdef MIMIC_HAVE_avx2
extern const mimic_backend mimic_cpu_avx2_backend;
#endif
#ifdef MIMIC_HAVE_avx512
extern const mimic_backend mimic_cpu_avx512_backend;
#endif
#ifdef MIMIC_HAVE_amx
extern const mimic_backend mimic_cpu_amx_backend;
#endif

#ifdef MIMIC_HAVE_avx512
static bool has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512bf16");
}
#endif
#ifdef MIMIC_HAVE_amx
/* The processor has matrix registers with bf16, and the system grants this process their state
 * (Linux 5.16; Documentation/arch/x86/xstate.rst). */
static bool has_amx(void) {
    enum { LEAF_AMX_BF16 = 1 << 22, LEAF_AMX_TILE = 1 << 24 };
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    unsigned a, b, c, d;
    return has_avx512() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & LEAF_AMX_BF16) &&
           (d & LEAF_AMX_TILE) && syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}
#endif

const mimic_backend *mimic_cpu_backend(const char *isa, char *names, size_t size) {
    struct {
        const char *name;
        const mimic_backend *backend;
        bool runs;
    } choices[] = {
#ifdef MIMIC_HAVE_amx
        {"amx", &mimic_cpu_amx_backend, has_amx()},
#endif
#ifdef MIMIC_HAVE_avx512
        {"avx512", &mimic_cpu_avx512_backend, has_avx512()},
#endif
#ifdef MIMIC_HAVE_avx2
        {"avx2", &mimic_cpu_avx2_backend,
         __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
             __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2")},
#endif
        {"base", &mimic_cpu_base_backend, true},
    };
    size_t used = 0;
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++) {
        if (!choices[i].runs)
            continue;
        if (!isa || strcmp(isa, choices[i].name) == 0)
            return choices[i].backend;
        if (used < size)
            used += (size_t)snprintf(names + used, size - used, "%s%s", used ? ", " : "",
                                     choices[i].name);
    }
    return NULL;
}
