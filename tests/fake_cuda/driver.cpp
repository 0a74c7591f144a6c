// A CUDA runtime and driver that keep books and compute nothing. What it is for: __init__.py; who reads it: driver.py.
//
// Device memory is host memory, zero at first. Copies and fills are done at once, kernels are noted and not run. What
// is put on a stream that is being captured is noted as a part of the graph, and not done at all.

#include <cuda.h>
#include <cuda_runtime.h>
#include <elf.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))

static const size_t MEMORY = 16ull << 30;  // of each device; it is the host's, as far as it is written to
static const int DEVICES = 2;

static std::recursive_mutex lock;
#define LOCKED std::lock_guard<std::recursive_mutex> guard(lock)

// ----------------------------------------------------------------------------------------------------------- the books

enum Kind { KERNEL, PRODUCT, COPY, FILL, GRAPH, WAIT, ALLOCATION, EVENT };  // driver.py has the same order

struct Record {
    char name[128];
    long long kind, captured, stream;
    long long numbers[8];  // a kernel's grid, block, shared memory; of others see where they are noted
};

static std::vector<Record> records;
static bool noting = false, filling = true;

static void note(Kind kind, const char* name, bool captured, cudaStream_t stream,
                 std::initializer_list<long long> numbers = {}) {
    if (!noting) return;
    Record record = {};
    snprintf(record.name, sizeof record.name, "%s", name);
    record.kind = kind, record.captured = captured, record.stream = (long long)stream;
    std::copy(numbers.begin(), numbers.end(), record.numbers);
    records.push_back(record);
}

// ------------------------------------------------------------------------------------------------------------ captures

struct Capture {
    cudaStream_t origin;
    cudaStreamCaptureMode mode;
    bool blocking;  // the origin waits for the default stream, which must not be used then
    bool invalid = false, ended = false;
    long long nodes = 0;
};
using Captured = std::shared_ptr<Capture>;

static long long last_handle = 1000;
static std::map<cudaStream_t, unsigned> stream_flags;
static std::map<cudaStream_t, Captured> capturing;  // a capture's origin, and streams that waited for its events
static std::map<cudaEvent_t, Captured> recorded;    // events, once recorded: in which capture, or in none
static std::map<cudaGraph_t, long long> graphs;     // how many nodes each has
static std::map<cudaGraphExec_t, long long> executables;

template <class Handle>
static cudaError_t new_handle(Handle* handle) {
    LOCKED;
    *handle = (Handle)++last_handle;
    return cudaSuccess;
}

static Captured capture_of(cudaStream_t stream) {
    auto found = capturing.find(stream);
    return found == capturing.end() ? nullptr : found->second;
}

static Captured any_capture() { return capturing.empty() ? nullptr : capturing.begin()->second; }

static cudaError_t invalidate(const Captured& capture, cudaError_t error) {
    capture->invalid = true;
    return error;
}

// The default stream waits for streams that are not non-blocking: it cannot be used while one of them is captured.
static cudaError_t check_stream(cudaStream_t stream) {
    if (!stream)
        for (auto& [_, capture] : capturing)
            if (capture->blocking) return invalidate(capture, cudaErrorStreamCaptureImplicit);
    Captured capture = capture_of(stream);
    return capture && capture->invalid ? cudaErrorStreamCaptureInvalidated : cudaSuccess;
}

// Put work on a stream: a node of the graph if the stream is captured. ``done`` is what else there is to do.
template <class Work>
static cudaError_t enqueue(Kind kind, const char* name, cudaStream_t stream, std::initializer_list<long long> numbers,
                           Work done) {
    LOCKED;
    if (cudaError_t error = check_stream(stream)) return error;
    Captured capture = capture_of(stream);
    note(kind, name, capture != nullptr, stream, numbers);
    if (capture)
        capture->nodes++;
    else
        done();
    return cudaSuccess;
}

// The host waits: noted, and refused if it would wait for work that is being captured, which does not run.
static cudaError_t wait_for(const char* name, cudaStream_t stream, const Captured& capture) {
    note(WAIT, name, capture != nullptr, stream);
    return capture ? invalidate(capture, cudaErrorStreamCaptureUnsupported) : cudaSuccess;
}

