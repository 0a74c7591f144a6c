// Batch normalisation in train mode, with the activation behind it: nanogan/ops/batchnorm.py and activations.py.
//
//   forward    moments -> statistics -> normalise        backward    slope_sums -> slope_statistics -> slopes
//
//   x, dy, y, dx   (M, C)          rows: one for each pixel, one column for each channel
//   partial        (chunks, 2, C)  what is known of each chunk of the rows, which statistics puts together
//   saved          (3, C)          shift, offset, inv_std, from the forward for the backward
//   means          (2, C)          of g and of g * xhat
//
// The mean is kept as shift + offset, where shift is near it: so the mean of numbers around 10,000 loses no digits of
// their spread. For the same reason a chunk's squares are summed around rows of its own, and chunks are put together by
// T. Chan, G. Golub, R. LeVeque (1979): with n numbers each, of mean m and sum of squares around it s,
//
//   m = sum n m / M        s = sum (s + n (m of the chunk - m)^2)
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
struct Two {
    Number a, b;
};

#define LANES 32  // channels of a block that forms sums, side by side in memory
#define ROWS 8    // rows of it, one apart; a chunk's next ones are gridDim.y * ROWS on

// The sums of a and of b over the rows of a block, for each of its channels.
__device__ Two sum_over_rows(Number a, Number b) {
    __shared__ Number of_a[ROWS][LANES + 1], of_b[ROWS][LANES + 1];
    const int lane = threadIdx.x % LANES, row = threadIdx.x / LANES;
    __syncthreads();  // the sums before may still be read
    of_a[row][lane] = a;
    of_b[row][lane] = b;
    __syncthreads();
    Two sums = {0, 0};
    for (int i = 0; i < ROWS; i++) {
        sums.a += of_a[i][lane];
        sums.b += of_b[i][lane];
    }
    return sums;
}

// How many of M rows are in a chunk.
__device__ int rows_of(int chunk, int chunks, int M) {
    const int round = chunks * ROWS, whole = M / round, rest = M - whole * round - chunk * ROWS;
    return whole * ROWS + (rest < 0 ? 0 : rest > ROWS ? ROWS : rest);
}

// 1 block for 32 channels of a chunk of the rows; gridDim (C / 32, chunks). Of each chunk: its mean, less the first row
// of all, and the sum of the squares around it.
extern "C" __global__ void __launch_bounds__(LANES * ROWS) moments(const Number* x, Number* partial, int M, int C) {
    const int lane = threadIdx.x % LANES, row = threadIdx.x / LANES, c = blockIdx.x * LANES + lane;
    const int first = blockIdx.y * ROWS, n = rows_of(blockIdx.y, gridDim.y, M);
    const bool there = c < C && first + row < M;
    const Number near = sum_over_rows(there ? x[(long long)(first + row) * C + c] : 0, 0).a / min(ROWS, n);
    Number a = 0, b = 0;
    if (c < C)
        for (int m = first + row; m < M; m += gridDim.y * ROWS) {
            const Number d = x[(long long)m * C + c] - near;
            a += d;
            b += d * d;
        }
    const Two sums = sum_over_rows(a, b);
    if (row > 0 || c >= C) return;
    Number* of_chunk = partial + (long long)blockIdx.y * 2 * C;
    of_chunk[c] = near - x[c] + sums.a / n;
    of_chunk[C + c] = sums.b - sums.a * (sums.a / n);
}

// 1 block for 32 channels; its rows share the chunks.
extern "C" __global__ void __launch_bounds__(LANES * ROWS)
    statistics(const Number* x, const Number* partial, Number* running_mean, Number* running_var, Number* saved,
               int chunks, int M, int C, Number momentum, Number eps) {
    const int lane = threadIdx.x % LANES, row = threadIdx.x / LANES, c = blockIdx.x * LANES + lane;
    Number a = 0, b = 0;
    if (c < C)
        for (int i = row; i < chunks; i += ROWS) a += rows_of(i, chunks, M) * partial[(long long)i * 2 * C + c];
    const Number offset = sum_over_rows(a, 0).a / M;
    if (c < C)
        for (int i = row; i < chunks; i += ROWS) {
            const Number d = partial[(long long)i * 2 * C + c] - offset;
            b += partial[((long long)i * 2 + 1) * C + c] + rows_of(i, chunks, M) * (d * d);
        }
    const Number spread = sum_over_rows(b, 0).a / M;
    if (row > 0 || c >= C) return;
    const Number shift = x[c], var = spread < 0 ? 0 : spread;  // NaN stays NaN
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
    const Two sums = sum_over_rows(a, b);
    if (row < 2 && c < C) partial[((long long)blockIdx.y * 2 + row) * C + c] = row == 0 ? sums.a : sums.b;
}

// dgamma and dbeta are written if keep is 1, added to if it is 2, and left alone if it is 0.
extern "C" __global__ void __launch_bounds__(LANES * ROWS)
    slope_statistics(const Number* partial, Number* means, Number* dgamma, Number* dbeta, int chunks, int M, int C,
                     int keep) {
    const int lane = threadIdx.x % LANES, row = threadIdx.x / LANES, c = blockIdx.x * LANES + lane;
    Number a = 0, b = 0;
    if (c < C)
        for (int i = row; i < chunks; i += ROWS) {
            a += partial[(long long)i * 2 * C + c];
            b += partial[((long long)i * 2 + 1) * C + c];
        }
    const Two sums = sum_over_rows(a, b);  // of g, and of g * xhat
    if (row > 1 || c >= C) return;
    const Number sum = row == 0 ? sums.a : sums.b;
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
