/* Shared by the tests of files and databases: a scratch folder, small file helpers, message checks.
 */
#ifndef MIMIC_TEST_STORE_UTIL_H
#define MIMIC_TEST_STORE_UTIL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "mimic.h"

static mimic_ctx *ctx;
static char scratch[200];

/* PATH of a name in the scratch folder; four results live at a time. */
static inline const char *at(const char *name) {
    static char text[4][400];
    static int next;
    char *t = text[next++ % 4];
    snprintf(t, sizeof text[0], "%s/%s", scratch, name);
    return t;
}

/* The context's own blocks: message, names of places. Made once here, so that leaks can be counted.
 */
static int64_t own_blocks;

static inline int scratch_open(void **state) {
    (void)state;
    mimic_tensor *t;
    mimic_safetensors *f;
    snprintf(scratch, sizeof scratch, "%s/mimic-test-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    if (!mkdtemp(scratch) || mimic_open(NULL, &ctx))
        return -1;
    const char *name = "a";
    mimic_fail(ctx, MIMIC_EINVAL, "%0900d", 0);
    if (mimic_tensor_new(ctx, MIMIC_F32, 0, NULL, &t) ||
        mimic_safetensors_save(ctx, at("w"), &name, &t, 1, NULL, 0, NULL, NULL))
        return -1;
    mimic_tensor_release(t);
    if (mimic_safetensors_open(ctx, at("w"), &f) || mimic_safetensors_load(f, 0, &t))
        return -1;
    mimic_tensor_release(t);
    mimic_safetensors_close(f);
    float zero = 0;
    if (mimic_tensor_from(ctx, MIMIC_F32, 0, NULL, &zero, &t))
        return -1;
    mimic_tensor_release(t);
    unlink(at("w"));
    mimic_trim(ctx);
    own_blocks = mimic_alloc_live(ctx);
    return 0;
}

/* Also fails when the engine leaks blocks. */
static inline int scratch_close(void **state) {
    (void)state;
    char command[300];
    mimic_trim(ctx);
    int64_t leaked = mimic_alloc_live(ctx) - own_blocks;
    if (leaked != 0)
        print_error("%lld blocks are not freed\n", (long long)leaked);
    mimic_close(ctx);
    snprintf(command, sizeof command, "rm -rf '%s'", scratch);
    return system(command) || leaked != 0;
}

static inline void write_file(const char *path, const void *data, size_t size) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

static inline char *read_file(const char *path, size_t *size) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *size = (size_t)ftell(f);
    rewind(f);
    char *data = malloc(*size + 1);
    assert_int_equal(fread(data, 1, *size, f), *size);
    data[*size] = 0;
    fclose(f);
    return data;
}

static inline bool exists(const char *path) {
    struct stat s;
    return stat(path, &s) == 0;
}

/* Number of entries of a folder. */
static inline int files_in(const char *path) {
    int n = 0;
    DIR *d = opendir(path);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static inline void must(mimic_status st) {
    if (st != MIMIC_OK)
        print_error("%s: %s\n", mimic_status_name(st), mimic_message(ctx));
    assert_int_equal(st, MIMIC_OK);
}

/* `st` is the expected failure and its message contains `part`. */
static inline void must_fail(mimic_status st, mimic_status want, const char *part) {
    if (st != want || !strstr(mimic_message(ctx), part))
        print_error("%s: %s\n  expected: %s\n", mimic_status_name(st), mimic_message(ctx), part);
    assert_int_equal(st, want);
    assert_non_null(strstr(mimic_message(ctx), part));
}

/* Mounts a tmpfs of `bytes` at scratch/name; false where that is not allowed. */
static inline bool small_disk(const char *name, const char *bytes) {
    char option[40];
    snprintf(option, sizeof option, "size=%s", bytes);
    if (mkdir(at(name), 0777) == 0 && mount("none", at(name), "tmpfs", 0, option) == 0)
        return true;
    print_message("no right to mount a small file system: this part is left out\n");
    return false;
}

/* Runs f in a child that has no special rights; returns its exit status. */
static inline int as_nobody(int (*f)(void)) {
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        if (getuid() == 0 && (setgid(65534) || setuid(65534)))
            _exit(99);
        _exit(f());
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

/* ThreadSanitizer cannot follow a child that starts threads. */
static inline bool no_threads_after_fork(void) {
#ifdef __SANITIZE_THREAD__
    print_message("several processes under ThreadSanitizer: this part is left out\n");
    return true;
#else
    return false;
#endif
}

static inline double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

#endif
