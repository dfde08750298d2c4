/* Drives a fuzz target without libFuzzer: `fuzz_NAME [-runs=N] [-seed=N] [FILE|FOLDER...]` replays
 * the files, then mutates seeds. `-seeds=FOLDER` writes the seeds for libFuzzer. The input of a
 * crash is left as crash-NAME.bin in the current folder. */
#include "fuzz.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CAP = 1 << 16, SEEDS = 64 };

static uint8_t input[CAP];
static volatile size_t input_size;
static const char *target = "target";
static uint64_t random_state;

static uint32_t below(uint32_t n) { /* splitmix64 */
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ z >> 31) >> 32) % n;
}

static void save_crash(int signal_number) {
    char name[200];
    snprintf(name, sizeof name, "crash-%s.bin", target);
    FILE *f = fopen(name, "wb");
    if (f) {
        fwrite(input, 1, input_size, f);
        fclose(f);
    }
    fprintf(stderr, "%s: signal %d, input saved as %s\n", target, signal_number, name);
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

static void run_file(const char *path) {
    struct stat s;
    if (stat(path, &s))
        return;
    if (S_ISDIR(s.st_mode)) {
        DIR *d = opendir(path);
        for (struct dirent *e; d && (e = readdir(d));) {
            char below_path[1000];
            if (e->d_name[0] == '.')
                continue;
            snprintf(below_path, sizeof below_path, "%s/%s", path, e->d_name);
            run_file(below_path);
        }
        if (d)
            closedir(d);
        return;
    }
    FILE *f = fopen(path, "rb");
    if (!f)
        return;
    input_size = fread(input, 1, CAP, f);
    fclose(f);
    LLVMFuzzerTestOneInput(input, input_size);
}

/* Values that sit at the edges of formats. */
static void mutate(void) {
    static const char *const words[] = {"18446744073709551615",
                                        "9223372036854775807",
                                        "-1",
                                        "0",
                                        "\"",
                                        "{}",
                                        "[]",
                                        "\xff",
                                        "\n",
                                        "\t"};
    size_t size = input_size, at = size ? below((uint32_t)size) : 0;
    switch (below(9)) {
    case 0:
        if (size)
            input[at] ^= (uint8_t)(1u << below(8));
        break;
    case 1:
        if (size)
            input[at] = (uint8_t)below(256);
        break;
    case 2: /* cut */
        size = at;
        break;
    case 3: { /* remove a piece */
        size_t n = below(16) + 1;
        if (at + n < size) {
            memmove(input + at, input + at + n, size - at - n);
            size -= n;
        }
        break;
    }
    case 4: { /* repeat a piece */
        size_t n = below(40) + 1;
        if (at + n <= size && size + n <= CAP) {
            memmove(input + at + n, input + at, size - at);
            size += n;
        }
        break;
    }
    case 5: { /* insert a word */
        const char *w = words[below(sizeof words / sizeof *words)];
        size_t n = strlen(w);
        if (size + n <= CAP) {
            memmove(input + at + n, input + at, size - at);
            memcpy(input + at, w, n);
            size += n;
        }
        break;
    }
    case 6: { /* an extreme number */
        uint32_t v = below(2) ? 0xffffffffu : 1u << below(32);
        if (at + 4 <= size)
            memcpy(input + at, &v, 4);
        break;
    }
    case 7: /* swap */
        if (size) {
            size_t b = below((uint32_t)size);
            uint8_t t = input[at];
            input[at] = input[b];
            input[b] = t;
        }
        break;
    default: /* change a digit */
        for (size_t k = 0; k < size; k++) {
            uint8_t *p = &input[(at + k) % size];
            if (*p >= '0' && *p <= '9') {
                *p = (uint8_t)('0' + below(10));
                break;
            }
        }
    }
    input_size = size;
}

int main(int argc, char **argv) {
    static uint8_t seeds[SEEDS][CAP];
    size_t sizes[SEEDS];
    long runs = 2000;
    int n = 0;
    const char *slash = strrchr(argv[0], '/');
    target = slash ? slash + 1 : argv[0];
    static const int fatal[] = {SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGALRM};
    for (size_t i = 0; i < sizeof fatal / sizeof *fatal; i++)
        signal(fatal[i], save_crash);
    while (n < SEEDS && (sizes[n] = fuzz_seed(n, seeds[n], CAP)) > 0)
        n++;
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "-runs=", 6) == 0)
            runs = atol(argv[i] + 6);
        else if (strncmp(argv[i], "-seed=", 6) == 0)
            random_state = (uint64_t)atol(argv[i] + 6);
        else if (strncmp(argv[i], "-seeds=", 7) == 0) {
            for (int k = 0; k < n; k++) {
                char name[1000];
                snprintf(name, sizeof name, "%s/seed%d", argv[i] + 7, k);
                FILE *f = fopen(name, "wb");
                if (!f || fwrite(seeds[k], 1, sizes[k], f) != sizes[k] || fclose(f))
                    return 1;
            }
            return 0;
        } else
            run_file(argv[i]);
    }
    for (long run = 0; run < runs && n > 0; run++) {
        int k = (int)below((uint32_t)n);
        memcpy(input, seeds[k], input_size = sizes[k]);
        for (uint32_t m = run < n ? 0 : below(6) + 1; m > 0; m--)
            mutate();
        alarm(20); /* an input that hangs is a failure too */
        LLVMFuzzerTestOneInput(input, input_size);
        alarm(0);
    }
    printf("%s: %d seeds, %ld runs\n", target, n, runs);
    return n == 0;
}
