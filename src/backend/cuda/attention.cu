// Causal attention without a score matrix in memory: the softmax is computed as the keys stream by (FlashAttention-2,
// arXiv 2307.08691).
#include <algorithm>
#include <cstdint>

#include "backend/cuda/device_math.cuh"
#include "backend/cuda/kernels.h"

namespace gptq::cuda {
namespace {

constexpr float kLog2E = 1.4426950408889634F;

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

  // Of the block's head and sequence.
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

// ------------------------------------------------------------------------------------------------- tensor cores
// One block computes 128 queries of one head; each of its 8 warps 16 of them. Queries wait in registers as fragments;
// tiles of keys and values pass through shared memory, the next one copied while this one is used. Rows there are 16
// bytes longer than the head, so that ldmatrix meets no bank twice. Probabilities are rounded to the inputs' dtype for
// the second product; row sums keep them in f32. Limited by tensor cores and the shared memory that feeds them.
constexpr int kWarps = 8;
constexpr int kQueries = 16 * kWarps;
constexpr int kBlockThreads = 32 * kWarps;

template <int kDim>
struct Tiles {
  static constexpr int kKeys = kDim > 128 ? 32 : 64;
  static constexpr int kRow = kDim + 8;  // elements from row to row
  static constexpr int kTile = kKeys * kRow;
  static constexpr size_t kBytes = sizeof(uint16_t) * std::max(4 * kTile, kQueries* kRow);
};

__device__ inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

__device__ inline void load_matrices(uint32_t (&fragment)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
               : "r"(shared_address(row)));
}
__device__ inline void load_matrices_transposed(uint32_t (&fragment)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
               : "r"(shared_address(row)));
}

// sums [16, 8] += a [16, 16] b [16, 8]
template <typename T>
__device__ inline void multiply_add(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
template <>
__device__ inline void multiply_add<__nv_bfloat16>(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};\n"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ inline void multiply_add<__half>(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};\n"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two values as a register of a fragment, the first in the low half.
__device__ inline uint32_t packed(float low, float high, __nv_bfloat16) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
__device__ inline uint32_t packed(float low, float high, __half) {
  const __half2 pair = __floats2half2_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// Starts the copy of rows [first, first + rows) of a head to shared memory; rows from `end` on and columns beyond the
// head become zeros. kWide: 16 bytes at a time, asynchronously.
template <typename T, int kDim, bool kWide>
__device__ inline void copy_rows(T* to, const Head<const T>& from, int first, int rows, int end, int head_dim) {
  if constexpr (kWide) {
    constexpr int kEach = 8, kPieces = kDim / kEach;
    for (int i = threadIdx.x; i < rows * kPieces; i += kBlockThreads) {
      const int r = i / kPieces, c = i % kPieces * kEach;
      const bool there = first + r < end && c < head_dim;
      const T* source = there ? from.row(first + r) + c : from.data;
      asm volatile(
          "cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(to + r * Tiles<kDim>::kRow + c)),
          "l"(source), "r"(there ? 16 : 0));
    }
  } else {
    for (int i = threadIdx.x; i < rows * kDim; i += kBlockThreads) {
      const int r = i / kDim, c = i % kDim;
      to[r * Tiles<kDim>::kRow + c] = first + r < end && c < head_dim ? from.row(first + r)[c] : T(0.0F);
    }
  }
}
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;\n"); }
template <int kPending>
__device__ inline void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kPending));
}

