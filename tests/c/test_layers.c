/* The layers of the tree: greps the #include lines of every source file and fails on a forbidden
 * one (core <- tensor <- ops <- autograd; only bindings see lua.h), and on float atomics in
 * kernels. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

/* What the files below `folder` may include, beside <system> headers and mimic/...: prefixes. */
static const struct rule {
    const char *folder;
    const char *allowed[8];
} rules[] = {
    {"engine/core",
     {"core/", "ops/op_impl.h", "tensor/tensor_impl.h"}}, /* ctx.c opens the layers above */
    {"engine/tensor", {"core/", "tensor/", "ops/op_impl.h"}},
    {"engine/ops", {"core/", "tensor/", "ops/"}},
    {"engine/autograd", {"core/", "tensor/", "ops/", "autograd/"}},
    {"engine/backend",
     {"core/", "tensor/", "ops/", "autograd/optim_impl.h", "backend/", "image/pixel_math.h",
      "image/affine_math.h", "image/plan.h"}},
    {"engine/image", {"core/", "image/"}},
    {"engine/data", {"core/", "tensor/", "image/", "data/"}},
    {"engine/analysis", {"core/", "tensor/", "analysis/"}},
    {"engine/store", {"core/", "tensor/", "store/"}},
    {"bindings", {"l_mimic.h", "embedded.h"}},
};

static int violations;

static void check_line(const char *file, int number, const char *line, const struct rule *r) {
    char name[256];
    const char *lua[] = {"lua.h", "lauxlib.h", "lualib.h"};
    if (strstr(line, "atomicAdd(")) { /* sums whose order is not fixed */
        print_error("%s:%d: no atomicAdd in kernels\n", file, number);
        violations++;
    }
    if (sscanf(line, " # include <%255[^>]>", name) == 1) {
        bool is_lua = false;
        for (int i = 0; i < 3; i++)
            is_lua |= strcmp(name, lua[i]) == 0;
        if (is_lua && strncmp(r->folder, "bindings", 8) != 0) {
            print_error("%s:%d: only bindings include %s\n", file, number, name);
            violations++;
        }
        if (strncmp(name, "cu", 2) == 0 && !strstr(file, "engine/backend/cuda/")) {
            print_error("%s:%d: only engine/backend/cuda includes %s\n", file, number, name);
            violations++;
        }
        return;
    }
    if (sscanf(line, " # include \"%255[^\"]\"", name) != 1)
        return;
    if (strncmp(name, "mimic/", 6) == 0 || strcmp(name, "mimic.h") == 0)
        return;
    if (!strchr(name, '/') && strncmp(r->folder, "bindings", 8) != 0)
        return; /* a header of the same folder */
    for (int i = 0; i < 8 && r->allowed[i]; i++)
        if (strncmp(name, r->allowed[i], strlen(r->allowed[i])) == 0)
            return;
    print_error("%s:%d: %s may not include \"%s\"\n", file, number, r->folder, name);
    violations++;
}

static void check_file(const char *path, const struct rule *r) {
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    char line[1024];
    for (int n = 1; fgets(line, sizeof line, f); n++)
        check_line(path + sizeof MIMIC_SOURCE, n, line, r);
    fclose(f);
}

static int walk(const char *dir, const struct rule *r) {
    DIR *d = opendir(dir);
    assert_non_null(d);
    int files = 0;
    for (struct dirent *e; (e = readdir(d));) {
        char path[1024];
        struct stat st;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (e->d_name[0] == '.' || stat(path, &st))
            continue;
        size_t n = strlen(path);
        if (S_ISDIR(st.st_mode))
            files += walk(path, r);
        else if (strcmp(path + n - 2, ".c") == 0 || strcmp(path + n - 2, ".h") == 0 ||
                 strcmp(path + n - 3, ".cu") == 0) {
            check_file(path, r);
            files++;
        }
    }
    closedir(d);
    return files;
}

static void includes_respect_layers(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        char dir[1024];
        snprintf(dir, sizeof dir, "%s/%s", MIMIC_SOURCE, rules[i].folder);
        assert_true(walk(dir, &rules[i]) > 0);
    }
    assert_int_equal(violations, 0);
}

static void a_violation_is_seen(void **state) {
    (void)state;
    int before = violations;
    check_line("planted", 1, "#include <lua.h>", &rules[0]);
    check_line("planted", 2, "#include \"store/x.h\"", &rules[3]);
    check_line("planted", 3, "#include \"core/ctx.h\"", &rules[3]);
    check_line("planted", 4, "#include <cuda_runtime.h>", &rules[3]);
    check_line("planted", 5, "    atomicAdd(&sum, x);", &rules[4]);
    assert_int_equal(violations - before, 4);
    violations = before;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(includes_respect_layers),
                                       cmocka_unit_test(a_violation_is_seen)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
