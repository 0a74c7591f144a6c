// Convolutions with 4x4 kernels, stride 2 and padding 1, as a DCGAN's: nanogan/ops/conv.py without its cols, on tensor
// cores.
//
//   large  (N, 2P, 2Q, C)      small  (N, P, Q, R)      w  (R, 4, 4, C)      float32, channels last
//
//   down   small[n,i,j,r] = sum over kh,kw,c of large[n, 2i-1+kh, 2j-1+kw, c] * w[r,kh,kw,c]
//          = im2col(large) @ w_rows.T       the convolution's forward, the transposed one's dx
//   up     large = col2im(small @ w_rows)   the transposed convolution's forward, the convolution's dx
//   wgrad  w[r,kh,kw,c] = sum over n,i,j of small[n,i,j,r] * large[n, 2i-1+kh, 2j-1+kw, c]
//          = small.T @ im2col(large)        dw of both
//
// Each is one matrix product, A @ B.T. A block computes a tile of BM x BN numbers of it: it walks along the depth, over
// which is summed, BK at a time, and copies those columns of A and B into shared memory, where cols exist for a moment.
// Copies run three steps ahead of the products.
//
// up in four phases, blockIdx.z: the pixel (2i+ph, 2j+pw) of large is in windows of two rows i+dh, with dh = 0 or -1
// where ph = 0, and 0 or 1 where ph = 1. There it is at kh = ph + 1 - 2*dh, as 2(i+dh) - 1 + kh = 2i + ph. So a phase
// is a product over 4*R numbers, and each pixel is written once.
//
// Operations: 32*N*P*Q*C*R each. Bytes: each result once; A once for each tile along B, B once for each tile along A,
// mostly out of the cache. cols, 16*N*P*Q*C numbers, are neither written nor read.
//
// BM, BN: 128, 64, or 32 for BN. PRODUCTS: 1 for TF32, where a tensor core reads 10 bits of a fraction; 3 for float32,
// x = high + low: high*high + high*low + low*high lacks low*low alone, 2^-22 of the product.
// C and R are multiples of BK; arrays begin at multiples of 16 bytes.

#ifndef EMULATE  // tests/strict_cupy/cuda.h has these for the CPU
#define DEVICE __device__ __forceinline__
#define SHARED                           \
    extern __shared__ float4 dynamic[]; \
    float* shared = (float*)dynamic

DEVICE unsigned tf32(float x) {  // to the nearest
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
}

// d (16, 8) += a (16, 8) @ b (8, 8), by a warp. The lane 4 g + t holds of a (g, t) (g+8, t) (g, t+4) (g+8, t+4), of b
// (t, g) (t+4, g), of d (g, 2t) (g, 2t+1) (g+8, 2t) (g+8, 2t+1).
DEVICE void mma(float* d, const unsigned* a, const unsigned* b) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Begin to copy 16 bytes, zeros unless valid; they are there when the thread has waited for their group.
DEVICE void copy16(float* to, const float* from, bool valid) {
    const unsigned address = (unsigned)__cvta_generic_to_shared(to), size = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(size) : "memory");
}
DEVICE void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> DEVICE void wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }
#endif

constexpr int BK = 16, STAGES = 4;                                      // steps in shared memory
constexpr int WARPS_M = 4, WARPS_N = 2, THREADS = WARPS_M * WARPS_N * 32;  // of a block
constexpr int TM = BM / WARPS_M / 16, TN = BN / WARPS_N / 8;            // a warp computes TM x TN parts of 16 x 8
static_assert(TM * WARPS_M * 16 == BM && TN * WARPS_N * 8 == BN, "tiles that the warps share");

typedef float Sums[TM][TN][4];  // a thread's share of the tile

// A step of A or B in shared memory: LINES lines of LENGTH numbers; the number (row, k) is at row*ROW + k*DEPTH. The
// gaps between lines keep the threads of a warp on different banks.
template <int ROWS> struct ByRow {  // k along a line
    static constexpr int LINES = ROWS, LENGTH = BK, PITCH = BK + 4, ROW = PITCH, DEPTH = 1;
};
template <int ROWS> struct ByDepth {  // rows along a line
    static constexpr int LINES = BK, LENGTH = ROWS, PITCH = ROWS + 8, ROW = 1, DEPTH = PITCH;
};

// Begin to copy a step, 16 bytes a thread and turn, from from[offset(turn, line, at)]; zeros where that is negative.
template <class Layout, class Offset> DEVICE void copy_step(float* to, const float* from, Offset offset) {
    constexpr int ALONG = Layout::LENGTH / 4, TOTAL = Layout::LINES * ALONG;
#pragma unroll
    for (int turn = 0; turn < (TOTAL + THREADS - 1) / THREADS; turn++) {
        const int i = turn * THREADS + threadIdx.x, line = i / ALONG, at = i % ALONG * 4;
        if (TOTAL % THREADS && i >= TOTAL) break;
        const long long place = offset(turn, line, at);
        copy16(to + line * Layout::PITCH + at, from + (place < 0 ? 0 : place), place >= 0);
    }
}

