// Attention in f32, and for heads that are too long for tensor cores.
#include "backend/cuda/attention.cuh"

namespace gptq::cuda {
namespace {

// A block computes 32 queries of one head, 4 per warp. For scores a lane has one key, for results every 32nd column.
// Rows in shared memory are padded with zeros to an odd number of quads, so that lanes reading one quad each of their
// rows have no bank conflicts. Limited by f32 arithmetic and shared memory. Heads of more than 256 elements, of any
// dtype, are computed in the same way, but 8 queries at a time, and keys and values share one buffer in shared memory.
constexpr int kWarps = 8, kWideThreads = 32 * kWarps, kWideKeys = 32;

template <bool kLongHeads>
struct WideTiles {
  static constexpr int kPerWarp = kLongHeads ? 1 : 4, kQueries = kWarps * kPerWarp;
  static constexpr int kMostPerLane = kLongHeads ? 16 : kShortHead / 32;     // columns
  static constexpr int kRows = kQueries + (kLongHeads ? 1 : 2) * kWideKeys;  // of shared memory
};

int64_t quads_of_row(int64_t head_dim) { return (head_dim + 3) / 4 | 1; }

template <typename T, bool kLongHeads, bool kModified>
__global__ void __launch_bounds__(kWideThreads, 2) attention_f32_kernel(Arguments<T> a, int row_quads) {
  using Tile = WideTiles<kLongHeads>;
  constexpr int kPerWarp = Tile::kPerWarp, kMostPerLane = Tile::kMostPerLane;
  extern __shared__ float4 quads[];
  const int dim = a.head_dim, used_quads = (dim + 3) / 4;
  float4 *const queries = quads, *const keys = queries + Tile::kQueries * row_quads,
                *const values = keys + (kLongHeads ? 0 : kWideKeys * row_quads);
  const int64_t start = a.offsets[blockIdx.z];
  const int length = static_cast<int>(a.offsets[blockIdx.z + 1] - start);
  const int first_query = (static_cast<int>(gridDim.x) - 1 - static_cast<int>(blockIdx.x)) * Tile::kQueries;
  if (first_query >= length) return;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const auto load = [&](float4* to, const Head<const T>& from, int first, int rows) {
    for (int r = warp; r < rows; r += kWarps) {
      float* const row = reinterpret_cast<float*>(to + r * row_quads);
      for (int c = lane; c < used_quads * 4; c += 32)
        row[c] = first + r < length && c < dim ? widened(from.row(first + r)[c]) : 0.0F;
    }
  };
  load(queries, a.queries(start), first_query, Tile::kQueries);
  const float4* const query_rows = queries + warp * kPerWarp * row_quads;

  float result[kPerWarp][kMostPerLane] = {};
  float top[kPerWarp], sum[kPerWarp] = {};
#pragma unroll
  for (int i = 0; i < kPerWarp; ++i) top[i] = -INFINITY;
  const int all_keys = min(first_query + Tile::kQueries, length);
  const int first_tile = kModified ? a.first_seen(first_query) / kWideKeys * kWideKeys : 0;
  const float slope = kModified ? a.slope() : 0;
  for (int first_key = first_tile; first_key < all_keys; first_key += kWideKeys) {
    __syncthreads();
    load(keys, a.keys(start), first_key, kWideKeys);
    if (!kLongHeads) load(values, a.values(start), first_key, kWideKeys);
    __syncthreads();

    float score[kPerWarp] = {};
    for (int c = 0; c < used_quads; ++c) {
      const float4 key = keys[lane * row_quads + c];
#pragma unroll
      for (int i = 0; i < kPerWarp; ++i) {
        const float4 query = query_rows[i * row_quads + c];
        score[i] = fmaf(query.x, key.x, score[i]);
        score[i] = fmaf(query.y, key.y, score[i]);
        score[i] = fmaf(query.z, key.z, score[i]);
        score[i] = fmaf(query.w, key.w, score[i]);
      }
    }

    if (kLongHeads) {
      __syncthreads();
      load(values, a.values(start), first_key, kWideKeys);
      __syncthreads();
    }

    float probability[kPerWarp];
#pragma unroll
    for (int i = 0; i < kPerWarp; ++i) {
      const int query = first_query + warp * kPerWarp + i, key = first_key + lane;
      const bool seen = key <= query && (!kModified || key >= a.first_seen(query));
      float scaled = score[i] * a.scale;
      if constexpr (kModified) {
        if (a.soft_cap > 0) scaled = a.soft_cap * tanhf(score[i] * a.soft_cap_scale);
        scaled = fmaf(slope, static_cast<float>(key - query), scaled);
      }
      if (!seen) scaled = -INFINITY;
      const float highest = fmaxf(top[i], warp_max(scaled));
      // With modified scores a row may have seen no key so far: any finite base will do.
      const float base = kModified && highest == -INFINITY ? 0 : highest;
      const float shrink = exp2f(top[i] - base);
      probability[i] = exp2f(scaled - base);
      top[i] = highest;
      sum[i] = sum[i] * shrink + warp_sum(probability[i]);
#pragma unroll
      for (int c = 0; c < kMostPerLane; ++c) result[i][c] *= shrink;
    }

    for (int j = 0; j < kWideKeys; ++j) {
      const float* const row = reinterpret_cast<const float*>(values + j * row_quads);
      float share[kPerWarp];
#pragma unroll
      for (int i = 0; i < kPerWarp; ++i) share[i] = __shfl_sync(0xffffffffU, probability[i], j);
#pragma unroll
      for (int c = 0; c < kMostPerLane; ++c) {
        if (c * 32 >= dim) break;
        const float value = c * 32 + lane < dim ? row[c * 32 + lane] : 0.0F;
#pragma unroll
        for (int i = 0; i < kPerWarp; ++i) result[i][c] = fmaf(share[i], value, result[i][c]);
      }
    }
  }

  const Head<T> results = a.results(start);
  const float sink = kModified ? a.sink() : 0;
#pragma unroll
  for (int i = 0; i < kPerWarp; ++i) {
    const int query = first_query + warp * kPerWarp + i;
    if (query >= length) continue;
    if constexpr (kModified) sum[i] = 1 / share_with_sink(sink, top[i], sum[i]);
#pragma unroll
    for (int c = 0; c < kMostPerLane; ++c) {
      const int column = c * 32 + lane;
      if (column < dim) store(results.row(query) + column, result[i][c] / sum[i]);
    }
  }
}

template <bool kLongHeads, typename T>
void launch_f32(const Arguments<T>& arguments, bool modified, dim3 blocks, cudaStream_t stream) {
  const int64_t row_quads = quads_of_row(arguments.head_dim);
  const auto bytes = static_cast<int>(sizeof(float4)) * WideTiles<kLongHeads>::kRows * static_cast<int>(row_quads);
  const auto kernel = modified ? attention_f32_kernel<T, kLongHeads, true> : attention_f32_kernel<T, kLongHeads, false>;
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  kernel<<<blocks, kWideThreads, static_cast<size_t>(bytes), stream>>>(arguments, static_cast<int>(row_quads));
}

}  // namespace

void launch_short_heads(const Arguments<float>& arguments, bool modified, dim3 blocks, cudaStream_t stream) {
  static_assert(WideTiles<false>::kQueries == kWideQueries && WideTiles<true>::kQueries == kLongHeadQueries);
  launch_f32<false>(arguments, modified, blocks, stream);
}

template <typename T>
void launch_long_heads(const Arguments<T>& arguments, bool modified, dim3 blocks, cudaStream_t stream) {
  launch_f32<true>(arguments, modified, blocks, stream);
}

template void launch_long_heads(const Arguments<float>& arguments, bool modified, dim3 blocks, cudaStream_t stream);
template void launch_long_heads(const Arguments<__half>& arguments, bool modified, dim3 blocks, cudaStream_t stream);
template void launch_long_heads(const Arguments<__nv_bfloat16>& arguments, bool modified, dim3 blocks,
                                cudaStream_t stream);

}  // namespace gptq::cuda
