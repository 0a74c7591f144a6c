// CUDA on one CPU thread: a block after the other, its threads one by one, each until it waits for others or ends.
//
// A thread that waits keeps its stack (a "fiber") and goes on when all that it waits for have come to the same place; if
// they never do, the launch fails. A kernel that waits for nothing runs as a loop over its threads on a single fiber.
//
// Stricter than a GPU: shared memory holds NaN (all bits set) at the start of each block, threads may neither leave a
// block before a barrier nor come to different ones, and cp.async copies as late as it may. Not modelled: races between
// threads, speed, registers.
#include <setjmp.h>
#include <ucontext.h>

#include <cmath>  // few and small headers, as each source of kernels compiles them anew
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __shared__ static  // raw.py adds fresh_in_block(...) behind each declaration
#define DEVICE inline
#define SHARED float* shared = (float*)emulation::dynamic_shared
#define EXPORT extern "C" __attribute__((visibility("default")))

using std::abs, std::ceil, std::exp, std::fabs, std::floor, std::fma, std::fmax, std::fmin, std::isfinite, std::isinf,
    std::isnan, std::log, std::log1p, std::pow, std::sqrt, std::tanh;
template <class T> inline T min(T a, T b) { return b < a ? b : a; }
template <class T> inline T max(T a, T b) { return a < b ? b : a; }
inline float min(float a, float b) { return std::fmin(a, b); }  // CUDA's pass over what is not a number
inline float max(float a, float b) { return std::fmax(a, b); }
inline double min(double a, double b) { return std::fmin(a, b); }
inline double max(double a, double b) { return std::fmax(a, b); }
inline float rsqrt(float x) { return 1 / std::sqrt(x); }
inline double rsqrt(double x) { return 1 / std::sqrt(x); }
inline float rsqrtf(float x) { return rsqrt(x); }

// --------------------------------------------------------------------------------------------------------- numbers

#define VECTOR(T, name)                                                     \
    struct alignas(2 * sizeof(T)) name##2 { T x, y; };                      \
    struct alignas(4 * sizeof(T)) name##4 { T x, y, z, w; };                \
    inline name##2 make_##name##2(T x, T y) { return {x, y}; }              \
    inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
VECTOR(float, float)
VECTOR(int, int)
VECTOR(unsigned, uint)
VECTOR(unsigned short, ushort)
VECTOR(unsigned char, uchar)
struct alignas(16) double2 { double x, y; };
inline double2 make_double2(double x, double y) { return {x, y}; }
struct dim3 { unsigned x = 1, y = 1, z = 1; };

