// Causal attention without a score matrix in memory: the softmax is computed while the keys stream by
// (FlashAttention-2, arXiv 2307.08691). Each kernel exists twice: for plain scores, and for those that AttentionShape
// modifies.
//
// attention.cu chooses the kernel, attention_head.cu has those for tensor cores and is compiled once for each length of
// heads, attention_f32.cu those for f32 and for long heads.
#pragma once

#include <cstdint>

#include "backend/cuda/device_math.cuh"

namespace gptq::cuda {

constexpr int kAllKeys = 1 << 30;

template <typename T>
struct Head {
  T* data;
  int64_t stride;
  __device__ T* row(int64_t r) const { return data + r * stride; }
};

template <typename T>
struct Arguments {
  const T *q, *k, *v;
  T* y;
  int64_t q_stride, k_stride, v_stride, y_stride;
  const int64_t* offsets;
  int head_dim, heads_per_kv;
  float scale;  // of the scores, times log2(e)
  // Score modifiers.
  float soft_cap;               // times log2(e); 0: none
  float soft_cap_scale;         // scale / soft_cap
  int window, chunk;            // kAllKeys: no bound
  const float *slopes, *sinks;  // null: none

  // The first key that a query sees.
  __device__ int first_seen(int query) const { return max(query - window + 1, query / chunk * chunk); }
  // For the block's head, times log2(e).
  __device__ float slope() const { return slopes == nullptr ? 0 : slopes[blockIdx.y] * kLog2E; }
  __device__ float sink() const { return sinks == nullptr ? -INFINITY : sinks[blockIdx.y] * kLog2E; }

  // Rows of the block's head and sequence.
  __device__ Head<const T> queries(int64_t start) const {
    return {q + start * q_stride + static_cast<int64_t>(blockIdx.y) * head_dim, q_stride};
  }
  __device__ Head<const T> keys(int64_t start) const {
    return {k + start * k_stride + static_cast<int64_t>(blockIdx.y / heads_per_kv) * head_dim, k_stride};
  }
  __device__ Head<const T> values(int64_t start) const {
    return {v + start * v_stride + static_cast<int64_t>(blockIdx.y / heads_per_kv) * head_dim, v_stride};
  }
  __device__ Head<T> results(int64_t start) const {
    return {y + start * y_stride + static_cast<int64_t>(blockIdx.y) * head_dim, y_stride};
  }
};

// The factor from a row's sums to results, where `sink` joins the scores, the highest of which is `top`.
__device__ inline float share_with_sink(float sink, float top, float total) {
  const float highest = fmaxf(top, sink), shrink = exp2f(top - highest);
  return shrink / (total * shrink + exp2f(sink - highest));
}

// Queries of a block, with tensor cores, and the longest head that they take.
constexpr int kQueries = 128;
constexpr int kShortHead = 256;
// Queries of a block in f32, of short and of long heads.
constexpr int kWideQueries = 32, kLongHeadQueries = 8;

// For heads of up to kDim elements of 2 bytes. `wide`: rows can be read 16 bytes at a time.
template <typename T, int kDim>
void launch_attention(const Arguments<T>& arguments, bool wide, bool modified, dim3 blocks, cudaStream_t stream);

// In f32: for heads of up to kShortHead elements, which must be f32, and for longer ones of any dtype.
void launch_short_heads(const Arguments<float>& arguments, bool modified, dim3 blocks, cudaStream_t stream);
template <typename T>
void launch_long_heads(const Arguments<T>& arguments, bool modified, dim3 blocks, cudaStream_t stream);

}  // namespace gptq::cuda
