// Rotary position embeddings: a thread rotates one pair, or eight. Limited by memory bandwidth.
#include <cstdint>

#include "backend/cuda/gpu.h"
#include "backend/cuda/rows.cuh"
#include "ops/rope.h"

namespace gptq::cuda {
namespace {

// The elements of pair i of a head: `pairs` apart, or neighbours.
template <RotaryOrder kOrder>
__device__ int64_t first_of(int64_t i) {
  return kOrder == RotaryOrder::halves ? i : 2 * i;
}
template <RotaryOrder kOrder>
__device__ int64_t second_of(int64_t i, int64_t pairs) {
  return kOrder == RotaryOrder::halves ? i + pairs : 2 * i + 1;
}

// A thread rotates one pair; (r, c) counts a row's pairs over all its heads.
template <RotaryOrder kOrder>
struct Rope {
  AnyRows x;
  Rows<const float> cosines, sines;
  const int64_t* offsets;
  int64_t sequences, head_dim, pairs;
  __device__ void operator()(int64_t r, int64_t c) const {
    const int64_t position = position_of(r, offsets, sequences), head = c / pairs, i = c - head * pairs;
    const int64_t first = head * head_dim + first_of<kOrder>(i), second = head * head_dim + second_of<kOrder>(i, pairs);
    const float a = x.get(r, first), b = x.get(r, second);
    const float cosine = cosines.row(position)[i], sine = sines.row(position)[i];
    x.set(r, first, a * cosine - b * sine);
    x.set(r, second, b * cosine + a * sine);
  }
};

// The same for eight neighbouring pairs, which are two packs: their first halves and their second ones, or four pairs
// and four more.
template <typename T, RotaryOrder kOrder>
struct RopeWide {
  Rows<T> x;
  Rows<const float> cosines, sines;
  const int64_t* offsets;
  int64_t sequences, head_dim, pairs;
  __device__ void operator()(int64_t r, int64_t c) const {
    const int64_t position = position_of(r, offsets, sequences), head = c / pairs, i = c - head * pairs;
    T* const first = x.row(r) + head * head_dim + first_of<kOrder>(i);
    T* const second = first + (kOrder == RotaryOrder::halves ? pairs : kWide);
    Pack<T> pack[2] = {load_pack(first), load_pack(second)};
    const Pack<float> cosine = load_pack(cosines.row(position) + i), sine = load_pack(sines.row(position) + i);
#pragma unroll
    for (int k = 0; k < kWide; ++k) {
      constexpr bool kHalves = kOrder == RotaryOrder::halves;
      T& a = kHalves ? pack[0].values[k] : pack[k / 4].values[k % 4 * 2];
      T& b = kHalves ? pack[1].values[k] : pack[k / 4].values[k % 4 * 2 + 1];
      const float u = widened(a), v = widened(b);
      store(&a, u * cosine.values[k] - v * sine.values[k]);
      store(&b, v * cosine.values[k] + u * sine.values[k]);
    }
    store_pack(first, pack[0]);
    store_pack(second, pack[1]);
  }
};

template <RotaryOrder kOrder>
void rope_in(ConstMatrixView cos, ConstMatrixView sin, const int64_t* offsets, int64_t sequences, int64_t head_dim,
             MatrixView x, cudaStream_t stream) {
  const int64_t all_pairs = x.cols / head_dim * cos.cols;
  const Rows<const float> cosines = rows_of<float>(cos), sines = rows_of<float>(sin);
  if (!in_packs({x}) || !in_packs({cos, sin}) || head_dim % kWide != 0) {
    return launch_places(x.rows, all_pairs, 1, stream,
                         Rope<kOrder>{any_rows(x), cosines, sines, offsets, sequences, head_dim, cos.cols});
  }
  with_element(x.dtype, [&](auto element) {
    using T = decltype(element);
    launch_places(x.rows, all_pairs, kWide, stream,
                  RopeWide<T, kOrder>{rows_of<T>(x), cosines, sines, offsets, sequences, head_dim, cos.cols});
  });
}

void rope(Gpu& gpu, const ops::Rope& op) {
  const Matrix device_offsets = gpu.on_device(op.offsets);
  const auto* offsets = static_cast<const int64_t*>(device_offsets.view().data);
  const auto sequences = static_cast<int64_t>(op.offsets.size()) - 1;
  const auto rotate =
      op.order == RotaryOrder::halves ? rope_in<RotaryOrder::halves> : rope_in<RotaryOrder::interleaved>;
  rotate(op.cos, op.sin, offsets, sequences, op.head_dim, op.x, gpu.stream());
}

}  // namespace

void add_rope_ops(GpuOps& table) { table.add<rope>(); }

}  // namespace gptq::cuda
