/* The file of chosen algorithms: text, a first line that says what it is, then one line a choice:
 * KEY, nine words in hexadecimal, a checksum of what stands before it. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/cuda/gemm.h"

#define FIRST_LINE "mimic: chosen cublasLt algorithms, 1\n"
enum { WORDS = 9, LINE = GEMM_KEY + 17 * WORDS + 32, PATH_SIZE = 4096 };

const char *gemm_cache_path(char *path, size_t size) {
    const char *given = getenv("MIMIC_GEMM_CACHE"), *cache = getenv("XDG_CACHE_HOME"),
               *home = getenv("HOME");
    int n = 0;
    if (given)
        n = snprintf(path, size, "%s", given);
    else if (cache && *cache)
        n = snprintf(path, size, "%s/mimic/gemm.txt", cache);
    else if (home && *home)
        n = snprintf(path, size, "%s/.cache/mimic/gemm.txt", home);
    if (n <= 0 || (size_t)n >= size)
        *path = 0;
    if (*path || (given && !*given))
        return NULL;
    return n > 0 ? "are not kept: the name of their file is too long"
                 : "are not kept: XDG_CACHE_HOME and HOME are unset, and MIMIC_GEMM_CACHE names no "
                   "file";
}

static uint64_t checksum(const char *s, size_t n) { /* FNV-1a */
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ (unsigned char)s[i]) * 0x100000001b3u;
    return h;
}

/* The line of a choice; its length, 0 when the key is too long. */
static int compose(char line[LINE], const char *key, const gemm_choice *c) {
    size_t n = strlen(key);
    if (n >= GEMM_KEY)
        return 0;
    memcpy(line, key, n);
    for (int i = 0; i < WORDS; i++)
        n += (size_t)snprintf(line + n, LINE - n, " %" PRIx64,
                              i < 8 ? c->algorithm[i] : c->workspace);
    n += (size_t)snprintf(line + n, LINE - n, " %016" PRIx64 "\n", checksum(line, n));
    return (int)n;
}

/* Whether the line (with its end) is whole. */
static bool whole(const char *line) {
    const char *sum = strrchr(line, ' ');
    char text[32];
    if (!sum)
        return false;
    snprintf(text, sizeof text, " %016" PRIx64 "\n", checksum(line, (size_t)(sum - line)));
    return strcmp(sum, text) == 0;
}

/* The words of a whole line, when it is the key's. */
static bool parse(const char *line, const char *key, gemm_choice *c) {
    size_t n = strlen(key);
    if (strncmp(line, key, n) != 0 || line[n] != ' ')
        return false;
    char *at = (char *)line + n;
    for (int i = 0; i < WORDS; i++)
        *(i < 8 ? &c->algorithm[i] : &c->workspace) = strtoull(at, &at, 16);
    return true;
}

/* Opens the file behind its first line. NULL: there is none, or (*foreign) it is not ours. */
static FILE *open_ours(const char *path, bool *foreign) {
    char line[LINE] = "";
    FILE *f = fopen(path, "r");
    *foreign = f && (!fgets(line, sizeof line, f) || strcmp(line, FIRST_LINE) != 0);
    if (*foreign) {
        fclose(f);
        f = NULL;
    }
    return f;
}

bool gemm_cache_find(const char *path, const char *key, gemm_choice *choice, const char **warning) {
    char line[LINE];
    bool found = false, damaged = false, foreign;
    FILE *f = open_ours(path, &foreign);
    *warning = foreign ? "is not a file of chosen algorithms; it is left alone" : NULL;
    if (!f)
        return false;
    while (fgets(line, sizeof line, f)) {
        bool good = whole(line);
        damaged |= !good;
        found |= good && parse(line, key, choice);
    }
    fclose(f);
    if (damaged)
        *warning = "is damaged; what cannot be read is chosen anew";
    return found;
}

/* Makes the folders above a file and holds the last of them for this process alone; closing it lets
 * go. -1: it cannot be. */
static int hold_folder(const char *path) {
    char dir[PATH_SIZE];
    snprintf(dir, sizeof dir, "%s", path);
    for (char *p = dir + 1; *p; p++)
        if (*p == '/') {
            *p = 0;
            mkdir(dir, 0777);
            *p = '/';
        }
    char *slash = strrchr(dir, '/');
    if (slash)
        slash[1] = 0;
    int folder = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder >= 0)
        flock(folder, LOCK_EX);
    return folder;
}

/* Writes the file anew: the lines of `from` (NULL: none) without the key's, and `line`. */
static bool rewrite(const char *path, FILE *from, const char *key, const char *line) {
    char part[PATH_SIZE + 32], other[LINE];
    gemm_choice old;
    snprintf(part, sizeof part, "%s.%ld", path, (long)getpid());
    FILE *to = fopen(part, "w");
    bool good = to && fputs(FIRST_LINE, to) >= 0;
    while (good && from && fgets(other, sizeof other, from))
        if (whole(other) && !parse(other, key, &old))
            good = fputs(other, to) >= 0;
    good = good && fputs(line, to) >= 0;
    if (to)
        good = fclose(to) == 0 && good;
    good = good && rename(part, path) == 0;
    if (!good && to)
        remove(part);
    return good;
}

bool gemm_cache_add(const char *path, const char *key, gemm_choice *choice, bool replace,
                    const char **warning) {
    char line[LINE];
    bool foreign = false, good = false;
    *warning = NULL;
    if (compose(line, key, choice) == 0)
        return false;
    int folder = hold_folder(path);
    if (folder < 0) {
        *warning = strerror(errno);
        return false;
    }
    if (!replace && gemm_cache_find(path, key, choice, warning)) {
        good = true;
    } else {
        FILE *from = open_ours(path, &foreign);
        good = !foreign && rewrite(path, from, key, line);
        *warning = good || foreign ? NULL : strerror(errno);
        if (from)
            fclose(from);
    }
    close(folder);
    return good;
}