template <typename T, int kDim, bool kWide>
__global__ void __launch_bounds__(kBlockThreads, 1) attention_kernel(Arguments<T> a) {
  using Tile = Tiles<kDim>;
  constexpr int kKeys = Tile::kKeys, kRow = Tile::kRow;
  extern __shared__ uint4 memory[];
  T* const shared = reinterpret_cast<T*>(memory);

  const int64_t start = a.offsets[blockIdx.z];
  const int length = static_cast<int>(a.offsets[blockIdx.z + 1] - start);
  // The last queries have the most keys: they go first.
  const int first_query = (static_cast<int>(gridDim.x) - 1 - static_cast<int>(blockIdx.x)) * kQueries;
  if (first_query >= length) return;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const Head<const T> keys = a.keys(start), values = a.values(start);

  // Queries become fragments; their place is that of the tiles afterwards.
  uint32_t query[kDim / 16][4];
  copy_rows<T, kDim, kWide>(shared, a.queries(start), first_query, kQueries, length, a.head_dim);
  commit_copies();
  wait_for_copies<0>();
  __syncthreads();
#pragma unroll
  for (int d = 0; d < kDim / 16; ++d)
    load_matrices(query[d], shared + (warp * 16 + lane % 16) * kRow + d * 16 + lane / 16 * 8);
  __syncthreads();

  const int tiles = (min(first_query + kQueries, length) + kKeys - 1) / kKeys;
  const auto fetch = [&](int tile) {
    T* const to = shared + tile % 2 * 2 * Tile::kTile;
    copy_rows<T, kDim, kWide>(to, keys, tile * kKeys, kKeys, length, a.head_dim);
    copy_rows<T, kDim, kWide>(to + Tile::kTile, values, tile * kKeys, kKeys, length, a.head_dim);
    commit_copies();
  };

  // A thread has columns (lane % 4) * 2 and + 1 of each 8, of the rows lane / 4 and lane / 4 + 8 of the warp's 16.
  float result[kDim / 8][4] = {};
  float top[2] = {-INFINITY, -INFINITY}, sum[2] = {};
  const int row = first_query + warp * 16 + lane / 4;

  fetch(0);
  for (int tile = 0; tile < tiles; ++tile) {
    if (tile + 1 < tiles) {
      fetch(tile + 1);
      wait_for_copies<1>();
    } else {
      wait_for_copies<0>();
    }
    __syncthreads();
    const T* const key_tile = shared + tile % 2 * 2 * Tile::kTile;
    const T* const value_tile = key_tile + Tile::kTile;

    float score[kKeys / 8][4] = {};
#pragma unroll
    for (int d = 0; d < kDim / 16; ++d) {
#pragma unroll
      for (int n = 0; n < kKeys / 16; ++n) {
        uint32_t key[4];
        load_matrices(key, key_tile + (n * 16 + lane % 8 + lane / 16 * 8) * kRow + d * 16 + lane / 8 % 2 * 8);
        multiply_add<T>(score[2 * n], query[d], key[0], key[1]);
        multiply_add<T>(score[2 * n + 1], query[d], key[2], key[3]);
      }
    }

    const int first_key = tile * kKeys;
    const bool whole = first_key + kKeys <= first_query + warp * 16 + 1 && first_key + kKeys <= length;
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int column = first_key + n * 8 + lane % 4 * 2 + i % 2;
        const bool seen = whole || (column <= row + i / 2 * 8 && column < length);
        score[n][i] = seen ? score[n][i] * a.scale : -INFINITY;
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float highest = top[half];
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) highest = fmaxf(highest, fmaxf(score[n][2 * half], score[n][2 * half + 1]));
      highest = fmaxf(highest, __shfl_xor_sync(0xffffffffU, highest, 1));
      highest = fmaxf(highest, __shfl_xor_sync(0xffffffffU, highest, 2));
      // Key 0 is seen by every row, so from the first tile on `highest` is finite.
      const float shrink = exp2f(top[half] - highest);
      top[half] = highest;
      sum[half] *= shrink;
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          score[n][i] = exp2f(score[n][i] - highest);
          sum[half] += score[n][i];
        }
      }
#pragma unroll
      for (int d = 0; d < kDim / 8; ++d) {
        result[d][2 * half] *= shrink;
        result[d][2 * half + 1] *= shrink;
      }
    }

