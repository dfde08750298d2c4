/* Finds and opens libmimic_cuda.so: MIMIC_CUDA, or beside the program or library this code is in.
 * It is never closed again (opening it twice gives the same one). The cuBLASLt library that it
 * needs is looked for where toolkits and Python environments keep it. */
#define _GNU_SOURCE /* dladdr */
#include <dlfcn.h>
#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "autograd/optim_impl.h"
#include "backend/cuda/module.h"

#define MODULE "libmimic_cuda.so"

static const mimic_host host_calls = {.fail = mimic_fail,
                                      .log = mimic_log,
                                      .alloc = mimic_alloc,
                                      .free = mimic_free,
                                      .get = mimic_device_get,
                                      .put = mimic_device_put,
                                      .trim = mimic_pool_trim};

/* Keeps the first file that matches the pattern's fill-in; the first directory that has it wins. */
static bool first_match(const char *pattern, char *out, size_t size) {
    glob_t g;
    bool found = glob(pattern, 0, NULL, &g) == 0 && g.gl_pathc > 0;
    if (found)
        snprintf(out, size, "%s", g.gl_pathv[0]);
    globfree(&g);
    return found;
}

/* Loads a library that dlopen did not find by itself, named in its complaint ("libcublasLt.so.13:
 * cannot open ..."), so that the next try finds it loaded. */
static bool load_needed(const char *complaint) {
    const char *end = strchr(complaint, ':');
    char name[64], user[PATH_MAX] = "", pattern[PATH_MAX], path[PATH_MAX];
    const char *home = getenv("HOME");
    if (!end || strncmp(complaint, "libcublasLt.so.", 15) != 0 ||
        (size_t)(end - complaint) >= sizeof name)
        return false;
    snprintf(name, sizeof name, "%.*s", (int)(end - complaint), complaint);
    if (home && *home)
        snprintf(user, sizeof user, "%.*s/.local", PATH_MAX - 8, home);
    const char *const roots[] = {getenv("CUDA_HOME"),
                                 getenv("CUDA_PATH"),
                                 "/usr/local/cuda",
                                 "/usr/local/cuda-*",
                                 "/opt/cuda",
                                 "/usr/lib/cuda",
                                 getenv("VIRTUAL_ENV"),
                                 getenv("CONDA_PREFIX"),
                                 user,
                                 "/usr/local",
                                 "/usr"};
    const char *const below[] = {"lib64", "targets/*/lib", "lib",
                                 "lib/python3*/*-packages/nvidia/*/lib"};
    for (size_t i = 0; i < sizeof roots / sizeof *roots; i++)
        for (size_t k = 0; roots[i] && k < sizeof below / sizeof *below; k++) {
            snprintf(pattern, sizeof pattern, "%s/%s/%s", roots[i], below[k], name);
            if (first_match(pattern, path, sizeof path) && dlopen(path, RTLD_NOW | RTLD_GLOBAL))
                return true;
        }
    return false;
}

/* The directory of a path, without the slash; false when there is none. */
static bool directory_of(char *path) {
    char *slash = strrchr(path, '/');
    if (slash)
        *slash = 0;
    return slash != NULL;
}

/* Writes the module's path; false when it is nowhere. */
static bool find_module(char *path, size_t size) {
    const char *const beside[] = {"", "../", "../lib/", "../lib/mimic/", "../../"};
    const char *given = getenv("MIMIC_CUDA");
    char dirs[2][PATH_MAX] = {"", ""};
    Dl_info info;
    if (given && *given) {
        snprintf(path, size, "%s", given);
        return true;
    }
    const char *program = (const char *)getauxval(AT_EXECFN); /* where there is no /proc */
    if (!realpath("/proc/self/exe", dirs[0]) && (!program || !realpath(program, dirs[0])))
        dirs[0][0] = 0;
    if (!dladdr(&host_calls, &info) || !realpath(info.dli_fname, dirs[1]))
        dirs[1][0] = 0;
    for (int d = 1; d >= 0; d--) { /* the library first: the program may be any Lua */
        if (!directory_of(dirs[d]))
            continue;
        for (size_t i = 0; i < sizeof beside / sizeof *beside; i++) {
            snprintf(path, size, "%s/%s" MODULE, dirs[d], beside[i]);
            if (access(path, R_OK) == 0)
                return true;
        }
    }
    return false;
}

/* Whether module and engine are made of the same records; says what differs. */
static bool same(const mimic_module *m, char *why, size_t size) {
    const size_t sizes[] = MIMIC_MODULE_SIZES;
    if (m->api != MIMIC_MODULE_API) {
        snprintf(why, size, "its interface is number %d, this program's %d", m->api,
                 MIMIC_MODULE_API);
        return false;
    }
    if (memcmp(m->sizes, sizes, sizeof sizes) != 0) {
        snprintf(why, size, "it was built from other sources (record sizes differ)");
        return false;
    }
    for (int i = 0; i < m->n_ops || i < mimic_op_count(); i++) {
        const char *theirs = i < m->n_ops ? m->op_names[i] : "none";
        const char *ours = i < mimic_op_count() ? mimic_op_at(i)->name : "none";
        if (strcmp(theirs, ours) != 0) {
            snprintf(why, size, "its operator %d is '%s', this program's '%s'", i, theirs, ours);
            return false;
        }
    }
    return true;
}

mimic_status mimic_cuda_open(mimic_ctx *ctx, const mimic_backend **out) {
    char path[PATH_MAX], why[512];
    if (!find_module(path, sizeof path))
        return mimic_fail(ctx, MIMIC_EUNSUPPORTED,
                          "cuda: there is no " MODULE
                          " beside this program (it is built where nvcc is; MIMIC_CUDA=FILE names "
                          "one)");
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    for (int tries = 0; !lib && tries < 2; tries++) {
        snprintf(why, sizeof why, "%s", dlerror());
        if (!load_needed(why))
            break;
        lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    }
    if (!lib)
        return mimic_fail(ctx, MIMIC_EUNSUPPORTED, "cuda: %s cannot be opened: %s", path, why);
    mimic_module_entry entry;
    *(void **)&entry = dlsym(lib, "mimic_cuda_module");
    if (!entry)
        return mimic_fail(ctx, MIMIC_EUNSUPPORTED, "cuda: %s is no module of mimic", path);
    const mimic_module *m = entry();
    if (!m)
        return mimic_fail(ctx, MIMIC_EUNSUPPORTED, "cuda: %s gives no module", path);
    if (!same(m, why, sizeof why))
        return mimic_fail(ctx, MIMIC_EUNSUPPORTED, "cuda: %s does not fit: %s", path, why);
    mimic_status st = m->open(ctx, &host_calls, why, sizeof why);
    if (st)
        return mimic_fail(ctx, st, "cuda: %s", why);
    *out = m->backend;
    return MIMIC_OK;
}