template <class To, class From> inline To same_bits(From value) {
    static_assert(sizeof(To) == sizeof(From));
    To result;
    memcpy(&result, &value, sizeof(To));
    return result;
}
inline unsigned __float_as_uint(float x) { return same_bits<unsigned>(x); }
inline int __float_as_int(float x) { return same_bits<int>(x); }
inline float __uint_as_float(unsigned x) { return same_bits<float>(x); }
inline float __int_as_float(int x) { return same_bits<float>(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }
template <class T> inline T __ldg(const T* address) { return *address; }

template <class T> inline T atomicAdd(T* address, std::decay_t<T> value) {
    static_assert(!std::is_same_v<T, long long>, "CUDA's atomicAdd takes unsigned long long");
    const T before = *address;
    *address = before + value;
    return before;
}
inline void __threadfence() {}
inline void __threadfence_block() {}

// -------------------------------------------------------------------------------------------------- threads that wait

static dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

constexpr int MOST_THREADS = 1024, MOST_VARIABLES = 64, MOST_COPIES = 1024, STACK = 1 << 16;
constexpr int MOST_SHARED = 227 << 10, FENCE = 4096;  // bytes behind a block's shared memory that must stay as they are

struct Fiber {
    ucontext_t context;
    jmp_buf where;
    bool started;
    alignas(16) char stack[STACK];
};
struct Late { void* to; const void* from; int group; };  // a copy by cp.async on its way; from == nullptr: zeros
struct Thread {
    dim3 index;
    Fiber* fiber;
    bool done, waits, warp;  // warp: for lanes of its warp; else for the whole block
    unsigned mask;           // which lanes
    int line;                // of the barrier
    int groups, begin, end;  // of its copies: groups committed; the stretch that is on its way
    Late copies[MOST_COPIES];
};

static Thread threads[MOST_THREADS];
static Fiber* idle[MOST_THREADS];
static Fiber* running;
static jmp_buf scheduler;
static int idle_count, current, count, begun;  // threads: that runs now; of the block; that have started
static char problem[200];
static void (*body)();  // one thread's call of the kernel
static void** parameters;
alignas(16) static unsigned char dynamic_shared[MOST_SHARED + FENCE];
static void* filled[MOST_VARIABLES];  // static shared variables, in this block
static int filled_count;

__attribute__((noinline)) static void pause() {  // until the scheduler resumes this fiber
    Fiber* mine = running;
    if (_setjmp(mine->where) == 0) _longjmp(scheduler, 1);
}
__attribute__((noinline)) static void resume(Fiber* fiber) {  // until it waits or has nothing more to run
    running = fiber;
    if (_setjmp(scheduler) != 0) return;
    if (fiber->started) _longjmp(fiber->where, 1);
    fiber->started = true;
    setcontext(&fiber->context);
}
static void run_threads() {  // a fiber: runs threads that have not started, one after the other
    Fiber* mine = running;
    for (;;) {
        while (begun < count) {
            current = begun++;
            threads[current].fiber = mine;
            threadIdx = threads[current].index;
            body();
            threads[current].done = true;
        }
        idle[idle_count++] = mine;
        pause();
    }
}
template <class... T> inline void fail(const char* text, T... values) {
    snprintf(problem, sizeof problem, text, values...);
    pause();
}
inline void fresh(void* variable, size_t size) {
    for (int i = 0; i < filled_count; i++)
        if (filled[i] == variable) return;
    if (filled_count == MOST_VARIABLES) fail("more than %d shared variables", MOST_VARIABLES);
    filled[filled_count++] = variable;
    memset(variable, 0xff, size);
}
template <class T> inline void fresh_in_block(T& variable) { fresh((void*)&variable, sizeof(T)); }

__attribute__((noinline)) static void wait_for(bool warp, unsigned mask, int line) {
    Thread& thread = threads[current];
    thread.waits = true, thread.warp = warp, thread.mask = mask, thread.line = line;
    pause();
}
static bool release_warp(int first) {  // lanes that all wait for each other
    const int last = min(first + 32, count);
    for (int i = first; i < last; i++) {
        if (!threads[i].waits || !threads[i].warp) continue;
        const unsigned mask = threads[i].mask;
        bool all = mask >> (i - first) & 1;
        for (int j = first; j < last; j++)
            if (mask >> (j - first) & 1) all = all && threads[j].waits && threads[j].warp && threads[j].mask == mask;
        if (!all) continue;
        for (int j = first; j < last; j++)
            if (mask >> (j - first) & 1) threads[j].waits = false;
        return true;
    }
    return false;
}
static bool release_block() {
    for (int i = 0; i < count; i++)
        if (!threads[i].waits || threads[i].warp || threads[i].line != threads[0].line) return false;
    for (int i = 0; i < count; i++) threads[i].waits = false;
    return true;
}
static void deadlock() {
    int done = 0, at_barrier = 0, line = 0;
    for (int i = 0; i < count; i++) {
        done += threads[i].done;
        at_barrier += threads[i].waits && !threads[i].warp;
        if (threads[i].waits && !threads[i].warp) line = threads[i].line;
    }
    snprintf(problem, sizeof problem,
             "deadlock: of %d threads %d wait at __syncthreads (one at line %d), %d for their warp, %d have ended", count,
             at_barrier, line, count - done - at_barrier, done);
}

static Fiber* new_fiber() {
    Fiber* fiber = (Fiber*)aligned_alloc(alignof(Fiber), sizeof(Fiber));
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack;
    fiber->context.uc_stack.ss_size = STACK;
    makecontext(&fiber->context, run_threads, 0);
    fiber->started = false;
    return fiber;
}
static void run_block(int shared) {
    memset(dynamic_shared, 0xff, shared + FENCE);
    filled_count = begun = 0;
    for (int i = 0; i < count; i++) {
        Thread& thread = threads[i];
        thread.done = thread.waits = false;
        thread.groups = thread.begin = thread.end = 0;
    }
    while (!*problem) {
        while (begun < count && !*problem) resume(idle_count ? idle[--idle_count] : new_fiber());
        bool waiting = false, released = false;
        for (int i = 0; i < count; i++) waiting |= threads[i].waits;
        if (!waiting || *problem) break;
        for (int first = 0; first < count; first += 32)
            while (release_warp(first)) released = true;
        if (!released && !release_block()) deadlock();
        for (int i = 0; i < count && !*problem; i++) {
            if (threads[i].waits || threads[i].done) continue;
            current = i;
            threadIdx = threads[i].index;
            resume(threads[i].fiber);
        }
    }
    for (int i = shared; i < shared + FENCE && !*problem; i++)
        if (dynamic_shared[i] != 0xff)
            snprintf(problem, sizeof problem, "a thread wrote behind the block's dynamic shared memory");
}

static const char* run(void (*kernel)(), const unsigned* grid, const unsigned* block, int shared, void** values) {
    gridDim = {grid[0], grid[1], grid[2]}, blockDim = {block[0], block[1], block[2]};
    body = kernel, parameters = values, count = block[0] * block[1] * block[2];
    *problem = 0;
    for (unsigned i = 0; i < (unsigned)count; i++)
        threads[i].index = {i % block[0], i / block[0] % block[1], i / block[0] / block[1]};
    for (unsigned z = 0; z < grid[2]; z++)
        for (unsigned y = 0; y < grid[1]; y++)
            for (unsigned x = 0; x < grid[0]; x++) {
                blockIdx = {x, y, z};
                run_block(shared);
                if (!*problem) continue;
                idle_count = 0;  // leave all fibers alone: some are in the middle of the kernel
                return problem;
            }
    return nullptr;
}

}  // namespace emulation

