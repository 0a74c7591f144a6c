// A cuBLAS that notes matrix products and computes none. build.py adds a function for each that CuPy uses and that is
// not written here: it is noted by its name.

#include <algorithm>
#include <cstring>

#define API extern "C" __attribute__((visibility("default")))

static const int SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, EXECUTION_FAILED = 13;  // cublasStatus_t
static const int FLOAT32 = 0, FLOAT64 = 1;                                                    // cudaDataType
static const int IN_FLOAT32 = 68, IN_FLOAT64 = 70;                                            // cublasComputeType_t

extern "C" int fake_product(const char* name, void* stream, const long long numbers[8]);  // in driver.cpp

struct Handle {
    void* stream = nullptr;
    int pointer_mode = 0, math_mode = 0;
};

API int cublasCreate_v2(Handle** handle) { return *handle = new Handle, SUCCESS; }
API int cublasDestroy_v2(Handle* handle) { return delete handle, SUCCESS; }
API int cublasGetVersion_v2(Handle*, int* version) { return *version = 130000, SUCCESS; }
API int cublasSetStream_v2(Handle* handle, void* stream) { return handle->stream = stream, SUCCESS; }
API int cublasGetStream_v2(Handle* handle, void** stream) { return *stream = handle->stream, SUCCESS; }
API int cublasSetPointerMode_v2(Handle* handle, int mode) { return handle->pointer_mode = mode, SUCCESS; }
API int cublasGetPointerMode_v2(Handle* handle, int* mode) { return *mode = handle->pointer_mode, SUCCESS; }
API int cublasSetMathMode(Handle* handle, int mode) { return handle->math_mode = mode, SUCCESS; }
API int cublasGetMathMode(Handle* handle, int* mode) { return *mode = handle->math_mode, SUCCESS; }

API int cublasSetWorkspace_v2(Handle*, void* workspace, size_t bytes) {
    bool aligned = (size_t)workspace % 256 == 0;
    return aligned && (workspace || !bytes) ? SUCCESS : INVALID_VALUE;
}

// Notes m, n, k, the types of A, B and C (cudaDataType), how it is computed (cublasComputeType_t), and which of A and B
// are transposed: A's 1, B's 2.
static int product(const char* name, Handle* handle, int trans_a, int trans_b, int m, int n, int k, int type_a, int lda,
                   int type_b, int ldb, int type_c, int ldc, int compute) {
    if (!handle) return NOT_INITIALIZED;
    int rows_a = trans_a ? k : m, rows_b = trans_b ? n : k;  // column-major: a column is as long as there are rows
    bool fits = m >= 0 && n >= 0 && k >= 0 && lda >= std::max(1, rows_a) && ldb >= std::max(1, rows_b) &&
                ldc >= std::max(1, m);
    if (!fits) return INVALID_VALUE;
    long long numbers[8] = {m, n, k, type_a, type_b, type_c, compute, (trans_a ? 1 : 0) + (trans_b ? 2 : 0)};
    return fake_product(name, handle->stream, numbers) ? EXECUTION_FAILED : SUCCESS;
}

API int cublasGemmEx(Handle* handle, int trans_a, int trans_b, int m, int n, int k, const void*, const void*,
                     int type_a, int lda, const void*, int type_b, int ldb, const void*, void*, int type_c, int ldc,
                     int compute, int) {
    return product("cublasGemmEx", handle, trans_a, trans_b, m, n, k, type_a, lda, type_b, ldb, type_c, ldc, compute);
}

API int cublasSgemmEx(Handle* handle, int trans_a, int trans_b, int m, int n, int k, const float*, const void*,
                      int type_a, int lda, const void*, int type_b, int ldb, const float*, void*, int type_c,
                      int ldc) {
    return product("cublasSgemmEx", handle, trans_a, trans_b, m, n, k, type_a, lda, type_b, ldb, type_c, ldc,
                   IN_FLOAT32);
}

API int cublasSgemm_v2(Handle* handle, int trans_a, int trans_b, int m, int n, int k, const float*, const float*,
                       int lda, const float*, int ldb, const float*, float*, int ldc) {
    return product("cublasSgemm", handle, trans_a, trans_b, m, n, k, FLOAT32, lda, FLOAT32, ldb, FLOAT32, ldc,
                   IN_FLOAT32);
}

API int cublasDgemm_v2(Handle* handle, int trans_a, int trans_b, int m, int n, int k, const double*, const double*,
                       int lda, const double*, int ldb, const double*, double*, int ldc) {
    return product("cublasDgemm", handle, trans_a, trans_b, m, n, k, FLOAT64, lda, FLOAT64, ldb, FLOAT64, ldc,
                   IN_FLOAT64);
}

// What build.py's functions call. Those that give a number to the host give 0, as no values are computed.
static int other(const char* name, Handle* handle) {
    if (!handle) return NOT_INITIALIZED;
    const long long numbers[8] = {};
    return fake_product(name, handle->stream, numbers) ? EXECUTION_FAILED : SUCCESS;
}
