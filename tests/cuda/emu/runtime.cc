/* The calls of CUDA's runtime on the host. Streams are queues that nobody works off until something
 * waits; then the heads of all queues run in random order as events allow. So the host sees nothing
 * early, and what no event orders comes in any order. Device memory has guarded ends. */
#include "cuda_runtime.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <deque>
#include <map>
#include <vector>

enum { GUARD = 256, GUARD_BYTE = 0xfd };

/* For tests: the most blocks along a grid's y and z; the largest pitch of a copy; how often the
 * host waited for the device, how often the device had nothing left to do when it went on, how
 * often memory was allocated, and how often pageable memory was copied from. */
extern "C" {
__attribute__((visibility("default"))) int emu_waits, emu_idle, emu_allocations, emu_pageable;
__attribute__((visibility("default"))) size_t emu_pitch_limit = 0x7fffffff;
__attribute__((visibility("default"))) unsigned emu_grid_limit = 65535;
}

struct emu_event {
    uint64_t recorded = 0, done = 0; /* tickets */
    bool alive = true;
    int64_t time = 0; /* of its stream */
};

namespace {

struct work {
    std::function<void()> run;
    int time = 1;
    emu_event *wait = nullptr; /* with a ticket: not before the event has done it */
    uint64_t ticket = 0;
};

struct block {
    size_t bytes;
    bool host;
};

} // namespace

struct emu_stream {
    std::deque<work> queue;
    int64_t clock = 0; /* time its work has taken */
};
struct emu_graph {
    std::vector<work> nodes;
};
struct emu_graph_exec {
    std::vector<work> nodes;
};

