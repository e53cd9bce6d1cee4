// Attention by tensor cores for one length of heads, GPTQ_HEAD_DIM.
#include "backend/cuda/attention.cuh"
#include "backend/cuda/tensor_cores.cuh"

namespace gptq::cuda {
namespace {

// One block computes 128 queries of one head. A warp has 32 of them, or 16 where heads are long: more queries mean more
// products per read of shared memory, which holds one tile of keys and one of values. Values are copied while scores
// are computed, the next keys while results are. Rows are padded by 16 bytes, so that ldmatrix has no bank conflicts.
// Probabilities are rounded to the inputs' dtype for the second product; row sums keep them in f32. Limited by tensor
// cores and, with 16 queries per warp, by shared memory.
template <int kDim>
struct Tiles {
  static constexpr int kFragments = kDim > 128 ? 1 : 2;  // of 16 queries, in a warp
  static constexpr int kThreads = kQueries / (16 * kFragments) * 32;
  static constexpr int kBlocks = kDim > 128 ? 1 : 2;  // on a multiprocessor, limited by registers
  static constexpr int kKeys = kDim > 160 ? 32 : 64;
  static constexpr int kRow = kDim + 8;  // elements from row to row
  static constexpr int kTile = kKeys * kRow;
  static constexpr size_t kBytes = sizeof(uint16_t) * (kQueries * kRow + 2 * kTile);
};

// tanh(x), wrong by at most 2^-22.
__device__ inline float fast_tanh(float x) { return 1 - __fdividef(2, 1 + power_of_two(2 * kLog2E * x)); }

// Starts the copy of rows [first, first + kRows) of a head to shared memory; rows from `end` on and columns beyond the
// head become zeros. kWide: 16 bytes at a time, asynchronously.
template <typename T, int kDim, int kRows, bool kWide>
__device__ inline void copy_rows(T* to, const Head<const T>& from, int first, int end, int head_dim) {
  constexpr int kLanes = kWide ? 8 : 32, kEach = kWide ? 8 : 1;  // lanes side by side in a row, elements of each
  constexpr int kStep = Tiles<kDim>::kThreads / kLanes;
  const int column = static_cast<int>(threadIdx.x) % kLanes * kEach;
  const int r = static_cast<int>(threadIdx.x) / kLanes;
  const T* source = from.row(first + r) + column;
  T* place = to + r * Tiles<kDim>::kRow + column;
#pragma unroll
  for (int i = 0; i < kRows; i += kStep) {
#pragma unroll
    for (int c = 0; c < kDim; c += kLanes * kEach) {
      if (kDim % (kLanes * kEach) != 0 && column + c >= kDim) break;
      const bool there = first + r + i < end && column + c < head_dim;
      if constexpr (kWide) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(place + c)),
                     "l"(there ? source + c : from.data), "r"(there ? 16 : 0)
                     : "memory");
      } else {
        place[c] = there ? source[c] : T(0.0F);
      }
    }
    source += kStep * from.stride;
    place += kStep * Tiles<kDim>::kRow;
  }
}
__device__ inline void wait_for_copies() {
  asm volatile("cp.async.wait_all;\n" ::: "memory");
  __syncthreads();
}

// Turns products into modified scores, times log2(e). A thread has the elements of 16 queries by kCount * 8 keys that
// mma.sync gives it, the first of them at (row, column).
template <typename T, int kCount>
__device__ inline void modify(const Arguments<T>& a, float slope, int row, int column, float (&score)[kCount][4]) {
  if (a.soft_cap > 0) {
#pragma unroll
    for (int n = 0; n < kCount; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) score[n][i] = a.soft_cap * fast_tanh(score[n][i] * a.soft_cap_scale);
    }
  } else {
#pragma unroll
    for (int n = 0; n < kCount; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) score[n][i] *= a.scale;
    }
  }
  if (slope == 0) return;
#pragma unroll
  for (int n = 0; n < kCount; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      score[n][i] = fmaf(slope, static_cast<float>(column + n * 8 + i % 2 - row - i / 2 * 8), score[n][i]);
  }
}

// Keys that a query does not see get a score of -infinity.
template <typename T, int kCount>
__device__ inline void hide(const Arguments<T>& a, int row, int column, float (&score)[kCount][4]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int last = row + half * 8, first = a.first_seen(last);
#pragma unroll
    for (int n = 0; n < kCount; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int key = column + n * 8 + i;
        if (key > last || key < first) score[n][2 * half + i] = -INFINITY;
      }
    }
  }
}