// Memory is given and taken back at once, captured or not; only the relaxed mode allows it during a capture.
static cudaError_t note_allocation(const char* name, long long bytes) {
    Captured capture = any_capture();
    note(ALLOCATION, name, capture != nullptr, nullptr, {bytes});
    bool allowed = !capture || capture->mode == cudaStreamCaptureModeRelaxed;
    return allowed ? cudaSuccess : invalidate(capture, cudaErrorStreamCaptureUnsupported);
}

// ----------------------------------------------------------------------------------- what driver.py and cublas.cpp use

static std::map<char*, size_t> allocations;  // device memory: where each begins, and its bytes
static size_t bytes_now = 0, bytes_peak = 0;

API void fake_clear() {
    LOCKED;
    records.clear();
    bytes_peak = bytes_now;
}

API void fake_note(int on) { noting = on; }
API void fake_fill(int on) { filling = on; }
API size_t fake_bytes(int peak) { return peak ? bytes_peak : bytes_now; }

API const Record* fake_records(long long* count) {
    LOCKED;
    *count = records.size();
    return records.data();
}

API cudaError_t fake_product(const char* name, cudaStream_t stream, const long long numbers[8]) {
    auto n = numbers;
    return enqueue(PRODUCT, name, stream, {n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7]}, [] {});
}

// ------------------------------------------------------------------------------------------------- runtime: the device

static int current_device = 0;

API const char* cudaGetErrorName(cudaError_t error) {
    switch (error) {
        case cudaSuccess: return "cudaSuccess";
        case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
        case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
        case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
        case cudaErrorIllegalState: return "cudaErrorIllegalState";
        case cudaErrorStreamCaptureUnsupported: return "cudaErrorStreamCaptureUnsupported";
        case cudaErrorStreamCaptureInvalidated: return "cudaErrorStreamCaptureInvalidated";
        case cudaErrorStreamCaptureMerge: return "cudaErrorStreamCaptureMerge";
        case cudaErrorStreamCaptureUnmatched: return "cudaErrorStreamCaptureUnmatched";
        case cudaErrorStreamCaptureIsolation: return "cudaErrorStreamCaptureIsolation";
        case cudaErrorStreamCaptureImplicit: return "cudaErrorStreamCaptureImplicit";
        case cudaErrorCapturedEvent: return "cudaErrorCapturedEvent";
        default: return "cudaErrorUnknown";
    }
}

API const char* cudaGetErrorString(cudaError_t) { return "refused by the fake driver, as CUDA refuses it"; }
API cudaError_t cudaGetLastError() { return cudaSuccess; }

API cudaError_t cudaDriverGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }
API cudaError_t cudaRuntimeGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }
API cudaError_t cudaGetDeviceCount(int* count) { return *count = DEVICES, cudaSuccess; }
API cudaError_t cudaGetDevice(int* device) { return *device = current_device, cudaSuccess; }

API cudaError_t cudaSetDevice(int device) {
    if (device < 0 || device >= DEVICES) return cudaErrorInvalidDevice;
    current_device = device;
    return cudaSuccess;
}

API cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    static const std::map<int, int> of_an_h100 = {
        {cudaDevAttrComputeCapabilityMajor, 9},
        {cudaDevAttrComputeCapabilityMinor, 0},
        {cudaDevAttrMultiProcessorCount, 132},
        {cudaDevAttrMaxThreadsPerBlock, 1024},
        {cudaDevAttrMaxThreadsPerMultiProcessor, 2048},
        {cudaDevAttrWarpSize, 32},
        {cudaDevAttrMaxSharedMemoryPerBlock, 48 << 10},
        {cudaDevAttrMaxSharedMemoryPerBlockOptin, 227 << 10},
    };
    auto found = of_an_h100.find(attribute);
    *value = found == of_an_h100.end() ? 1 : found->second;
    return cudaSuccess;
}

API cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
    *properties = {};
    strcpy(properties->name, "fake driver, which computes nothing");
    properties->major = 9;
    properties->multiProcessorCount = 132;
    properties->totalGlobalMem = MEMORY;
    properties->l2CacheSize = 50 << 20;
    properties->warpSize = 32;
    properties->maxThreadsPerBlock = 1024;
    properties->sharedMemPerBlock = 48 << 10;
    return cudaSuccess;
}

API cudaError_t cudaDeviceSynchronize() {
    LOCKED;
    return wait_for("cudaDeviceSynchronize", nullptr, any_capture());
}

