// Norms over groups of columns. A group is the work of a block, or of 1 to 32 neighbouring lanes of a warp where it is
// as short as an attention head, so that no lane idles. Limited by memory bandwidth: a group is read from memory once,
// then from the cache.
#include <cstdint>

#include "backend/cuda/gpu.h"
#include "backend/cuda/rows.cuh"
#include "ops/norms.h"

namespace gptq::cuda {
namespace {

// Groups of at most this many columns are handled by lanes of a warp, one pack each.
constexpr int64_t kMostOfLanes = 32 * kWide;

// Threads that handle one group together. sum() is the sum over them, in each; its order is fixed.
struct Block {
  static constexpr int size = kThreads;
  __device__ int rank() const { return static_cast<int>(threadIdx.x); }
  __device__ float sum(float value) const { return over_block(value, Sum()); }
};
struct Lanes {
  int size;  // a power of two, at most 32
  __device__ int rank() const { return static_cast<int>(threadIdx.x) & (size - 1); }
  __device__ float sum(float value) const {
    const unsigned first = threadIdx.x % 32 - rank(), members = (0xffffffffU >> (32 - size)) << first;
    for (int lane = size / 2; lane > 0; lane /= 2) value += __shfl_xor_sync(members, value, lane);
    return value;
  }
};

// kEach neighbouring elements of a matrix, as f32.
template <typename T>
struct Packs {
  static constexpr int kEach = kWide;
  Rows<T> rows;
  explicit Packs(ConstMatrixView m) : rows{static_cast<T*>(const_cast<void*>(m.data)), m.stride} {}
  __device__ void get(int64_t r, int64_t c, float (&values)[kEach]) const {
    const Pack<T> pack = load_pack(rows.row(r) + c);
#pragma unroll
    for (int i = 0; i < kEach; ++i) values[i] = widened(pack.values[i]);
  }
  __device__ void set(int64_t r, int64_t c, const float (&values)[kEach]) const {
    Pack<T> pack;
#pragma unroll
    for (int i = 0; i < kEach; ++i) store(&pack.values[i], values[i]);
    store_pack(rows.row(r) + c, pack);
  }
};
struct Singles {
  static constexpr int kEach = 1;
  AnyRows rows;
  explicit Singles(ConstMatrixView m) : rows(any_rows(m)) {}
  __device__ void get(int64_t r, int64_t c, float (&values)[1]) const { values[0] = rows.get(r, c); }
  __device__ void set(int64_t r, int64_t c, const float (&values)[1]) const { rows.set(r, c, values[0]); }
};

// Calls visit(c) for the first column of each piece of a group that is this thread's.
template <typename Members, typename Visit>
__device__ void for_pieces(const Members& members, int64_t width, int each, Visit visit) {
  for (int64_t c = members.rank() * each; c < width; c += members.size * each) visit(c);
}

template <typename X, typename Weight>
struct RmsNorm {
  static constexpr int kEach = X::kEach;
  X x, y;
  Weight weight;
  int64_t width, weights;  // columns of a group, rows of weight
  float eps;

  template <typename Members>
  __device__ void operator()(const Members& members, int64_t r, int64_t group) const {
    const int64_t first = group * width, weight_row = group % weights;
    float in[kEach], scales[kEach], sum = 0;
    for_pieces(members, width, kEach, [&](int64_t c) {
      x.get(r, first + c, in);
#pragma unroll
      for (int i = 0; i < kEach; ++i) sum += in[i] * in[i];
    });
    const float factor = 1 / sqrtf(members.sum(sum) / static_cast<float>(width) + eps);
    for_pieces(members, width, kEach, [&](int64_t c) {
      x.get(r, first + c, in);
      weight.get(weight_row, c, scales);
#pragma unroll
      for (int i = 0; i < kEach; ++i) in[i] = in[i] * factor * scales[i];
      y.set(r, first + c, in);
    });
  }
};

// The rounded mean is corrected by the mean of the residuals, so that large means cost no accuracy.
template <typename X, typename Weight>
struct LayerNorm {
  static constexpr int kEach = X::kEach;
  X x, y;
  Weight weight, bias;
  bool has_bias;
  int64_t width, weights;
  float eps;

