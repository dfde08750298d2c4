/* Threads of a block as fibers: each runs until it waits; in every round the ready ones run in a
 * new random order, so that what depends on an order that no barrier gives comes out wrong. From
 * one barrier of the block to the next one warp, any, stands still while the others can go on:
 * those that wait for their warp alone run ahead of it. A fiber that never waits costs two switches
 * of the stack. */
#include "cuda_runtime.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <algorithm>
#include <numeric>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

dim3 threadIdx, blockIdx, blockDim, gridDim;

#ifdef __x86_64__
/* Saves the callee's registers and the stack pointer in *save, goes on at `sp`. */
extern "C" void emu_switch(void **save, void *sp);
asm(R"(
.text
.globl emu_switch
.hidden emu_switch
.type emu_switch, @function
emu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emu_switch, .-emu_switch
)");
#else
#error "the emulator knows x86-64 only"
#endif

namespace emu {

enum state { READY, AT_BLOCK, AT_WARP, DONE };
#ifdef __SANITIZE_ADDRESS__
enum { STACK = 1024 * 1024, GAP = 64 }; /* bytes of a stack; between pieces of shared memory */
#else
enum { STACK = 256 * 1024, GAP = 0 };
#endif
enum { MAX_THREADS = 1024, SHARED_LIMIT = 227 * 1024, SLOT = 16, NONE = -1 };

struct fiber {
    void *sp;
    char *stack; /* NULL: not started */
    state at;
    int site;
    unsigned mask; /* AT_WARP: lanes waited for */
    int from;      /* exchange: lane to take from; bits: what a ballot came to */
    unsigned bits;
    unsigned char give[SLOT], take[SLOT];
};

struct site_memory {
    const void *site;
    size_t at;
};

static fiber fibers[MAX_THREADS];
static std::vector<char *> stacks;
static void *scheduler;
static int current, threads;
static const kernel *running;
static unsigned char *shared_memory;     /* dynamic first, then declarations */
static size_t shared_used, shared_asked; /* with and without gaps */
static std::vector<site_memory> sites;
static char complaint[256];

static uint64_t random_state = 0x9e3779b97f4a7c15u;

static uint32_t random_below(uint32_t n) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((random_state >> 33) * n >> 31);
}

static void shuffle_order(int *order, int n) {
    for (int i = n - 1; i > 0; i--)
        std::swap(order[i], order[random_below((uint32_t)i + 1)]);
}

static void wait(state s, int site) {
    fiber &f = fibers[current];
    f.at = s;
    f.site = site;
    emu_switch(&f.sp, scheduler);
}

static void enter() {
    running->body();
    fiber &f = fibers[current];
    f.at = DONE;
    emu_switch(&f.sp, scheduler);
    abort();
}

static void start(fiber &f) {
    if (stacks.empty()) {
        void *p = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED)
            abort();
        mprotect(p, 4096, PROT_NONE); /* too much on the stack is a fault, not a mystery */
        stacks.push_back((char *)p);
    }
    f.stack = stacks.back();
    stacks.pop_back();
    ASAN_UNPOISON_MEMORY_REGION(f.stack + 4096, STACK - 4096); /* frames that never returned */
    void **top = (void **)(f.stack + STACK);
    *--top = NULL; /* keeps the stack aligned as after a call */
    *--top = (void *)enter;
    for (int i = 0; i < 6; i++)
        *--top = NULL;
    f.sp = top;
}

static void resume(int i) {
    fiber &f = fibers[i];
    if (!f.stack)
        start(f);
    current = i;
    threadIdx = dim3((unsigned)i % blockDim.x, (unsigned)i / blockDim.x % blockDim.y,
                     (unsigned)i / (blockDim.x * blockDim.y));
    emu_switch(&scheduler, f.sp);
    if (f.at == DONE) {
        stacks.push_back(f.stack);
        f.stack = NULL;
    }
}

/* Every lane takes what its source gave; one that gives nothing gives NaN. */
static void hand_over(fiber *warp, unsigned mask) {
    unsigned bits = 0;
    for (int k = 0; k < 32; k++)
        if (mask >> k & 1 && warp[k].give[0])
            bits |= 1u << k;
    for (int k = 0; k < 32; k++) {
        if (!(mask >> k & 1))
            continue;
        if (mask >> warp[k].from & 1)
            memcpy(warp[k].take, warp[warp[k].from].give, SLOT);
        else
            memset(warp[k].take, 0xff, SLOT);
        warp[k].bits = bits;
        warp[k].at = READY;
    }
}

/* Lets lanes go on when all of their mask that have not ended wait in the same place. */
static bool release_warp(int first) {
    fiber *warp = &fibers[first];
    bool some = false;
    int n = std::min(32, threads - first);
    for (int i = 0; i < n; i++) {
        const fiber &f = warp[i];
        unsigned here = 0, gone = 0;
        if (f.at != AT_WARP)
            continue;
        for (int k = 0; k < n; k++) {
            if (warp[k].at == AT_WARP && warp[k].mask == f.mask && warp[k].site == f.site)
                here |= 1u << k;
            if (warp[k].at == DONE)
                gone |= 1u << k;
        }
        if ((f.mask & ~(here | gone)) == 0) {
            hand_over(warp, here);
            some = true;
        }
    }
    return some;
}