#pragma unroll
    for (int n = 0; n < kKeys / 16; ++n) {
      const uint32_t probability[4] = {
          packed(score[2 * n][0], score[2 * n][1], T()), packed(score[2 * n][2], score[2 * n][3], T()),
          packed(score[2 * n + 1][0], score[2 * n + 1][1], T()), packed(score[2 * n + 1][2], score[2 * n + 1][3], T())};
#pragma unroll
      for (int d = 0; d < kDim / 16; ++d) {
        uint32_t value[4];
        load_matrices_transposed(value, value_tile + (n * 16 + lane % 16) * kRow + d * 16 + lane / 16 * 8);
        multiply_add<T>(result[2 * d], probability, value[0], value[1]);
        multiply_add<T>(result[2 * d + 1], probability, value[2], value[3]);
      }
    }
    __syncthreads();
  }

  const Head<T> results = a.results(start);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float total = sum[half];
    total += __shfl_xor_sync(0xffffffffU, total, 1);
    total += __shfl_xor_sync(0xffffffffU, total, 2);
    const int query_row = row + half * 8;
    if (query_row >= length) continue;
    T* const to = results.row(query_row);
#pragma unroll
    for (int d = 0; d < kDim / 8; ++d) {
      const int column = d * 8 + lane % 4 * 2;
      const float x = result[d][2 * half] / total, y = result[d][2 * half + 1] / total;
      if (kWide) {
        if (column < a.head_dim) *reinterpret_cast<uint32_t*>(to + column) = packed(x, y, T());
      } else {
        if (column < a.head_dim) store(to + column, x);
        if (column + 1 < a.head_dim) store(to + column + 1, y);
      }
    }
  }
}

template <typename T, int kDim>
void launch(const Arguments<T>& arguments, bool wide, dim3 blocks, cudaStream_t stream) {
  const auto kernel = wide ? attention_kernel<T, kDim, true> : attention_kernel<T, kDim, false>;
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(Tiles<kDim>::kBytes));
  kernel<<<blocks, kBlockThreads, Tiles<kDim>::kBytes, stream>>>(arguments);
}

// ---------------------------------------------------------------------------------------------------------- f32
// A block computes 32 queries of one head, each of its 8 warps 4 of them. For scores a lane is a key, for results it is
// every 32nd column. Limited by f32 arithmetic and shared memory.
constexpr int kWideQueries = 32, kWideKeys = 32, kPerWarp = kWideQueries / kWarps, kMostColumns32 = 8;

__global__ void __launch_bounds__(kBlockThreads) attention_f32_kernel(Arguments<float> a) {
  extern __shared__ float wide[];
  const int dim = a.head_dim, stride = dim | 1;  // odd: lanes reading down a column meet different banks
  float *const queries = wide, *const keys = queries + kWideQueries * stride, *const values = keys + kWideKeys * stride;
  const int64_t start = a.offsets[blockIdx.z];
  const int length = static_cast<int>(a.offsets[blockIdx.z + 1] - start);
  const int first_query = (static_cast<int>(gridDim.x) - 1 - static_cast<int>(blockIdx.x)) * kWideQueries;
  if (first_query >= length) return;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const auto load = [&](float* to, const Head<const float>& from, int first) {
    for (int i = threadIdx.x; i < 32 * dim; i += kBlockThreads) {
      const int r = i / dim, c = i % dim;
      to[r * stride + c] = first + r < length ? from.row(first + r)[c] : 0.0F;
    }
  };
  load(queries, a.queries(start), first_query);

  float result[kPerWarp][kMostColumns32] = {};
  float top[kPerWarp], sum[kPerWarp] = {};
  for (int i = 0; i < kPerWarp; ++i) top[i] = -INFINITY;
  const int last = min(first_query + kWideQueries, length);
  for (int first_key = 0; first_key < last; first_key += kWideKeys) {
    __syncthreads();
    load(keys, a.keys(start), first_key);
    load(values, a.values(start), first_key);
    __syncthreads();
    float score[kPerWarp] = {};
    for (int c = 0; c < dim; ++c) {
      const float key = keys[lane * stride + c];
#pragma unroll
      for (int i = 0; i < kPerWarp; ++i) score[i] = fmaf(queries[(warp * kPerWarp + i) * stride + c], key, score[i]);
    }
#pragma unroll
    for (int i = 0; i < kPerWarp; ++i) {
      const int query = first_query + warp * kPerWarp + i, key = first_key + lane;
      const float scaled = key <= query && key < length ? score[i] * a.scale : -INFINITY;
      const float highest = fmaxf(top[i], warp_max(scaled));
      const float probability = exp2f(scaled - highest), shrink = exp2f(top[i] - highest);
      top[i] = highest;
      sum[i] = sum[i] * shrink + warp_sum(probability);
#pragma unroll
      for (int c = 0; c < kMostColumns32; ++c) result[i][c] *= shrink;
      for (int j = 0; j < kWideKeys; ++j) {
        const float p = __shfl_sync(0xffffffffU, probability, j);
#pragma unroll
        for (int c = 0; c < kMostColumns32; ++c) {
          const int column = c * 32 + lane;
          if (column < dim) result[i][c] = fmaf(p, values[j * stride + column], result[i][c]);
        }
      }
    }
  }
  const Head<float> results = a.results(start);
#pragma unroll
  for (int i = 0; i < kPerWarp; ++i) {
    const int query = first_query + warp * kPerWarp + i;
    if (query >= length) continue;
#pragma unroll
    for (int c = 0; c < kMostColumns32; ++c) {
      const int column = c * 32 + lane;
      if (column < dim) results.row(query)[column] = result[i][c] / sum[i];
    }
  }
}