#define __syncthreads() emulation::wait_for(false, 0, __LINE__)
inline void __syncwarp(unsigned mask = 0xffffffff) { emulation::wait_for(true, mask, 0); }

// ------------------------------------------------------------------------------------------- what warps do together

namespace emulation {

struct alignas(16) Slot { unsigned char bytes[16]; };
static Slot slots[MOST_THREADS];
static unsigned fragment_a[32][32][4], fragment_b[32][32][2];

// Each lane of mask gives a value, and takes that of lane `from`; its own if there is none.
template <class T> inline T exchange(unsigned mask, T value, int from, bool exists) {
    static_assert(sizeof(T) <= sizeof(Slot));
    const int mine = current;
    memcpy(slots[mine].bytes, &value, sizeof(T));
    __syncwarp(mask);
    if (exists) memcpy(&value, slots[mine / 32 * 32 + from].bytes, sizeof(T));
    __syncwarp(mask);
    memset(slots[mine].bytes, 0xff, sizeof(Slot));  // what a lane outside the mask would read
    return value;
}

}  // namespace emulation

template <class T> inline T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
    const int lane = emulation::current % 32;
    return emulation::exchange(mask, value, lane / width * width + from % width, true);
}
template <class T> inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    const int lane = emulation::current % 32;
    return emulation::exchange(mask, value, lane + delta, lane % width + (int)delta < width);
}
template <class T> inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    const int lane = emulation::current % 32;
    return emulation::exchange(mask, value, lane - delta, lane % width >= (int)delta);
}
template <class T> inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
    const int lane = emulation::current % 32;
    return emulation::exchange(mask, value, lane ^ bits, (lane ^ bits) / width <= lane / width);
}

// A product on the tensor cores, mma.sync m16n8k8 of TF32: d += a b. Lane 4 g + t holds, as the PTX ISA says,
// a: (g, t) (g+8, t) (g, t+4) (g+8, t+4), b: (t, g) (t+4, g), d: (g, 2t) (g, 2t+1) (g+8, 2t) (g+8, 2t+1).
// A sum is cut to float32, not rounded (M. Fasi et al., doi:10.7717/peerj-cs.330): long sums in d lose digits.
inline float cut(double x) {
    const float near = (float)x;
    return fabs((double)near) > fabs(x) ? std::nextafterf(near, 0.0f) : near;
}
inline unsigned tf32(float x) { return (same_bits<unsigned>(x) + 0x1000u) & 0xffffe000u; }  // to nearest, ties away
inline void mma(float* d, const unsigned* a, const unsigned* b) {
    using emulation::current, emulation::fragment_a, emulation::fragment_b;
    const int warp = current / 32, lane = current % 32, g = lane / 4, t = lane % 4;
    memcpy(fragment_a[warp][lane], a, 16);
    memcpy(fragment_b[warp][lane], b, 8);
    __syncwarp();
    for (int e = 0; e < 4; e++) {
        const int row = g + e / 2 * 8, column = 2 * t + e % 2;
        double sum = d[e];
        for (int k = 0; k < 8; k++)
            sum += (double)same_bits<float>(fragment_a[warp][row % 8 * 4 + k % 4][k / 4 * 2 + row / 8] & 0xffffe000u) *
                   same_bits<float>(fragment_b[warp][column * 4 + k % 4][k / 4] & 0xffffe000u);
        d[e] = cut(sum);
    }
    __syncwarp();
}

