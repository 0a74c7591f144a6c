// Windows of images as rows, and back: im2col and col2im of nanogan/ops/conv.py, each in one launch.
//
//   images  (N, H, W, C)                  channels last
//   cols    (N, OH, OW, KH, KW, C)        the windows; the window (oh, ow) begins at the pixel (oh*SH - PH, ow*SW - PW)
//
// A thread takes WIDTH neighbouring channels of one pixel at a time, 16 bytes where C allows it; neighbouring threads
// take neighbouring channels, so that a warp reads and writes whole lines of memory. C is counted in such parts here.
//
// Bytes, with b those of a number:  im2col reads N*H*W*C*b (windows that overlap are read from the cache) and writes
// N*OH*OW*KH*KW*C*b; col2im reads that and writes N*H*W*C*b. No sums but col2im's, KH*KW/(SH*SW) for each pixel.
//
// NUMBER: the type of the numbers; of 16-bit floats, which im2col only moves, unsigned short.

typedef NUMBER Number;
struct alignas(sizeof(Number) * WIDTH) Part {
    Number at[WIDTH];
};

extern "C" __global__ void im2col(const Number* image_numbers, Number* cols_numbers, int N, int H, int W, int C, int KH,
                                  int KW, int SH, int SW, int PH, int PW, int OH, int OW) {
    const Part* images = (const Part*)image_numbers;
    Part* cols = (Part*)cols_numbers;
    const unsigned total = (unsigned)N * OH * OW * KH * KW * C;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < total; i += gridDim.x * blockDim.x) {
        unsigned rest = i;  // = ((((n*OH + oh)*OW + ow)*KH + kh)*KW + kw)*C + c
        const int c = rest % C;
        rest /= C;
        const int kw = rest % KW;
        rest /= KW;
        const int kh = rest % KH;
        rest /= KH;
        const int ow = rest % OW;
        rest /= OW;
        const int oh = rest % OH, n = rest / OH;

        const int h = oh * SH - PH + kh, w = ow * SW - PW + kw;
        Part part = {};  // the padding
        if (h >= 0 && h < H && w >= 0 && w < W) part = images[(((long long)n * H + h) * W + w) * C + c];
        cols[i] = part;
    }
}

extern "C" __global__ void col2im(const Number* cols_numbers, Number* image_numbers, int N, int H, int W, int C, int KH,
                                  int KW, int SH, int SW, int PH, int PW, int OH, int OW) {
    const Part* cols = (const Part*)cols_numbers;
    Part* images = (Part*)image_numbers;
    const unsigned total = (unsigned)N * H * W * C;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < total; i += gridDim.x * blockDim.x) {
        unsigned rest = i;  // = ((n*H + h)*W + w)*C + c
        const int c = rest % C;
        rest /= C;
        const int w = rest % W + PW;  // in the padded image
        rest /= W;
        const int h = rest % H + PH, n = rest / H;

        // The pixel is (kh, kw) of the window (oh, ow) where oh*SH + kh = h and ow*SW + kw = w.
        Part sum = {};
        for (int kh = h % SH; kh < KH && kh <= h; kh += SH) {
            const int oh = (h - kh) / SH;
            if (oh >= OH) continue;
            for (int kw = w % SW; kw < KW && kw <= w; kw += SW) {
                const int ow = (w - kw) / SW;
                if (ow >= OW) continue;
                const Part part = cols[(((((long long)n * OH + oh) * OW + ow) * KH + kh) * KW + kw) * C + c];
                for (int k = 0; k < WIDTH; k++) sum.at[k] += part.at[k];
            }
        }
        images[i] = sum;
    }
}