namespace {

std::vector<emu_stream *> streams;
std::map<char *, block> blocks; /* by the address handed out */
std::map<const void *, size_t> shared_allowed;
struct use {
    size_t wanted;
    uint64_t capture; /* the one it began in, 0: none */
};
std::map<void *, use> uses; /* blocks in use, by address */
emu_stream *capturing;      /* NULL: nobody captures */
emu_graph *captured;
bool invalid; /* the capture met what it cannot hold */
uint64_t captures;
int graphs;
cudaError_t last = cudaSuccess, sticky = cudaSuccess;
char text[512];
uint64_t tickets;
uint32_t random_state = 12345;
int events;

/* What is left when the program ends was forgotten. */
struct leak_check {
    ~leak_check() {
        if (blocks.empty() && streams.empty() && events == 0 && graphs == 0)
            return;
        fprintf(stderr,
                "emulator: not freed at the end: %zu blocks, %zu streams, %d events, %d graphs\n",
                blocks.size(), streams.size(), events, graphs);
        fflush(stdout);
        _exit(99);
    }
} at_end;

cudaError_t failed(cudaError_t e, const char *why) {
    snprintf(text, sizeof text, "%s", why);
    last = e;
    return e;
}

cudaError_t broken(const char *why) {
    sticky = cudaErrorLaunchFailure;
    return failed(sticky, why);
}

/* What a capture cannot hold: refused, and the capture comes to nothing. */
bool forbidden(const char *what) {
    if (!capturing)
        return false;
    static char why[128];
    snprintf(why, sizeof why, "%s while a stream is captured", what);
    invalid = true;
    failed(cudaErrorStreamCaptureUnsupported, why);
    return true;
}

bool known(emu_stream *s) {
    return std::find(streams.begin(), streams.end(), s) != streams.end();
}

bool ready(const emu_stream *s) {
    return !s->queue.empty() &&
           (!s->queue.front().wait || s->queue.front().wait->done >= s->queue.front().ticket);
}

/* Does the first piece of work of some stream that may go on, any of them. False: none may. */
bool step() {
    std::vector<emu_stream *> can;
    for (emu_stream *s : streams)
        if (ready(s))
            can.push_back(s);
    if (can.empty())
        return false;
    random_state = random_state * 1664525u + 1013904223u;
    emu_stream *s = can[(random_state >> 8) % can.size()];
    work w = std::move(s->queue.front());
    s->queue.pop_front();
    if (w.run && sticky == cudaSuccess)
        w.run();
    s->clock += w.run ? w.time : 0;
    return true;
}

void add(emu_stream *s, std::function<void()> f, int time = 1) {
    work w;
    w.run = std::move(f);
    w.time = time;
    if (s == capturing)
        captured->nodes.push_back(std::move(w));
    else
        s->queue.push_back(std::move(w));
}

/* MIMIC_EMU_BREAK=N: the N-th kernel of the process breaks the device. */
bool planted() {
    static const char *given = getenv("MIMIC_EMU_BREAK");
    static uint64_t left = given ? strtoull(given, NULL, 10) : 0;
    return left > 0 && --left == 0;
}

/* The block that holds n bytes from p, or NULL. */
const block *holder(const void *p, size_t n) {
    auto it = blocks.upper_bound((char *)p);
    if (it == blocks.begin())
        return nullptr;
    --it;
    return (const char *)p + n <= it->first + it->second.bytes ? &it->second : nullptr;
}

/* Bytes of the device: 4 GiB, or MIMIC_EMU_MEMORY. */
size_t memory() {
    static const char *given = getenv("MIMIC_EMU_MEMORY");
    return given ? strtoull(given, NULL, 10) : (size_t)4 << 30;
}

size_t memory_left() {
    size_t left = memory();
    for (const auto &b : blocks)
        left -= b.second.host ? 0 : std::min(left, b.second.bytes);
    return left;
}

bool on_device(const void *p, size_t n) {
    const block *b = holder(p, n);
    return b && !b->host;
}

/* The host has waited. */
cudaError_t waited() {
    emu_waits++;
    emu_idle += std::all_of(streams.begin(), streams.end(),
                            [](const emu_stream *s) { return s->queue.empty(); });
    return sticky;
}

cudaError_t allocate(void **p, size_t bytes, bool host) {
    if (forbidden("memory is allocated"))
        return last;
    if (sticky != cudaSuccess)
        return sticky;
    emu_allocations++;
    char *raw = NULL;
    if (host || bytes <= memory_left())
        raw = (char *)aligned_alloc(256, (bytes + 2 * GUARD + 255) / 256 * 256);
    if (!raw)
        return failed(cudaErrorMemoryAllocation, "out of memory");
    memset(raw, GUARD_BYTE, GUARD);
    memset(raw + GUARD, 0xff, bytes);
    memset(raw + GUARD + bytes, GUARD_BYTE, GUARD);
    blocks[raw + GUARD] = {bytes, host};
    *p = raw + GUARD;
    return cudaSuccess;
}

cudaError_t release(void *p, bool host) {
    if (!p)
        return cudaSuccess;
    if (forbidden("memory is freed"))
        return last;
    auto it = blocks.find((char *)p);
    if (it == blocks.end() || it->second.host != host)
        return failed(cudaErrorInvalidValue, "free of what was not allocated");
    while (step())
        ;
    char *raw = it->first - GUARD;
    size_t bytes = it->second.bytes;
    blocks.erase(it);
    bool whole = true;
    for (size_t i = 0; i < GUARD; i++)
        whole &= (unsigned char)raw[i] == GUARD_BYTE &&
                 (unsigned char)raw[GUARD + bytes + i] == GUARD_BYTE;
    free(raw);
    if (!whole) {
        char why[128];
        snprintf(why, sizeof why, "a kernel wrote beyond a block of %zu bytes", bytes);
        fprintf(stderr, "emulator: %s\n", why);
        return broken(why);
    }
    return cudaSuccess;
}

cudaError_t check_copy(const void *dst, const void *src, size_t n, cudaMemcpyKind k) {
    bool to = k == cudaMemcpyHostToDevice || k == cudaMemcpyDeviceToDevice;
    bool from = k == cudaMemcpyDeviceToHost || k == cudaMemcpyDeviceToDevice;
    if (n > 0 && (on_device(dst, n) != to || on_device(src, n) != from))
        return failed(cudaErrorInvalidValue, "copy: a side is not where the call says");
    return cudaSuccess;
}

/* Pageable host memory is read at once; what goes to it is there when the call returns. */
cudaError_t copy(emu_stream *s, const void *dst, const void *src, size_t n, cudaMemcpyKind k,
                 std::function<void(const char *)> move) {
    if (s == capturing && (!holder(src, n) || !holder(dst, n))) {
        forbidden("pageable memory is copied");
        return last;
    }
    if (k == cudaMemcpyHostToDevice && !holder(src, n)) {
        emu_pageable++;
        std::vector<char> bytes((const char *)src, (const char *)src + n);
        add(s, [=] { move(bytes.data()); });
        return cudaSuccess;
    }
    add(s, [=] { move((const char *)src); });
    return k == cudaMemcpyDeviceToHost && !holder(dst, n) ? cudaStreamSynchronize(s) : cudaSuccess;
}

} // namespace