// cp.async of 16 bytes, zeros unless valid: it copies at the wait that names its group, and not before.
inline void copy16(void* shared, const void* global, bool valid) {
    emulation::Thread& thread = emulation::threads[emulation::current];
    if (((uintptr_t)shared | (uintptr_t)global) % 16)
        emulation::fail("cp.async of 16 bytes from or to an address that is not aligned");
    if (thread.end == emulation::MOST_COPIES) emulation::fail("more than %d copies of a thread on their way", thread.end);
    thread.copies[thread.end++] = {shared, valid ? global : nullptr, thread.groups};
}
inline void commit() { emulation::threads[emulation::current].groups++; }
template <int N> inline void wait() {  // until at most N groups are on their way
    emulation::Thread& thread = emulation::threads[emulation::current];
    for (; thread.begin < thread.end && thread.copies[thread.begin].group < thread.groups - N; thread.begin++) {
        const emulation::Late& copy = thread.copies[thread.begin];
        if (copy.from) memcpy(copy.to, copy.from, 16);
        else memset(copy.to, 0, 16);
    }
    thread.end -= thread.begin;
    memmove(thread.copies, thread.copies + thread.begin, thread.end * sizeof(emulation::Late));
    thread.begin = 0;
}

// The compiler's own checks (-fsanitize) call these: each block of data starts with the place in the source.
struct Place { const char* file; unsigned line, column; };
EXPORT void __ubsan_handle_type_mismatch_v1(Place* place, uintptr_t) {
    emulation::fail("line %u reads or writes at an address that is not aligned", place->line);
}
EXPORT void __ubsan_handle_out_of_bounds(Place* place, uintptr_t index) {
    emulation::fail("line %u goes beyond an array, to index %ld", place->line, (long)index);
}

// ------------------------------------------------------------------------- for raw.py: kernels called as by the driver

namespace emulation {

template <class T> struct Name;
#define NAMED(T) template <> struct Name<T> { static void write(char* to) { strcat(to, #T); } }
NAMED(void); NAMED(bool); NAMED(char); NAMED(signed char); NAMED(unsigned char); NAMED(short); NAMED(unsigned short);
NAMED(int); NAMED(unsigned int); NAMED(long); NAMED(unsigned long); NAMED(long long); NAMED(unsigned long long);
NAMED(float); NAMED(double); NAMED(float2); NAMED(float4); NAMED(double2); NAMED(int2); NAMED(int4); NAMED(uint2);
NAMED(uint4); NAMED(ushort2); NAMED(ushort4); NAMED(uchar2); NAMED(uchar4);
template <class T> struct Name<const T> : Name<T> {};
template <class T> struct Name<T*> { static void write(char* to) { Name<T>::write(to), strcat(to, "*"); } };

template <auto kernel> struct Launch;
template <class... P, void (*kernel)(P...)> struct Launch<kernel> {
    template <size_t... I> static void call(std::index_sequence<I...>) { kernel(*(P*)parameters[I]...); }
    static void thread() { call(std::index_sequence_for<P...>()); }
    static void types(char* to) { ((strcat(to, "\t"), Name<P>::write(to)), ...); }
};
constexpr int first_of(int bound, int = 0, int = 0) { return bound; }

}  // namespace emulation

// bounds: those of __launch_bounds__, in parentheses
#define EXPORT_KERNEL(name, bounds)                                                                         \
    EXPORT const char* run_##name(const unsigned* grid, const unsigned* block, int shared, void** values) { \
        return emulation::run(emulation::Launch<name>::thread, grid, block, shared, values);                \
    }                                                                                                       \
    EXPORT const char* types_##name() {                                                                     \
        static char text[4096];                                                                             \
        snprintf(text, sizeof text, "%d", emulation::first_of bounds);                                      \
        emulation::Launch<name>::types(text);                                                               \
        return text;                                                                                        \
    }