template <int COUNT> struct Fragment {  // what a thread holds of a matrix
    unsigned high[COUNT], low[COUNT];
    DEVICE void set(int i, float x) {
        high[i] = tf32(x);
        if (PRODUCTS == 3) low[i] = tf32(x - __uint_as_float(high[i]));
    }
};

DEVICE void add_product(float* sum, const Fragment<4>& a, const Fragment<2>& b) {
    if (PRODUCTS == 1) return mma(sum, a.high, b.high);
    float part[4] = {};  // a tensor core cuts off the digits of a sum, where float32 rounds: so long sums are made here
    mma(part, a.low, b.high);
    mma(part, a.high, b.low);
    mma(part, a.high, b.high);
#pragma unroll
    for (int e = 0; e < 4; e++) sum[e] += part[e];
}

// sums += A @ B.T for the step at a and b
template <class A, class B> DEVICE void multiply(const float* a, const float* b, Sums& sums) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    a += (warp % WARPS_M * TM * 16 + g) * A::ROW + t * A::DEPTH;
    b += (warp / WARPS_M * TN * 8 + g) * B::ROW + t * B::DEPTH;
#pragma unroll
    for (int k = 0; k < BK; k += 8) {
        Fragment<4> of_a[TM];
#pragma unroll
        for (int m = 0; m < TM; m++)
#pragma unroll
            for (int e = 0; e < 4; e++) of_a[m].set(e, a[(m * 16 + e % 2 * 8) * A::ROW + (k + e / 2 * 4) * A::DEPTH]);
#pragma unroll
        for (int n = 0; n < TN; n++) {
            Fragment<2> of_b;
#pragma unroll
            for (int e = 0; e < 2; e++) of_b.set(e, b[n * 8 * B::ROW + (k + e * 4) * B::DEPTH]);
#pragma unroll
            for (int m = 0; m < TM; m++) add_product(sums[m][n], of_a[m], of_b);
        }
    }
}

// sums = A @ B.T along all the depth; copy(step, a, b) begins to copy a step.
template <class A, class B, class Copy> DEVICE void sum_products(int steps, Copy copy, Sums& sums) {
    SHARED;
    constexpr int OF_A = A::LINES * A::PITCH, SIZE = OF_A + B::LINES * B::PITCH;
#pragma unroll
    for (int i = 0; i < TM * TN * 4; i++) sums[i / 4 / TN][i / 4 % TN][i % 4] = 0;
    for (int step = 0; step < STAGES - 1; step++) {
        if (step < steps) copy(step, shared + step * SIZE, shared + step * SIZE + OF_A);
        commit();
    }
    for (int step = 0; step < steps; step++) {
        wait<STAGES - 2>();  // for this thread's copies of the step,
        __syncthreads();     // and for all others', which have also done with the step before: its place is free
        const int next = step + STAGES - 1;
        float* place = shared + next % STAGES * SIZE;
        if (next < steps) copy(next, place, place + OF_A);
        commit();  // a group of nothing too: wait counts them
        place = shared + step % STAGES * SIZE;
        multiply<A, B>(place, place + OF_A, sums);
    }
}

// Call store(row, column, two sums side by side) for the tile's numbers that this thread holds.
template <class Store> DEVICE void each_pair(const Sums& sums, Store store) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int row = warp % WARPS_M * TM * 16 + g, column = warp / WARPS_M * TN * 8 + 2 * t;
#pragma unroll
    for (int m = 0; m < TM; m++)
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int n = 0; n < TN; n++) {
                const float* pair = sums[m][n] + half * 2;
                store(row + m * 16 + half * 8, column + n * 8, make_float2(pair[0], pair[1]));
            }
}

struct Pixel {  // of small
    int n, i, j;
    DEVICE Pixel() {}
    DEVICE Pixel(int m, int P, int Q) : n(m / (P * Q)), i(m / Q % P), j(m % Q) {}
};

// The pixels whose windows a thread copies, in each step the same ones; n is -1 behind the last of M.
struct Pixels {
    Pixel of[BM * BK / 4 / THREADS];
    DEVICE Pixels(int first, int M, int P, int Q) {
#pragma unroll
        for (int turn = 0; turn < BM * BK / 4 / THREADS; turn++) {
            const int m = first + (turn * THREADS + threadIdx.x) / (BK / 4);
            of[turn] = Pixel(m, P, Q);
            if (m >= M) of[turn].n = -1;
        }
    }
};

// Where images (N, H, W, C) have the channel c of the pixel (h, w), or -1 beside the images.
DEVICE long long place_of(int n, int h, int w, int c, int H, int W, int C) {
    return n >= 0 && h >= 0 && h < H && w >= 0 && w < W ? ((long long)(n * H + h) * W + w) * C + c : -1;
}

