// Batch normalisation in train mode, with the activation behind it: nanogan/ops/batchnorm.py and activations.py.
//
//   forward    sums -> statistics -> normalise           backward    slope_sums -> slope_statistics -> slopes
//
//   x, dy, y, dx   (M, C)          rows: one for each pixel, one column for each channel
//   partial        (chunks, 2, C)  sums over the rows of each chunk, which statistics adds up
//   saved          (3, C)          shift, offset, inv_std, from the forward for the backward
//   means          (2, C)          of g and of g * xhat
//
// The mean is kept as shift + offset. shift is the mean of a few rows, near enough to the whole mean that x - shift is
// of the order of the spread; so its sum, and that of its square, lose no digits however large the mean is.
//
// y = a(v), v = (x - mean) * gamma * inv_std + beta; a(v) = v above 0, else slope * v: 1 is no activation, 0 is ReLU.
// The backward computes v again rather than reading y: g = dy * a'(v) is the gradient behind the normalisation.
//
// Bytes: forward 2 reads of x, 1 write; backward 2 reads of x and of dy, 1 write. About 4 and 12 operations a number.
//
// NUMBER: float or double. WIDTH: channels that a thread takes at a time where no sum is formed.

typedef NUMBER Number;
struct alignas(sizeof(Number) * WIDTH) Part {
    Number at[WIDTH];
};

#define LANES 32  // channels of a block that forms sums, side by side in memory
#define ROWS 8    // rows of it
#define SAMPLES 8  // rows of which shift is the mean

// The sums of a and b over the rows of a block, in row 0 and row 1 of its threads.
__device__ Number sum_over_rows(Number a, Number b) {
    __shared__ Number of_a[ROWS][LANES + 1], of_b[ROWS][LANES + 1];
    const int lane = threadIdx.x % LANES, row = threadIdx.x / LANES;
    of_a[row][lane] = a;
    of_b[row][lane] = b;
    __syncthreads();
    Number sum = 0;
    if (row < 2)
        for (int i = 0; i < ROWS; i++) sum += row == 0 ? of_a[i][lane] : of_b[i][lane];
    return sum;
}

__device__ Number shift_of(const Number* x, int M, int C, int c) {
    Number sum = 0;
    for (int i = 0; i < SAMPLES; i++) sum += x[(long long)M * i / SAMPLES * C + c];
    return sum / SAMPLES;
}

// 1 block for 32 channels of a chunk of the rows; gridDim (C / 32, chunks).
extern "C" __global__ void __launch_bounds__(LANES * ROWS) sums(const Number* x, Number* partial, int M, int C) {
    const int lane = threadIdx.x % LANES, row = threadIdx.x / LANES, c = blockIdx.x * LANES + lane;
    Number a = 0, b = 0;
    if (c < C) {
        const Number shift = shift_of(x, M, C, c);
        for (int m = blockIdx.y * ROWS + row; m < M; m += gridDim.y * ROWS) {
            const Number d = x[(long long)m * C + c] - shift;
            a += d;
            b += d * d;
        }
    }
    const Number sum = sum_over_rows(a, b);
    if (row < 2 && c < C) partial[((long long)blockIdx.y * 2 + row) * C + c] = sum;
}

// 1 block for 32 channels; its rows share the chunks.
__device__ Number sum_over_chunks(const Number* partial, int chunks, int C, int c) {
    Number a = 0, b = 0;
    if (c < C)
        for (int i = threadIdx.x / LANES; i < chunks; i += ROWS) {
            a += partial[(long long)i * 2 * C + c];
            b += partial[((long long)i * 2 + 1) * C + c];
        }
    return sum_over_rows(a, b);
}

extern "C" __global__ void __launch_bounds__(LANES * ROWS)
    statistics(const Number* x, const Number* partial, Number* running_mean, Number* running_var, Number* saved,
               int chunks, int M, int C, Number momentum, Number eps) {
    __shared__ Number totals[2][LANES];
    const int lane = threadIdx.x % LANES, row = threadIdx.x / LANES, c = blockIdx.x * LANES + lane;
    const Number sum = sum_over_chunks(partial, chunks, C, c);
    if (row < 2) totals[row][lane] = sum;
    __syncthreads();
    if (row > 0 || c >= C) return;
    const Number shift = shift_of(x, M, C, c), offset = totals[0][lane] / M;
    const Number spread = totals[1][lane] / M - offset * offset;
    const Number var = spread < 0 ? 0 : spread;  // NaN stays NaN
    running_mean[c] = (1 - momentum) * running_mean[c] + momentum * (shift + offset);
    running_var[c] = (1 - momentum) * running_var[c] + momentum * M / (M - 1) * var;
    saved[c] = shift;
    saved[C + c] = offset;
    saved[2 * C + c] = 1 / sqrt(var + eps);
}