  template <typename Members>
  __device__ void operator()(const Members& members, int64_t r, int64_t group) const {
    const int64_t first = group * width, weight_row = group % weights;
    const auto count = static_cast<float>(width);
    float in[kEach], scales[kEach], shifts[kEach] = {}, sum = 0, left = 0, squares = 0;
    for_pieces(members, width, kEach, [&](int64_t c) {
      x.get(r, first + c, in);
#pragma unroll
      for (int i = 0; i < kEach; ++i) sum += in[i];
    });
    const float mean = members.sum(sum) / count;
    for_pieces(members, width, kEach, [&](int64_t c) {
      x.get(r, first + c, in);
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        left += in[i] - mean;
        squares += (in[i] - mean) * (in[i] - mean);
      }
    });
    const float correction = members.sum(left) / count;
    const float variance = members.sum(squares) / count - correction * correction;
    const float factor = 1 / sqrtf((variance < 0 ? 0 : variance) + eps);  // NaN stays
    for_pieces(members, width, kEach, [&](int64_t c) {
      x.get(r, first + c, in);
      weight.get(weight_row, c, scales);
      if (has_bias) bias.get(weight_row, c, shifts);
#pragma unroll
      for (int i = 0; i < kEach; ++i) in[i] = (in[i] - mean - correction) * factor * scales[i] + shifts[i];
      y.set(r, first + c, in);
    });
  }
};

template <typename Body>
__global__ void by_blocks(Body body) {
  body(Block{}, static_cast<int64_t>(blockIdx.x), static_cast<int64_t>(blockIdx.y));
}
template <typename Body>
__global__ void by_lanes(int64_t rows, int64_t groups, int lanes, Body body) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * (kThreads / lanes) + static_cast<int>(threadIdx.x) / lanes;
  if (i < rows * groups) body(Lanes{lanes}, i / groups, i % groups);
}

template <typename Body>
void launch_groups(int64_t rows, int64_t groups, int64_t width, cudaStream_t stream, const Body& body) {
  if (width > kMostOfLanes) {
    const dim3 blocks(static_cast<unsigned>(rows), static_cast<unsigned>(groups));
    return by_blocks<<<blocks, kThreads, 0, stream>>>(body);
  }
  int lanes = 1;
  while (lanes < 32 && lanes * Body::kEach < width) lanes *= 2;
  const int64_t each = kThreads / lanes;
  by_lanes<<<static_cast<unsigned>((rows * groups + each - 1) / each), kThreads, 0, stream>>>(rows, groups, lanes,
                                                                                              body);
}

// Calls body(x, y, weight, bias) with the fastest readers that these matrices allow.
template <typename Body>
void with_readers(ConstMatrixView x, ConstMatrixView weight, ConstMatrixView bias, MatrixView y, Body body) {
  if (bias.empty()) bias = weight;  // the same type of reader, which is not used
  if (!in_packs({x, y}) || !in_packs({weight, bias}) || (weight.dtype != x.dtype && weight.dtype != DType::f32))
    return body(Singles(x), Singles(y), Singles(weight), Singles(bias));
  with_element(x.dtype, [&](auto element) {
    using T = decltype(element);
    if (weight.dtype == x.dtype) return body(Packs<T>(x), Packs<T>(y), Packs<T>(weight), Packs<T>(bias));
    body(Packs<T>(x), Packs<T>(y), Packs<float>(weight), Packs<float>(bias));
  });
}

void rms_norm(Gpu& gpu, const ops::RmsNorm& op) {
  if (op.x.empty()) return;
  const int64_t width = op.weight.cols;
  with_readers(op.x, op.weight, {}, op.y, [&](auto from, auto to, auto scales, auto) {
    using Norm = RmsNorm<decltype(from), decltype(scales)>;
    launch_groups(op.x.rows, op.x.cols / width, width, gpu.stream(),
                  Norm{from, to, scales, width, op.weight.rows, op.eps});
  });
}

void layer_norm(Gpu& gpu, const ops::LayerNorm& op) {
  if (op.x.empty()) return;
  const int64_t width = op.weight.cols;
  with_readers(op.x, op.weight, op.bias, op.y, [&](auto from, auto to, auto scales, auto shifts) {
    using Norm = LayerNorm<decltype(from), decltype(scales)>;
    launch_groups(op.x.rows, op.x.cols / width, width, gpu.stream(),
                  Norm{from, to, scales, shifts, !op.bias.empty(), width, op.weight.rows, op.eps});
  });
}

}  // namespace

void add_norm_ops(GpuOps& table) {
  table.add<rms_norm>();
  table.add<layer_norm>();
}

}  // namespace gptq::cuda