template <typename T, int kDim, bool kWide, bool kModified>
__global__ void __launch_bounds__(Tiles<kDim>::kThreads, Tiles<kDim>::kBlocks) attention_kernel(Arguments<T> a) {
  using Tile = Tiles<kDim>;
  constexpr int kKeys = Tile::kKeys, kRow = Tile::kRow, kFragments = Tile::kFragments;
  constexpr bool kQueriesStay = kFragments == 1;  // in registers, where they leave room
  extern __shared__ uint4 memory[];
  T* const query_rows = reinterpret_cast<T*>(memory);
  T* const key_tile = query_rows + kQueries * kRow;
  T* const value_tile = key_tile + Tile::kTile;

  const int64_t start = a.offsets[blockIdx.z];
  const int length = static_cast<int>(a.offsets[blockIdx.z + 1] - start);
  // The last queries have the most keys: they go first.
  const int first_query = (static_cast<int>(gridDim.x) - 1 - static_cast<int>(blockIdx.x)) * kQueries;
  if (first_query >= length) return;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int first_row = first_query + warp * 16 * kFragments;  // of the warp
  const Head<const T> keys = a.keys(start), values = a.values(start);

  const T* const query_place = query_rows + (warp * 16 * kFragments + lane % 16) * kRow + lane / 16 * 8;
  const T* const key_place = key_tile + (lane % 8 + lane / 16 * 8) * kRow + lane / 8 % 2 * 8;
  const T* const value_place = value_tile + lane % 16 * kRow + lane / 16 * 8;

  // Tiles before this one hold no key that the block's queries see.
  const int first_tile = kModified ? a.first_seen(first_query) / kKeys * kKeys : 0;
  const float slope = kModified ? a.slope() : 0;

  copy_rows<T, kDim, kQueries, kWide>(query_rows, a.queries(start), first_query, length, a.head_dim);
  copy_rows<T, kDim, kKeys, kWide>(key_tile, keys, first_tile, length, a.head_dim);

  // A thread has rows lane / 4 and lane / 4 + 8 of each 16 queries, columns lane % 4 * 2 and the next of each 8.
  float result[kFragments][kDim / 8][4] = {};
  float top[kFragments][2], sum[kFragments][2] = {};
#pragma unroll
  for (int m = 0; m < kFragments; ++m) top[m][0] = top[m][1] = -INFINITY;
  uint32_t query[kQueriesStay ? kDim / 16 : 1][kFragments][4];

  const int all_keys = min(first_query + kQueries, length);
  for (int first_key = first_tile; first_key < all_keys; first_key += kKeys) {
    wait_for_copies();  // keys are in shared memory, and all warps are done with the previous values
    if (kQueriesStay && first_key == first_tile) {
#pragma unroll
      for (int d = 0; d < kDim / 16; ++d) load_matrices(query[kQueriesStay ? d : 0][0], query_place + d * 16);
    }
    copy_rows<T, kDim, kKeys, kWide>(value_tile, values, first_key, length, a.head_dim);

    float score[kFragments][kKeys / 8][4] = {};
#pragma unroll
    for (int d = 0; d < kDim / 16; ++d) {
      auto& q = query[kQueriesStay ? d : 0];
      if constexpr (!kQueriesStay) {
#pragma unroll
        for (int m = 0; m < kFragments; ++m) load_matrices(q[m], query_place + m * 16 * kRow + d * 16);
      }
#pragma unroll
      for (int n = 0; n < kKeys / 16; ++n) {
        uint32_t key[4];
        load_matrices(key, key_place + n * 16 * kRow + d * 16);
#pragma unroll
        for (int m = 0; m < kFragments; ++m) {
          multiply_add<T>(score[m][2 * n], q[m], key[0], key[1]);
          multiply_add<T>(score[m][2 * n + 1], q[m], key[2], key[3]);
        }
      }
    }
    wait_for_copies();  // values are in shared memory, and all warps are done with the keys
    if (first_key + kKeys < all_keys)
      copy_rows<T, kDim, kKeys, kWide>(key_tile, keys, first_key + kKeys, length, a.head_dim);

    // Every row of the warp sees every key of the tile.
    const bool whole = first_key + kKeys <= first_row + 1 &&
                       (!kModified || a.first_seen(first_row + 16 * kFragments - 1) <= first_key);
#pragma unroll
    for (int m = 0; m < kFragments; ++m) {
      const int row = first_row + m * 16 + lane / 4, column = first_key + lane % 4 * 2;
      if constexpr (kModified) {
        modify(a, slope, row, column, score[m]);
        if (!whole) hide(a, row, column, score[m]);
      } else {
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            // Keys from `length` on come after every row.
            const bool seen = whole || column + n * 8 + i % 2 <= row + i / 2 * 8;
            score[m][n][i] = seen ? score[m][n][i] * a.scale : -INFINITY;
          }
        }
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float highest = top[m][half];
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n)
          highest = fmaxf(highest, fmaxf(score[m][n][2 * half], score[m][n][2 * half + 1]));
        highest = fmaxf(highest, __shfl_xor_sync(0xffffffffU, highest, 1));
        highest = fmaxf(highest, __shfl_xor_sync(0xffffffffU, highest, 2));
        // With plain scores every row sees key 0, so `highest` is finite from the first tile on. With modified ones a
        // row may have seen no key so far, and any finite base will do.
        const float base = kModified && highest == -INFINITY ? 0 : highest;
        const float shrink = power_of_two(top[m][half] - base);
        top[m][half] = highest;
        sum[m][half] *= shrink;
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
          for (int i = 2 * half; i < 2 * half + 2; ++i) {
            score[m][n][i] = power_of_two(score[m][n][i] - base);
            sum[m][half] += score[m][n][i];
          }
        }