void emu::enqueue(cudaStream_t s, kernel k) {
    uint64_t n = (uint64_t)k.block.x * k.block.y * k.block.z;
    bool more = shared_allowed.count(k.function) > 0;
    size_t allowed = more ? shared_allowed[k.function] : 48 * 1024;
    k.most = more ? 227 * 1024 : 48 * 1024;
    static char why[192];
    if (!known(s)) {
        failed(cudaErrorInvalidResourceHandle, "launch on a stream that is none");
    } else if (n == 0 || n > 1024 || k.grid.x == 0 || k.grid.y == 0 || k.grid.z == 0 ||
               k.block.z > 64 || k.grid.x > 0x7fffffffu || k.grid.y > emu_grid_limit ||
               k.grid.z > emu_grid_limit) {
        snprintf(why, sizeof why, "kernel '%s': grid [%u,%u,%u] of blocks [%u,%u,%u]", k.name,
                 k.grid.x, k.grid.y, k.grid.z, k.block.x, k.block.y, k.block.z);
        failed(cudaErrorInvalidConfiguration, why);
    } else if (k.shared > allowed) {
        snprintf(why, sizeof why, "kernel '%s': %zu bytes of shared memory, %zu allowed", k.name,
                 k.shared, allowed);
        failed(cudaErrorInvalidConfiguration, why);
    } else {
        add(s, [=] {
            const char *what = "";
            if (!run(k, &what))
                broken(what);
            else if (planted())
                broken("a failure planted by MIMIC_EMU_BREAK");
        });
    }
}

void emu::taken(cudaStream_t s, void *p, size_t wanted, size_t bytes) {
    uses[p] = {wanted, s == capturing ? captures : 0};
    add(s, [=] {
        memset(p, 0xff, wanted);
        memset((char *)p + wanted, GUARD_BYTE, bytes - wanted);
    });
}

void emu::given(cudaStream_t s, void *p, size_t bytes) {
    auto it = uses.find(p);
    if (it == uses.end())
        return;
    size_t wanted = it->second.wanted;
    bool other = it->second.capture != (s == capturing ? captures : 0);
    uses.erase(it);
    if (other) /* used in a graph alone, or not in this one: the bytes may be of any use */
        return;
    add(s, [=] {
        for (size_t i = wanted; i < bytes; i++)
            if (((unsigned char *)p)[i] != GUARD_BYTE) {
                static char why[128];
                snprintf(why, sizeof why, "a kernel wrote behind a tensor of %zu bytes", wanted);
                fprintf(stderr, "emulator: %s\n", why);
                broken(why);
                return;
            }
    });
}

bool emu::add_work(cudaStream_t s, std::function<void()> f, int time) {
    if (known(s))
        add(s, std::move(f), time);
    return known(s);
}

bool emu::on_device_memory(const void *p, size_t n) {
    return on_device(p, n);
}

cudaError_t emu_func_attribute(const void *kernel, cudaFuncAttribute a, int value) {
    if (a != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 || value > 227 * 1024)
        return failed(cudaErrorInvalidValue, "unknown attribute of a function, or its value");
    shared_allowed[kernel] = (size_t)value;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *n) {
    *n = 1;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int) {
    *p = cudaDeviceProp();
    snprintf(p->name, sizeof p->name, "emulated device");
    p->totalGlobalMem = memory();
    p->major = 9;
    p->multiProcessorCount = 4;
    p->sharedMemPerBlockOptin = 227 * 1024;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int) {
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *v) {
    *v = 13000;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *v) {
    *v = 13000;
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free, size_t *total) {
    *total = memory();
    *free = memory_left();
    return cudaSuccess;
}

cudaError_t cudaPeekAtLastError() {
    return sticky != cudaSuccess ? sticky : last;
}

cudaError_t cudaGetLastError() {
    cudaError_t e = cudaPeekAtLastError();
    last = cudaSuccess;
    return e;
}

const char *cudaGetErrorString(cudaError_t e) {
    return e == cudaSuccess ? "no error" : text;
}

cudaError_t cudaMalloc(void **p, size_t bytes) {
    return allocate(p, bytes, false);
}

cudaError_t cudaFree(void *p) {
    return release(p, false);
}

cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned) {
    return allocate(p, bytes, true);
}

cudaError_t cudaFreeHost(void *p) {
    return release(p, true);
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t n, cudaMemcpyKind k,
                            cudaStream_t s) {
    if (!known(s))
        return failed(cudaErrorInvalidResourceHandle, "copy on a stream that is none");
    if (cudaError_t e = check_copy(dst, src, n, k))
        return e;
    return copy(s, dst, src, n, k, [=](const char *from) { memmove(dst, from, n); });
}

cudaError_t cudaMemcpy2DAsync(void *dst, size_t dpitch, const void *src, size_t spitch,
                              size_t width, size_t height, cudaMemcpyKind k, cudaStream_t s) {
    if (!known(s))
        return failed(cudaErrorInvalidResourceHandle, "copy on a stream that is none");
    if (width > dpitch || width > spitch)
        return failed(cudaErrorInvalidValue, "copy: rows wider than their pitch");
    if (dpitch > emu_pitch_limit || spitch > emu_pitch_limit)
        return failed(cudaErrorInvalidValue, "copy: a pitch beyond what the device can");
    if (height == 0 || width == 0)
        return cudaSuccess;
    size_t to = dpitch * (height - 1) + width, from = spitch * (height - 1) + width;
    cudaError_t e = check_copy(dst, src, std::min(to, from), k);
    if (!e)
        e = check_copy((char *)dst + to - width, (const char *)src + from - width, width, k);
    if (e)
        return e;
    return copy(s, dst, src, from, k, [=](const char *p) {
        for (size_t i = 0; i < height; i++)
            memmove((char *)dst + i * dpitch, p + i * spitch, width);
    });
}

