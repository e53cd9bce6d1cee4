// Convolutions over tokens: a thread computes one channel of one token, or eight. Limited by memory bandwidth: a row is
// read from memory once, then from the cache.
#include <algorithm>
#include <cstdint>

#include "backend/cuda/activations.cuh"
#include "backend/cuda/gpu.h"
#include "backend/cuda/rows.cuh"
#include "ops/convolution.h"

namespace gptq::cuda {
namespace {

struct Taps {
  Rows<const float> weight;
  const float* bias;  // or null
  const int64_t* offsets;
  int64_t sequences, taps;
  Activation activation;

  // Tokens that row r reads: itself and those before it.
  __device__ int64_t count(int64_t r) const {
    const int64_t position = position_of(r, offsets, sequences);
    return position + 1 < taps ? position + 1 : taps;
  }
  __device__ float first(int64_t c) const { return bias == nullptr ? 0 : bias[c]; }
  __device__ float of(int64_t c, int64_t back) const { return weight.row(c)[taps - 1 - back]; }
};

struct Convolution {
  AnyRows x, y;
  Taps taps;
  __device__ void operator()(int64_t r, int64_t c) const {
    float sum = taps.first(c);
    const int64_t count = taps.count(r);
    for (int64_t back = 0; back < count; ++back) sum = fmaf(taps.of(c, back), x.get(r - back, c), sum);
    y.set(r, c, activated(taps.activation, sum));
  }
};

template <typename T>
struct ConvolutionWide {
  Rows<const T> x;
  Rows<T> y;
  Taps taps;
  __device__ void operator()(int64_t r, int64_t c) const {
    float sums[kWide];
#pragma unroll
    for (int i = 0; i < kWide; ++i) sums[i] = taps.first(c + i);
    const int64_t count = taps.count(r);
    for (int64_t back = 0; back < count; ++back) {
      const Pack<T> pack = load_pack(x.row(r - back) + c);
#pragma unroll
      for (int i = 0; i < kWide; ++i) sums[i] = fmaf(taps.of(c + i, back), widened(pack.values[i]), sums[i]);
    }
    Pack<T> out;
#pragma unroll
    for (int i = 0; i < kWide; ++i) store(&out.values[i], activated(taps.activation, sums[i]));
    store_pack(y.row(r) + c, out);
  }
};

void causal_convolution(Gpu& gpu, const ops::CausalConvolution& op) {
  if (op.y.empty()) return;
  const Matrix offsets = gpu.on_device(op.offsets);
  const Taps taps{rows_of<float>(op.weight),
                  op.bias.empty() ? nullptr : op.bias.row<float>(0),
                  static_cast<const int64_t*>(offsets.view().data),
                  static_cast<int64_t>(op.offsets.size()) - 1,
                  op.weight.cols,
                  op.activation};
  if (!in_packs({op.x, op.y})) {
    return launch_places(op.y.rows, op.y.cols, 1, gpu.stream(), Convolution{any_rows(op.x), any_rows(op.y), taps});
  }
  with_element(op.y.dtype, [&](auto element) {
    using T = decltype(element);
    launch_places(op.y.rows, op.y.cols, kWide, gpu.stream(),
                  ConvolutionWide<T>{rows_of<T>(op.x), rows_of<T>(op.y), taps});
  });
}

}  // namespace

void add_convolution_ops(GpuOps& table) { table.add<causal_convolution>(); }

}  // namespace gptq::cuda