// A: windows of large (N*P*Q, 16*C); B: w (R, 16*C). gridDim: tiles of N*P*Q, tiles of R.
extern "C" __global__ void __launch_bounds__(THREADS)
    down(const float* large, const float* w, float* small, int N, int P, int Q, int C, int R) {
    typedef ByRow<BM> A;
    typedef ByRow<BN> B;
    const int M = N * P * Q, m0 = blockIdx.x * BM, r0 = blockIdx.y * BN;
    const Pixels pixels(m0, M, P, Q);
    auto copy = [&](int step, float* a, float* b) {
        const int tap = step * BK / C, c = step * BK % C, kh = tap / 4, kw = tap % 4;
        copy_step<A>(a, large, [&](int turn, int line, int at) {
            const Pixel p = pixels.of[turn];
            return place_of(p.n, 2 * p.i - 1 + kh, 2 * p.j - 1 + kw, c + at, 2 * P, 2 * Q, C);
        });
        copy_step<B>(b, w, [&](int turn, int line, int at) {
            return r0 + line < R ? ((long long)(r0 + line) * 16 + tap) * C + c + at : -1;
        });
    };
    Sums sums;
    sum_products<A, B>(16 * C / BK, copy, sums);
    each_pair(sums, [&](int row, int column, float2 pair) {
        const int m = m0 + row, r = r0 + column;
        if (m < M && r < R) *(float2*)(small + (long long)m * R + r) = pair;
    });
}

// A: windows of small (N*P*Q, 4*R); B: w for a phase (C, 4*R). gridDim: tiles of N*P*Q, tiles of C, phases.
extern "C" __global__ void __launch_bounds__(THREADS)
    up(const float* small, const float* w, float* large, int N, int P, int Q, int C, int R) {
    typedef ByRow<BM> A;
    typedef ByDepth<BN> B;
    const int M = N * P * Q, m0 = blockIdx.x * BM, c0 = blockIdx.y * BN, ph = blockIdx.z / 2, pw = blockIdx.z % 2;
    const Pixels pixels(m0, M, P, Q);
    auto copy = [&](int step, float* a, float* b) {
        const int tap = step * BK / R, r = step * BK % R;
        const int dh = tap / 2 * (2 * ph - 1), dw = tap % 2 * (2 * pw - 1);
        const int kh = ph + 1 - 2 * dh, kw = pw + 1 - 2 * dw;
        copy_step<A>(a, small, [&](int turn, int line, int at) {
            const Pixel p = pixels.of[turn];
            return place_of(p.n, p.i + dh, p.j + dw, r + at, P, Q, R);
        });
        copy_step<B>(b, w, [&](int turn, int line, int at) {
            return c0 + at < C ? ((long long)(r + line) * 16 + kh * 4 + kw) * C + c0 + at : -1;
        });
    };
    Sums sums;
    sum_products<A, B>(4 * R / BK, copy, sums);
    each_pair(sums, [&](int row, int column, float2 pair) {
        const Pixel p(m0 + row, P, Q);
        const int c = c0 + column;
        if (m0 + row >= M || c >= C) return;
        *(float2*)(large + place_of(p.n, 2 * p.i + ph, 2 * p.j + pw, c, 2 * P, 2 * Q, C)) = pair;
    });
}

// parts (stretches, R, 4, 4, C): sums over stretches of N*P*Q, which add_parts adds up: always in the same order.
// A: small.T (R, N*P*Q); B: for a tap, windows of large (C, N*P*Q). gridDim: tiles of R, taps * tiles of C, stretches.
extern "C" __global__ void __launch_bounds__(THREADS)
    wgrad(const float* large, const float* small, float* parts, int N, int P, int Q, int C, int R, int stretch) {
    typedef ByDepth<BM> A;
    typedef ByDepth<BN> B;
    const int r0 = blockIdx.x * BM, tap = blockIdx.y % 16, c0 = blockIdx.y / 16 * BN, kh = tap / 4, kw = tap % 4;
    const int first = blockIdx.z * stretch, last = min(N * P * Q, first + stretch);
    auto copy = [&](int step, float* a, float* b) {
        const int m0 = first + step * BK;
        copy_step<A>(a, small, [&](int turn, int line, int at) {
            return m0 + line < last && r0 + at < R ? (long long)(m0 + line) * R + r0 + at : -1;
        });
        copy_step<B>(b, large, [&](int turn, int line, int at) {
            const Pixel p(m0 + line, P, Q);
            const bool valid = m0 + line < last && c0 + at < C;
            return valid ? place_of(p.n, 2 * p.i - 1 + kh, 2 * p.j - 1 + kw, c0 + at, 2 * P, 2 * Q, C) : -1;
        });
    };
    Sums sums;
    sum_products<A, B>((last - first + BK - 1) / BK, copy, sums);
    each_pair(sums, [&](int row, int column, float2 pair) {
        const int r = r0 + row, c = c0 + column;
        if (r < R && c < C) *(float2*)(parts + (((long long)blockIdx.z * R + r) * 16 + tap) * C + c) = pair;
    });
}

// gradient (size,) = the sum of parts (stretches, size), or that added to it.
extern "C" __global__ void add_parts(const float* parts, float* gradient, int size, int stretches, int adds) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < size; i += gridDim.x * blockDim.x) {
        float sum = 0;
        for (int z = 0; z < stretches; z++) sum += parts[(long long)z * size + i];
        gradient[i] = adds ? gradient[i] + sum : sum;
    }
}