/* Lets the block go on when all that live wait at one barrier. */
static bool release_block() {
    int site = -1;
    for (int i = 0; i < threads; i++) {
        const fiber &f = fibers[i];
        if (f.at == DONE)
            continue;
        if (f.at != AT_BLOCK || (site >= 0 && f.site != site))
            return false;
        site = f.site;
    }
    for (int i = 0; i < threads && site >= 0; i++)
        if (fibers[i].at == AT_BLOCK)
            fibers[i].at = READY;
    return site >= 0;
}

static const char *stuck() {
    int block = 0, warp = 0, done = 0, site = 0;
    for (int i = 0; i < threads; i++) {
        const fiber &f = fibers[i];
        block += f.at == AT_BLOCK;
        warp += f.at == AT_WARP;
        done += f.at == DONE;
        if (f.at != DONE)
            site = f.site;
    }
    snprintf(complaint, sizeof complaint,
             "kernel '%s': divergent barrier: of %d threads %d wait for the block, %d for their "
             "warp, %d have ended (one waits in line %d)",
             running->name, threads, block, warp, done, site);
    return complaint;
}

static bool run_block(dim3 at, const char **why) {
    static int order[MAX_THREADS];
    blockIdx = at;
    sites.clear();
    shared_used = shared_asked = (running->shared + 15) & ~(size_t)15;
    ASAN_UNPOISON_MEMORY_REGION(shared_memory, shared_used);
    memset(shared_memory, 0xff, shared_used);
    ASAN_POISON_MEMORY_REGION(shared_memory + running->shared,
                              2 * SHARED_LIMIT / 128 * 128 - running->shared);
    for (int i = 0; i < threads; i++)
        fibers[i].at = READY;
    std::iota(order, order + threads, 0);
    const uint32_t warps = (uint32_t)(threads + 31) / 32;
    int held = (int)random_below(warps); /* the warp that stands still, NONE: none does */
    for (int alive = threads; alive > 0;) {
        bool some = false;
        shuffle_order(order, threads);
        for (int k = 0; k < threads; k++) {
            if (fibers[order[k]].at != READY || order[k] / 32 == held)
                continue;
            some = true;
            resume(order[k]);
            alive -= fibers[order[k]].at == DONE;
        }
        for (int w = 0; w < threads; w += 32)
            some |= release_warp(w);
        if (alive > 0 && release_block()) {
            some = true;
            held = (int)random_below(warps);
        }
        if (!some && held != NONE) {
            held = NONE;
        } else if (!some) {
            *why = stuck();
            for (int i = 0; i < threads; i++)
                if (fibers[i].stack) {
                    stacks.push_back(fibers[i].stack);
                    fibers[i].stack = NULL;
                }
            return false;
        }
    }
    return true;
}

bool run(const kernel &k, const char **why) {
    if (!shared_memory) {
        const char *seed = getenv("MIMIC_EMU_SEED");
        random_state += seed ? strtoull(seed, NULL, 10) * 2654435761u : 0;
        shared_memory = (unsigned char *)aligned_alloc(128, 2 * SHARED_LIMIT / 128 * 128);
    }
    running = &k;
    blockDim = k.block;
    gridDim = k.grid;
    threads = (int)(k.block.x * k.block.y * k.block.z);
    uint64_t n = (uint64_t)k.grid.x * k.grid.y * k.grid.z;
    uint64_t first = random_below(n < 0x7fffffff ? (uint32_t)n : 0x7fffffff);
    bool down = random_below(2) != 0;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t b = (first + (down ? n - i : i)) % n;
        dim3 at((unsigned)(b % k.grid.x), (unsigned)(b / k.grid.x % k.grid.y),
                (unsigned)(b / k.grid.x / k.grid.y));
        if (!run_block(at, why))
            return false;
    }
    return true;
}

void sync_block(int site) {
    wait(AT_BLOCK, site);
}

void sync_warp(unsigned mask, int site) {
    int n = std::min(32, threads - current / 32 * 32);
    fibers[current].mask = n == 32 ? mask : mask & ((1u << n) - 1);
    wait(AT_WARP, site);
}

int lane() {
    return current % 32;
}

void exchange(unsigned mask, const void *give, void *take, size_t size, int from) {
    fiber &f = fibers[current];
    if (size > SLOT)
        abort();
    memcpy(f.give, give, size);
    f.from = from;
    sync_warp(mask, -2);
    memcpy(take, f.take, size);
}

unsigned ballot(unsigned mask, bool on) {
    fiber &f = fibers[current];
    f.give[0] = on;
    f.from = lane();
    sync_warp(mask, -3);
    return f.bits;
}

void *shared(const void *site, size_t bytes) {
    for (const site_memory &m : sites)
        if (m.site == site)
            return shared_memory + m.at;
    size_t at = (shared_used + 15) & ~(size_t)15;
    shared_asked += (bytes + 15) & ~(size_t)15;
    if (shared_asked > running->most) {
        fprintf(stderr, "emulator: kernel '%s' has %zu bytes of shared memory, %zu allowed\n",
                running->name, shared_asked, running->most);
        abort();
    }
    ASAN_UNPOISON_MEMORY_REGION(shared_memory + at, bytes);
    memset(shared_memory + at, 0xff, bytes);
    shared_used = at + bytes + GAP;
    sites.push_back({site, at});
    return shared_memory + at;
}

void *dynamic_shared() {
    return shared_memory;
}

} // namespace emu