cudaError_t cudaMemsetAsync(void *p, int byte, size_t n, cudaStream_t s) {
    if (!known(s) || (n > 0 && !on_device(p, n)))
        return failed(cudaErrorInvalidValue, "memset of what is not on the device");
    add(s, [=] { memset(p, byte, n); });
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned) {
    *s = new emu_stream;
    streams.push_back(*s);
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t s) {
    if (!known(s))
        return failed(cudaErrorInvalidResourceHandle, "destroying a stream that is none");
    if (forbidden("a stream is destroyed"))
        return last;
    cudaStreamSynchronize(s);
    streams.erase(std::find(streams.begin(), streams.end(), s));
    delete s;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t s) {
    if (!known(s))
        return failed(cudaErrorInvalidResourceHandle, "waiting for a stream that is none");
    if (forbidden("a stream is waited for"))
        return last;
    while (!s->queue.empty())
        if (!step())
            return broken("a stream waits for an event for ever");
    return waited();
}

cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
    if (!known(s) || !e || !e->alive)
        return failed(cudaErrorInvalidResourceHandle, "waiting for an event that is none");
    if (s == capturing) { /* all events here are of work outside */
        forbidden("an event from outside is waited for");
        return last = cudaErrorStreamCaptureIsolation;
    }
    work w;
    w.wait = e;
    w.ticket = e->recorded;
    s->queue.push_back(std::move(w));
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned) {
    *e = new emu_event;
    events++;
    return cudaSuccess;
}

/* Kept for ever: a queue may still name it. */
cudaError_t cudaEventDestroy(cudaEvent_t e) {
    if (!e || !e->alive)
        return failed(cudaErrorInvalidResourceHandle, "destroying an event that is none");
    e->alive = false;
    events--;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
    if (!known(s) || !e || !e->alive)
        return failed(cudaErrorInvalidResourceHandle, "recording an event that is none");
    if (s == capturing && forbidden("an event is recorded"))
        return last;
    uint64_t ticket = ++tickets;
    e->recorded = ticket;
    add(
        s,
        [=] {
            e->done = ticket;
            e->time = s->clock;
        },
        0);
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t e) {
    if (!e || !e->alive)
        return failed(cudaErrorInvalidResourceHandle, "waiting for an event that is none");
    if (forbidden("an event is waited for"))
        return last;
    while (e->done < e->recorded)
        if (!step())
            return broken("an event is waited for for ever");
    return waited();
}

cudaError_t cudaEventQuery(cudaEvent_t e) {
    if (!e || !e->alive)
        return failed(cudaErrorInvalidResourceHandle, "asking for an event that is none");
    if (forbidden("an event is asked for"))
        return last;
    step();
    return e->done < e->recorded ? cudaErrorNotReady : sticky;
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t a, cudaEvent_t b) {
    if (!a->recorded || !b->recorded || a->done < a->recorded || b->done < b->recorded)
        return failed(cudaErrorNotReady, "time between events that are not done");
    *ms = 0.01f * (float)(b->time - a->time);
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode) {
    if (!known(s) || capturing)
        return failed(cudaErrorInvalidValue, "capture of what is none, or is captured already");
    capturing = s;
    captured = new emu_graph;
    captures++;
    graphs++;
    invalid = false;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g) {
    *g = nullptr;
    if (!capturing || s != capturing)
        return failed(cudaErrorInvalidValue, "end of a capture that never began");
    capturing = nullptr;
    if (!invalid) {
        *g = captured;
        return cudaSuccess;
    }
    cudaGraphDestroy(captured);
    return failed(cudaErrorStreamCaptureInvalidated, "the capture met what it cannot hold");
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *e, cudaGraph_t g, unsigned long long) {
    if (!g)
        return failed(cudaErrorInvalidValue, "instance of a graph that is none");
    *e = new emu_graph_exec{g->nodes};
    graphs++;
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t g) {
    graphs -= g != nullptr;
    delete g;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t e) {
    if (forbidden("a graph is destroyed"))
        return last;
    graphs -= e != nullptr;
    delete e;
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t e, cudaStream_t s) {
    if (!e || !known(s))
        return failed(cudaErrorInvalidValue, "launch of a graph that is none");
    if (forbidden("a graph is launched"))
        return last;
    for (const work &w : e->nodes)
        s->queue.push_back(w);
    return sticky;
}