unsigned pieces(int64_t length, int each) { return static_cast<unsigned>((length + each - 1) / each); }

bool is_wide(ConstMatrixView m) { return reinterpret_cast<uintptr_t>(m.data) % 16 == 0 && m.stride % 8 == 0; }

}  // namespace

void attention(ConstMatrixView q, ConstMatrixView k, ConstMatrixView v, const int64_t* offsets, int64_t sequences,
               int64_t longest, const AttentionShape& shape, MatrixView y, cudaStream_t stream) {
  if (y.empty() || longest == 0) return;
  with_element(q.dtype, [&](auto element) {
    using T = decltype(element);
    const Arguments<T> arguments = {.q = static_cast<const T*>(q.data),
                                    .k = static_cast<const T*>(k.data),
                                    .v = static_cast<const T*>(v.data),
                                    .y = static_cast<T*>(y.data),
                                    .q_stride = q.stride,
                                    .k_stride = k.stride,
                                    .v_stride = v.stride,
                                    .y_stride = y.stride,
                                    .offsets = offsets,
                                    .head_dim = static_cast<int>(shape.head_dim),
                                    .heads_per_kv = static_cast<int>(shape.heads / shape.kv_heads),
                                    .scale = shape.scale * kLog2E};
    const auto heads = static_cast<unsigned>(shape.heads), each = static_cast<unsigned>(sequences);
    if constexpr (std::is_same_v<T, float>) {
      const size_t bytes = sizeof(float) * static_cast<size_t>(3 * 32 * (shape.head_dim | 1));
      cudaFuncSetAttribute(attention_f32_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
      attention_f32_kernel<<<dim3(pieces(longest, kWideQueries), heads, each), kBlockThreads, bytes, stream>>>(
          arguments);
    } else {
      const bool wide = shape.head_dim % 8 == 0 && is_wide(q) && is_wide(k) && is_wide(v) && is_wide(y);
      const dim3 blocks(pieces(longest, kQueries), heads, each);
      const int64_t dim = shape.head_dim;
      if (dim <= 32) return launch<T, 32>(arguments, wide, blocks, stream);
      if (dim <= 64) return launch<T, 64>(arguments, wide, blocks, stream);
      if (dim <= 96) return launch<T, 96>(arguments, wide, blocks, stream);
      if (dim <= 128) return launch<T, 128>(arguments, wide, blocks, stream);
      if (dim <= 192) return launch<T, 192>(arguments, wide, blocks, stream);
      launch<T, 256>(arguments, wide, blocks, stream);
    }
  });
}

}  // namespace gptq::cuda