#pragma unroll
        for (int d = 0; d < kDim / 8; ++d) {
          result[m][d][2 * half] *= shrink;
          result[m][d][2 * half + 1] *= shrink;
        }
      }
    }

#pragma unroll
    for (int n = 0; n < kKeys / 16; ++n) {
      uint32_t probability[kFragments][4];
#pragma unroll
      for (int m = 0; m < kFragments; ++m) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float* const pair = &score[m][2 * n + i / 2][i % 2 * 2];
          probability[m][i] = packed(pair[0], pair[1], T());
        }
      }
#pragma unroll
      for (int d = 0; d < kDim / 16; ++d) {
        uint32_t value[4];
        load_matrices_transposed(value, value_place + n * 16 * kRow + d * 16);
#pragma unroll
        for (int m = 0; m < kFragments; ++m) {
          multiply_add<T>(result[m][2 * d], probability[m], value[0], value[1]);
          multiply_add<T>(result[m][2 * d + 1], probability[m], value[2], value[3]);
        }
      }
    }
  }

  const Head<T> results = a.results(start);
  const float sink = kModified ? a.sink() : 0;
#pragma unroll
  for (int m = 0; m < kFragments; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float total = sum[m][half];
      total += __shfl_xor_sync(0xffffffffU, total, 1);
      total += __shfl_xor_sync(0xffffffffU, total, 2);
      const int row = first_row + m * 16 + half * 8 + lane / 4;
      if (row >= length) continue;
      float share = 1 / total;
      if constexpr (kModified) share = share_with_sink(sink, top[m][half], total);
      T* const to = results.row(row) + lane % 4 * 2;
#pragma unroll
      for (int d = 0; d < kDim / 8; ++d) {
        const int left = a.head_dim - (d * 8 + lane % 4 * 2);  // columns from here on
        const float x = result[m][d][2 * half] * share, y = result[m][d][2 * half + 1] * share;
        if constexpr (kWide) {
          if (left > 0) *reinterpret_cast<uint32_t*>(to + d * 8) = packed(x, y, T());
        } else {
          if (left > 0) store(to + d * 8, x);
          if (left > 1) store(to + d * 8 + 1, y);
        }
      }
    }
  }
}

}  // namespace

// Operands that cannot be read 16 bytes at a time are rare: one kernel serves plain and modified scores.
template <typename T, int kDim>
void launch_attention(const Arguments<T>& arguments, bool wide, bool modified, dim3 blocks, cudaStream_t stream) {
  static_assert(Tiles<kDim>::kBytes <= 99 * 1024, "what a block may have where multiprocessors have least");
  const auto kernel = !wide      ? attention_kernel<T, kDim, false, true>
                      : modified ? attention_kernel<T, kDim, true, true>
                                 : attention_kernel<T, kDim, true, false>;
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(Tiles<kDim>::kBytes));
  cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared);
  kernel<<<blocks, Tiles<kDim>::kThreads, Tiles<kDim>::kBytes, stream>>>(arguments);
}

template void launch_attention<__nv_bfloat16, GPTQ_HEAD_DIM>(const Arguments<__nv_bfloat16>& arguments, bool wide,
                                                             bool modified, dim3 blocks, cudaStream_t stream);
template void launch_attention<__half, GPTQ_HEAD_DIM>(const Arguments<__half>& arguments, bool wide, bool modified,
                                                      dim3 blocks, cudaStream_t stream);

}  // namespace gptq::cuda