// ----------------------------------------------------------------------------------------------------- runtime: memory

API cudaError_t cudaMalloc(void** pointer, size_t bytes) {
    LOCKED;
    if (cudaError_t error = note_allocation("cudaMalloc", bytes)) return error;
    if (bytes > MEMORY - bytes_now) return cudaErrorMemoryAllocation;
    *pointer = nullptr;
    if (!bytes) return cudaSuccess;
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return cudaErrorMemoryAllocation;
    *pointer = memory;
    allocations[(char*)memory] = bytes;
    bytes_now += bytes;
    bytes_peak = std::max(bytes_peak, bytes_now);
    return cudaSuccess;
}

API cudaError_t cudaFree(void* pointer) {
    LOCKED;
    if (!pointer) return cudaSuccess;
    auto found = allocations.find((char*)pointer);
    if (found == allocations.end()) return cudaErrorInvalidValue;
    if (cudaError_t error = note_allocation("cudaFree", found->second)) return error;
    munmap(pointer, found->second);
    bytes_now -= found->second;
    allocations.erase(found);
    return cudaSuccess;
}

API cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned) {
    LOCKED;
    if (cudaError_t error = note_allocation("cudaHostAlloc", bytes)) return error;
    *pointer = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    return *pointer ? cudaSuccess : cudaErrorMemoryAllocation;
}

API cudaError_t cudaFreeHost(void* pointer) {
    free(pointer);
    return cudaSuccess;
}

API cudaError_t cudaMemGetInfo(size_t* unused, size_t* total) {
    *unused = MEMORY - bytes_now;
    *total = MEMORY;
    return cudaSuccess;
}

static bool on_device(const void* pointer) {
    auto after = allocations.upper_bound((char*)pointer);
    return after != allocations.begin() && (char*)pointer < std::prev(after)->first + std::prev(after)->second;
}

API cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
    LOCKED;
    *attributes = {};
    attributes->type = on_device(pointer) ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered;
    attributes->devicePointer = on_device(pointer) ? (void*)pointer : nullptr;
    return cudaSuccess;
}

// Copies note their bytes and their direction, a cudaMemcpyKind: that of their pointers, as callers may leave it open.
static cudaError_t copy(const char* name, void* to, const void* from, size_t bytes, cudaStream_t stream) {
    LOCKED;
    long long direction = 2 * on_device(from) + on_device(to);
    return enqueue(COPY, name, stream, {(long long)bytes, direction}, [=] { memcpy(to, from, bytes); });
}

API cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
    return copy("cudaMemcpyAsync", to, from, bytes, stream);
}

API cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
    LOCKED;
    if (cudaError_t error = wait_for("cudaMemcpy", nullptr, any_capture())) return error;
    return copy("cudaMemcpy", to, from, bytes, nullptr);
}

static void fill(void* to, int value, size_t bytes) {
    if (filling) memset(to, value, bytes);
}

API cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
    return enqueue(FILL, "cudaMemsetAsync", stream, {(long long)bytes}, [=] { fill(to, value, bytes); });
}

API cudaError_t cudaMemset(void* to, int value, size_t bytes) {
    return enqueue(FILL, "cudaMemset", nullptr, {(long long)bytes}, [=] { fill(to, value, bytes); });
}

// ----------------------------------------------------------------------------------------- runtime: streams and events

API cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
    LOCKED;
    new_handle(stream);
    stream_flags[*stream] = flags;
    return cudaSuccess;
}

API cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
    return cudaStreamCreateWithPriority(stream, flags, 0);
}

API cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithPriority(stream, 0, 0); }
API cudaError_t cudaStreamGetPriority(cudaStream_t, int* priority) { return *priority = 0, cudaSuccess; }

API cudaError_t cudaStreamGetFlags(cudaStream_t stream, unsigned* flags) {
    LOCKED;
    *flags = stream_flags[stream];
    return cudaSuccess;
}

API cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    LOCKED;
    stream_flags.erase(stream);
    capturing.erase(stream);
    return cudaSuccess;
}

API cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    LOCKED;
    if (cudaError_t error = check_stream(stream)) return error;
    return wait_for("cudaStreamSynchronize", stream, capture_of(stream));
}