extern "C" __global__ void normalise(const Number* x_numbers, const Number* saved, const Number* gamma,
                                     const Number* beta, Number* y_numbers, int M, int C, Number slope) {
    const Part* x = (const Part*)x_numbers;
    Part* y = (Part*)y_numbers;
    const int parts = C / WIDTH;
    const unsigned total = (unsigned)M * parts;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < total; i += gridDim.x * blockDim.x) {
        const int first = i % parts * WIDTH;
        const Part of_x = x[i];
        Part of_y;
        for (int k = 0; k < WIDTH; k++) {
            const int c = first + k;
            const Number v = (of_x.at[k] - saved[c] - saved[C + c]) * (gamma[c] * saved[2 * C + c]) + beta[c];
            of_y.at[k] = v > 0 ? v : (slope == 0 && v <= 0 ? 0 : slope * v);  // 0 * -inf would be NaN
        }
        y[i] = of_y;
    }
}

extern "C" __global__ void __launch_bounds__(LANES * ROWS)
    slope_sums(const Number* dy, const Number* x, const Number* saved, const Number* gamma, const Number* beta,
               Number* partial, int M, int C, Number slope) {
    const int lane = threadIdx.x % LANES, row = threadIdx.x / LANES, c = blockIdx.x * LANES + lane;
    Number a = 0, b = 0;
    if (c < C) {
        const Number shift = saved[c], offset = saved[C + c], inv_std = saved[2 * C + c];
        const Number scale = gamma[c] * inv_std, bias = beta[c];
        for (int m = blockIdx.y * ROWS + row; m < M; m += gridDim.y * ROWS) {
            const Number d = x[(long long)m * C + c] - shift - offset, v = d * scale + bias;
            const Number g = v > 0 ? dy[(long long)m * C + c] : slope * dy[(long long)m * C + c];
            a += g;
            b += g * (d * inv_std);
        }
    }
    const Number sum = sum_over_rows(a, b);
    if (row < 2 && c < C) partial[((long long)blockIdx.y * 2 + row) * C + c] = sum;
}

// dgamma and dbeta are written if keep is 1, added to if it is 2, and left alone if it is 0.
extern "C" __global__ void __launch_bounds__(LANES * ROWS)
    slope_statistics(const Number* partial, Number* means, Number* dgamma, Number* dbeta, int chunks, int M, int C,
                     int keep) {
    const int lane = threadIdx.x % LANES, row = threadIdx.x / LANES, c = blockIdx.x * LANES + lane;
    const Number sum = sum_over_chunks(partial, chunks, C, c);  // row 0: of g; row 1: of g * xhat
    if (row > 1 || c >= C) return;
    means[row * C + c] = sum / M;
    Number* gradient = row == 0 ? dbeta : dgamma;
    if (keep == 1) gradient[c] = sum;
    if (keep == 2) gradient[c] += sum;
}

extern "C" __global__ void slopes(const Number* dy_numbers, const Number* x_numbers, const Number* saved,
                                  const Number* means, const Number* gamma, const Number* beta, Number* dx_numbers,
                                  int M, int C, Number slope) {
    const Part *dy = (const Part*)dy_numbers, *x = (const Part*)x_numbers;
    Part* dx = (Part*)dx_numbers;
    const int parts = C / WIDTH;
    const unsigned total = (unsigned)M * parts;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < total; i += gridDim.x * blockDim.x) {
        const int first = i % parts * WIDTH;
        const Part of_dy = dy[i], of_x = x[i];
        Part of_dx;
        for (int k = 0; k < WIDTH; k++) {
            const int c = first + k;
            const Number d = of_x.at[k] - saved[c] - saved[C + c], inv_std = saved[2 * C + c];
            const Number scale = gamma[c] * inv_std, v = d * scale + beta[c];
            const Number g = v > 0 ? of_dy.at[k] : slope * of_dy.at[k];
            of_dx.at[k] = scale * (g - means[c] - d * inv_std * means[C + c]);
        }
        dx[i] = of_dx;
    }
}
