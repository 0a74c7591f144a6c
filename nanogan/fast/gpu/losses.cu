// One number for a batch: the mean or the sum of a loss over its elements, as in nanogan/ops/losses.py, in one launch.
//
//   x     n numbers, in any order
//   loss  1 number: sum of LOSS(x, target) / divisor
//
// One block: batches of logits are small, and a second launch for the sums of several blocks would cost more than it
// saves. Each thread adds up every blockDim.x-th element, then halves of the block are added pairwise, always in the
// same order. Bytes: n numbers are read.
//
// NUMBER: float or double. LOSS: one of the functions below.

typedef NUMBER Number;

// weight * loss, where a weight of 0 leaves nothing, even of an infinite loss
__device__ Number weighted(Number weight, Number loss) { return weight * (isinf(loss) && weight == 0 ? 0 : loss); }

__device__ Number softplus(Number x) { return (x > 0 ? x : 0) + log1p(exp(x > 0 ? -x : x)); }

__device__ Number bce_with_logits(Number x, Number target) {
    return weighted(target, softplus(-x)) + weighted(1 - target, softplus(x));
}

__device__ Number saturating_bce(Number x, Number target) { return -bce_with_logits(x, 1 - target); }

__device__ Number mse(Number x, Number target) { return (x - target) * (x - target); }

__device__ Number l1(Number x, Number target) { return fabs(x - target); }

__device__ Number score(Number x, Number target) { return weighted(1 - 2 * target, x); }

__device__ Number hinge(Number x, Number target) {
    const Number loss = 1 + score(x, target);
    return loss <= 0 ? 0 : loss;  // NaN stays NaN
}

__device__ Number mean_probability(Number x, Number target) {  // the sigmoid; there is no target
    const Number small = exp(x > 0 ? -x : x);
    return (x > 0 ? 1 : small) / (1 + small);
}

extern "C" __global__ void __launch_bounds__(1024)
    mean_loss(const Number* x, Number* loss, int n, Number target, Number divisor) {
    __shared__ Number sums[1024];
    Number sum = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += LOSS(x[i], target);
    sums[threadIdx.x] = sum;
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    if (threadIdx.x == 0) *loss = sums[0] / divisor;
}