API cudaError_t cudaStreamQuery(cudaStream_t stream) {
    LOCKED;
    Captured capture = capture_of(stream);
    return capture ? invalidate(capture, cudaErrorStreamCaptureUnsupported) : cudaSuccess;
}

API cudaError_t cudaEventCreate(cudaEvent_t* event) { return new_handle(event); }
API cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) { return new_handle(event); }

API cudaError_t cudaEventDestroy(cudaEvent_t event) {
    LOCKED;
    recorded.erase(event);
    return cudaSuccess;
}

API cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    LOCKED;
    if (cudaError_t error = check_stream(stream)) return error;
    recorded[event] = capture_of(stream);
    note(EVENT, "cudaEventRecord", capture_of(stream) != nullptr, stream);
    return cudaSuccess;
}

// A stream that waits for an event of a capture joins the capture; a captured stream may wait for no other events.
API cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    LOCKED;
    if (cudaError_t error = check_stream(stream)) return error;
    Captured own = capture_of(stream);
    note(EVENT, "cudaStreamWaitEvent", own != nullptr, stream);
    auto found = recorded.find(event);
    if (found == recorded.end()) return cudaSuccess;  // never recorded: nothing to wait for
    Captured theirs = found->second;
    if (theirs && theirs->ended) return cudaErrorCapturedEvent;
    if (own && !theirs) return invalidate(own, cudaErrorStreamCaptureIsolation);
    if (own && own != theirs) return invalidate(own, cudaErrorStreamCaptureMerge);
    if (theirs) capturing[stream] = theirs;
    return cudaSuccess;
}

static bool was_captured(cudaEvent_t event) {
    auto found = recorded.find(event);
    return found != recorded.end() && found->second;
}

API cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    LOCKED;
    note(WAIT, "cudaEventSynchronize", was_captured(event), nullptr);
    return was_captured(event) ? invalidate(recorded[event], cudaErrorCapturedEvent) : cudaSuccess;
}

API cudaError_t cudaEventQuery(cudaEvent_t event) {
    LOCKED;
    return was_captured(event) ? invalidate(recorded[event], cudaErrorCapturedEvent) : cudaSuccess;
}

API cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
    return *milliseconds = 1, cudaSuccess;
}

// ----------------------------------------------------------------------------------------------------- runtime: graphs

API cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
    LOCKED;
    if (!stream) return cudaErrorStreamCaptureUnsupported;
    if (capture_of(stream)) return cudaErrorIllegalState;
    Capture capture = {stream, mode, !(stream_flags[stream] & cudaStreamNonBlocking)};
    capturing[stream] = std::make_shared<Capture>(capture);
    return cudaSuccess;
}

API cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
    LOCKED;
    *graph = nullptr;
    Captured capture = capture_of(stream);
    if (!capture) return cudaErrorIllegalState;
    if (capture->origin != stream) return invalidate(capture, cudaErrorStreamCaptureUnmatched);
    for (auto at = capturing.begin(); at != capturing.end();) at = at->second == capture ? capturing.erase(at) : ++at;
    capture->ended = true;
    if (capture->invalid) return cudaErrorStreamCaptureInvalidated;
    new_handle(graph);
    graphs[*graph] = capture->nodes;
    return cudaSuccess;
}

API cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
    LOCKED;
    if (!stream)
        for (auto& [_, capture] : capturing)
            if (capture->blocking) return cudaErrorStreamCaptureImplicit;
    Captured capture = capture_of(stream);
    *status = !capture           ? cudaStreamCaptureStatusNone
              : capture->invalid ? cudaStreamCaptureStatusInvalidated
                                 : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}

API cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
    LOCKED;
    if (!graphs.count(graph)) return cudaErrorInvalidValue;
    new_handle(executable);
    executables[*executable] = graphs[graph];
    return cudaSuccess;
}

// Notes how many nodes the graph has.
API cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
    LOCKED;
    if (!executables.count(executable)) return cudaErrorInvalidValue;
    return enqueue(GRAPH, "cudaGraphLaunch", stream, {executables[executable]}, [] {});
}

API cudaError_t cudaGraphUpload(cudaGraphExec_t executable, cudaStream_t) {
    LOCKED;
    return executables.count(executable) ? cudaSuccess : cudaErrorInvalidValue;
}

API cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    LOCKED;
    return graphs.erase(graph) ? cudaSuccess : cudaErrorInvalidValue;
}

API cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
    LOCKED;
    return executables.erase(executable) ? cudaSuccess : cudaErrorInvalidValue;
}

// -------------------------------------------------------------------------------------------- driver: the few it needs

API CUresult cuGetErrorName(CUresult error, const char** name) {
    *name = error == CUDA_ERROR_INVALID_IMAGE ? "CUDA_ERROR_INVALID_IMAGE"
            : error == CUDA_ERROR_NOT_FOUND   ? "CUDA_ERROR_NOT_FOUND"
                                              : cudaGetErrorName((cudaError_t)error);
    return CUDA_SUCCESS;
}

API CUresult cuGetErrorString(CUresult error, const char** text) {
    return *text = cudaGetErrorString((cudaError_t)error), CUDA_SUCCESS;
}

API CUresult cuCtxGetCurrent(CUcontext* context) { return *context = (CUcontext)1, CUDA_SUCCESS; }
API CUresult cuCtxSetCurrent(CUcontext) { return CUDA_SUCCESS; }
API CUresult cuCtxGetDevice(CUdevice* device) { return *device = current_device, CUDA_SUCCESS; }
API CUresult cuStreamGetCtx(CUstream, CUcontext* context) { return *context = (CUcontext)1, CUDA_SUCCESS; }
API CUresult cuDevicePrimaryCtxRelease_v2(CUdevice) { return CUDA_SUCCESS; }

struct Module {
    std::set<std::string> kernels;
};

struct Function {
    std::string name;
    int shared_memory = 48 << 10;  // how much of it a launch may ask for
};

// A compiled module is an ELF file, in which the kernel k is the section .text.k.
API CUresult cuModuleLoadData(CUmodule* module, const void* image) {
    const char* file = (const char*)image;
    if (memcmp(file, ELFMAG, SELFMAG)) return CUDA_ERROR_INVALID_IMAGE;
    auto header = (const Elf64_Ehdr*)file;
    auto sections = (const Elf64_Shdr*)(file + header->e_shoff);
    const char* names = file + sections[header->e_shstrndx].sh_offset;
    Module* result = new Module;
    for (int i = 0; i < header->e_shnum; i++) {
        std::string name = names + sections[i].sh_name;
        if (name.rfind(".text.", 0) == 0) result->kernels.insert(name.substr(6));
    }
    *module = (CUmodule)result;
    return CUDA_SUCCESS;
}

API CUresult cuModuleUnload(CUmodule module) {
    delete (Module*)module;  // its functions are kept: CuPy may hold them longer
    return CUDA_SUCCESS;
}

API CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
    if (!((Module*)module)->kernels.count(name)) return CUDA_ERROR_NOT_FOUND;
    *function = (CUfunction) new Function{name};
    return CUDA_SUCCESS;
}

API CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
    if (attribute == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) {
        if (value > 227 << 10) return CUDA_ERROR_INVALID_VALUE;
        ((Function*)function)->shared_memory = value;
    }
    return CUDA_SUCCESS;
}

API CUresult cuFuncGetAttribute(int* value, CUfunction_attribute attribute, CUfunction function) {
    bool shared = attribute == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    *value = shared ? ((Function*)function)->shared_memory : 1024;
    return CUDA_SUCCESS;
}

API CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, CUfunction, int, size_t) {
    return *blocks = 8, CUDA_SUCCESS;
}

API CUresult cuOccupancyMaxPotentialBlockSize(int* grid, int* block, CUfunction, CUoccupancyB2DSize, size_t, int) {
    return *grid = 2 * 132, *block = 512, CUDA_SUCCESS;
}

API CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                            unsigned block_y, unsigned block_z, unsigned shared_memory, CUstream stream, void**,
                            void**) {
    auto kernel = (const Function*)function;
    unsigned long long threads = 1ull * block_x * block_y * block_z, blocks = 1ull * grid_x * grid_y * grid_z;
    bool fits = threads && threads <= 1024 && block_z <= 64 && blocks && grid_x < 1u << 31 && grid_y < 1u << 16 &&
                grid_z < 1u << 16 && (int)shared_memory <= kernel->shared_memory;
    if (!fits) return CUDA_ERROR_INVALID_VALUE;
    return (CUresult)enqueue(KERNEL, kernel->name.c_str(), stream,  // the runtime's errors have the driver's numbers
                             {grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_memory}, [] {});
}
