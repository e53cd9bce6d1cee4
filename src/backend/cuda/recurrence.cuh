// Linear recurrences over the tokens of a sequence whose state is a matrix [keys, values], in chunks of 64 tokens:
// Mamba-2 (Dao and Gu 2024, arXiv 2405.21060) and the gated delta rule (Yang et al. 2024, arXiv 2412.06464) in bf16.
// With the decays d of a chunk's tokens since its start, and what the tokens add, U,
//   Y = d Q S + (Q K' * decays) U        S = d[last] S + K' (d[last] / d * U)
// Mamba-2 adds U = step X; the delta rule solves (1 + A) U = beta (V - d K S), A = beta K K' * decays below the
// diagonal, in blocks of 16 tokens whose diagonal blocks are inverted.
//
// A block of 4 warps takes 64 columns of values through a sequence. All is transposed: a warp has 16 columns, and its
// part of S' stays in registers, where a sum of mma.sync is the left operand of the next product. What is shared by all
// columns (Q K', A) is computed once, a warp 16 tokens, and goes through shared memory. Operands that are not bf16
// already are sums of two, exact to 2^-16. Keys and queries of the next chunk are copied while a chunk is computed.
// Limited by tensor cores where blocks are many, otherwise by the latency of a chunk's steps.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>

#include "backend/cuda/gpu.h"
#include "backend/cuda/rows.cuh"
#include "backend/cuda/tensor_cores.cuh"

namespace gptq::cuda::recurrence {

using bf16 = __nv_bfloat16;

constexpr int kChunk = 64, kColumns = 64, kBlockThreads = 128;
constexpr int kTile = 16;
constexpr double kLog2OfE = 1.4426950408889634;

// A matrix in shared memory whose rows have kCols elements, at least 64; the 16-byte pieces of each 8 rows are permuted
// so that ldmatrix has no bank conflicts.
template <int kCols>
struct Tile {
  bf16* data;
  __device__ bf16* at(int r, int c) const { return data + r * kCols + (c / 8 ^ r % 8) * 8 + c % 8; }
};

// The four 8 x 8 matrices of 16 rows and columns from (r, c) on, row by row or column by column; each as it is or
// transposed.
template <bool kTransposed = false, int kCols>
__device__ void load_row_by_row(uint32_t (&fragment)[4], const Tile<kCols>& tile, int lane, int r, int c) {
  const bf16* const place = tile.at(r + lane % 8 + lane / 16 * 8, c + lane / 8 % 2 * 8);
  kTransposed ? load_matrices_transposed(fragment, place) : load_matrices(fragment, place);
}
template <bool kTransposed = false, int kCols>
__device__ void load_column_by_column(uint32_t (&fragment)[4], const Tile<kCols>& tile, int lane, int r, int c) {
  const bf16* const place = tile.at(r + lane % 16, c + lane / 16 * 8);
  kTransposed ? load_matrices_transposed(fragment, place) : load_matrices(fragment, place);
}

// A pair of floats as sums of two bf16.
struct SplitPair {
  uint32_t high, low;
};
__device__ inline SplitPair split(float first, float second) {
  const __nv_bfloat162 high = __floats2bfloat162_rn(first, second);
  const float2 wide = __bfloat1622float2(high);
  return {*reinterpret_cast<const uint32_t*>(&high), packed(first - wide.x, second - wide.y, bf16())};
}
__device__ inline float2 unpacked(uint32_t pair) {
  return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&pair));
}

// A left operand of 16 x 16, the sum of two.
struct SplitOperand {
  uint32_t high[4], low[4];
  SplitOperand() = default;
  // From the sums of two products side by side.
  __device__ SplitOperand(const float (&left)[4], const float (&right)[4]) {
    set(0, left[0], left[1]);
    set(1, left[2], left[3]);
    set(2, right[0], right[1]);
    set(3, right[2], right[3]);
  }
  __device__ void set(int i, float first, float second) {
    const SplitPair pair = split(first, second);
    high[i] = pair.high;
    low[i] = pair.low;
  }
};

// Two products side by side, sums [16, 2 x 8] += a [16, 16] b [16, 16], of sums of two.
__device__ inline void multiply_add_pair(float (*sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[4]) {
  multiply_add<bf16>(sums[0], a, b[0], b[1]);
  multiply_add<bf16>(sums[1], a, b[2], b[3]);
}
__device__ inline void multiply_add_pair(float (*sums)[4], const SplitOperand& a, const uint32_t (&b)[4]) {
  multiply_add_pair(sums, a.low, b);
  multiply_add_pair(sums, a.high, b);
}
template <typename Left>
__device__ void multiply_add_pair(float (*sums)[4], const Left& a, const uint32_t (&b_high)[4],
                                  const uint32_t (&b_low)[4]);
template <>
__device__ inline void multiply_add_pair(float (*sums)[4], const uint32_t (&a)[4], const uint32_t (&b_high)[4],
                                         const uint32_t (&b_low)[4]) {
  multiply_add_pair(sums, a, b_low);
  multiply_add_pair(sums, a, b_high);
}
template <>
__device__ inline void multiply_add_pair(float (*sums)[4], const SplitOperand& a, const uint32_t (&b_high)[4],
                                         const uint32_t (&b_low)[4]) {
  multiply_add_pair(sums, a.high, b_low);
  multiply_add_pair(sums, a, b_high);
}

// The 8 x 8 matrix of a warp, a row for each four lanes, transposed.
__device__ inline uint32_t transposed(uint32_t pair) {
  uint32_t result;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;\n" : "=r"(result) : "r"(pair));
  return result;
}

// What the steps of a chunk need of its tokens.
struct Tokens {
  float log[kChunk], log_rest[kChunk];  // of two, of the decay since the chunk's start, a sum of two
  float decay[kChunk];                  // since the chunk's start
  float rest[kChunk];                   // what of the token is left at the chunk's end
  float gain[kChunk];                   // step or beta
};

struct Arguments {
  Rows<const bf16> q, k, v;
  Rows<bf16> y;
  const int64_t* offsets;
  int heads_per_key, key_dim, value_dim;
};

template <typename Rule, int kKeys>
struct Shared {
  bf16 keys[2][kChunk * kKeys], queries[2][kChunk * kKeys], values[kChunk * kColumns];
  bf16 weights_high[kChunk * kChunk], weights_low[kChunk * kChunk];
  // Minus A, and the inverses of its diagonal blocks.
  bf16 system_high[Rule::kCorrects ? kChunk * kChunk : 8], system_low[Rule::kCorrects ? kChunk * kChunk : 8];
  float diagonal[Rule::kCorrects ? kChunk / kTile : 1][kTile * kTile];
  Tokens tokens[2];
};

// Starts the copy of 64 rows; tokens from `count` on and columns from `cols` on become zeros. A thread has the same
// columns of every kStep-th row.
template <int kCols>
__device__ void copy_rows(Tile<kCols> to, Rows<const bf16> from, int64_t first, int64_t column, int count, int cols) {
  constexpr int kLanes = kCols / 8, kStep = kBlockThreads / kLanes;
  const int row = static_cast<int>(threadIdx.x) / kLanes, c = static_cast<int>(threadIdx.x) % kLanes * 8;
  const bf16* source = from.row(first + row) + column + c;
  const int rows = c < cols ? count - row : 0;
#pragma unroll
  for (int i = 0; i < kChunk; i += kStep, source += kStep * from.stride) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(to.at(row + i, c))),
                 "l"(i < rows ? source : from.data), "r"(i < rows ? 16 : 0)
                 : "memory");
  }
  asm volatile("cp.async.commit_group;\n" ::: "memory");
}
template <int kPending>
__device__ void wait_for_groups() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kPending) : "memory");
  __syncthreads();
}

// By one warp, two tokens a lane. Tokens past the end have no gain and no decay.
template <typename Rule>
__device__ void find_tokens(const Rule& rule, int64_t first, int count, int head, Tokens& tokens) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  double log[2], sum = 0;
  float gain[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int t = 2 * lane + i;
    gain[i] = 0;
    if (t < count) sum += kLog2OfE * rule.log_decay(first + t, head, gain[i]);
    log[i] = sum;
  }
  double before = sum;
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const double other = __shfl_up_sync(0xffffffffU, before, static_cast<unsigned>(distance));
    if (lane >= distance) before += other;
  }
  const double total = __shfl_sync(0xffffffffU, before, 31);
  before -= sum;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int t = 2 * lane + i;
    const double all = before + log[i];
    tokens.gain[t] = gain[i];
    tokens.log[t] = static_cast<float>(all);
    tokens.log_rest[t] = static_cast<float>(all - static_cast<double>(tokens.log[t]));
    tokens.decay[t] = power_of_two(static_cast<float>(all));
    tokens.rest[t] = (Rule::kCorrects ? 1 : gain[i]) * power_of_two(static_cast<float>(total - all));
  }
}

// A warp's work on the matrices that all columns share: 16 rows of each. One has many sums, the other few.
template <typename Rule, int kKeys>
struct SharedRows {
  Shared<Rule, kKeys>& shared;
  const Tokens& tokens;
  Tile<kKeys> keys, queries;
  int warp, lane;

  // Calls body(t, u, pair of tokens u and u + 1, product times decay for both) for the products of the rows of 16
  // tokens, the `band`-th, with keys of tokens up to its last one. Decays to tokens before u are not those of the rule.
  template <typename Body>
  __device__ void for_products(const Tile<kKeys>& rows, int band, const Body& body) const {
    float sums[kChunk / 8][4] = {};
#pragma unroll
    for (int k = 0; k < kKeys; k += kTile) {
      uint32_t a[4], b[4];
      load_column_by_column(a, rows, lane, kTile * band, k);
#pragma unroll
      for (int u = 0; u < kChunk / kTile; ++u) {
        if (u > band) break;
        load_row_by_row(b, keys, lane, kTile * u, k);
        multiply_add_pair(&sums[2 * u], a, b);
      }
    }
    float log[2], rest[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      log[half] = tokens.log[kTile * band + lane / 4 + 8 * half];
      rest[half] = tokens.log_rest[kTile * band + lane / 4 + 8 * half];
    }
#pragma unroll
    for (int tile = 0; tile < kChunk / 8; ++tile) {
      if (tile / 2 > band) break;
      const int u = 8 * tile + lane % 4 * 2;
      const float2 before = *reinterpret_cast<const float2*>(&tokens.log[u]),
                   before_rest = *reinterpret_cast<const float2*>(&tokens.log_rest[u]);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float first = power_of_two(log[half] - before.x + (rest[half] - before_rest.x)),
                    second = power_of_two(log[half] - before.y + (rest[half] - before_rest.y));
        body(kTile * band + lane / 4 + 8 * half, u, sums[tile][2 * half] * first, sums[tile][2 * half + 1] * second);
      }
    }
  }

  __device__ static void store_split(bf16* high, bf16* low, int t, int u, float first, float second) {
    const SplitPair pair = split(first, second);
    *reinterpret_cast<uint32_t*>(Tile<kChunk>{high}.at(t, u)) = pair.high;
    *reinterpret_cast<uint32_t*>(Tile<kChunk>{low}.at(t, u)) = pair.low;
  }

  // Q K' times the decays; with Mamba-2's steps, and `skip` on the diagonal.
  __device__ void find_weights(float skip) const {
    for_products(queries, warp, [&](int t, int u, float first, float second) {
      if constexpr (!Rule::kCorrects) {
        const float2 step = *reinterpret_cast<const float2*>(&tokens.gain[u]);
        first = first * step.x + (u == t ? skip : 0);
        second = second * step.y + (u + 1 == t ? skip : 0);
      }
      store_split(shared.weights_high, shared.weights_low, t, u, u <= t ? first : 0, u + 1 <= t ? second : 0);
    });
  }

  // Minus A.
  __device__ void find_system() const {
    const int band = kChunk / kTile - 1 - warp;
    float* const diagonal = shared.diagonal[warp];
    for_products(keys, band, [&](int t, int u, float first, float second) {
      const float gain = -tokens.gain[t];
      first = u < t ? gain * first : 0;
      second = u + 1 < t ? gain * second : 0;
      if (u / kTile == band)
        *reinterpret_cast<float2*>(diagonal + t % kTile * kTile + u % kTile) = {first, second};
      else
        store_split(shared.system_high, shared.system_low, t, u, first, second);
    });
    __syncwarp();
    // A lane has a column of the inverse; the second half of the warp computes the same.
    float column[kTile];
#pragma unroll
    for (int i = 0; i < kTile; ++i) {
      column[i] = i == lane % kTile ? 1.0F : 0.0F;
#pragma unroll
      for (int j = 0; j < i; ++j) column[i] = fmaf(diagonal[i * kTile + j], column[j], column[i]);
    }
    bf16* const to = lane < kTile ? shared.system_high : shared.system_low;
#pragma unroll
    for (int i = 0; i < kTile; ++i) {
      const bf16 high = __float2bfloat16_rn(column[i]);
      *Tile<kChunk>{to}.at(kTile * band + i, kTile * band + lane % kTile) =
          lane < kTile ? high : __float2bfloat16_rn(column[i] - __bfloat162float(high));
    }
  }
};

// A warp's 16 columns: its state S' and the results Y' of a chunk. Tiles are pairs of sums, 16 tokens or keys each.
template <typename Rule, int kKeys>
struct WarpColumns {
  Shared<Rule, kKeys>& shared;
  int warp, lane;
  float state[kKeys / 8][4] = {};

  using Sums = float[kChunk / 8][4];

  // y = d S' Q', and the same of the keys for the delta rule.
  __device__ void read_state(const Tokens& tokens, const Tile<kKeys>& keys, const Tile<kKeys>& queries,
                             Sums& of_queries, Sums& of_keys) const {
#pragma unroll
    for (int k = 0; k < kKeys / kTile; ++k) {
      const SplitOperand a(state[2 * k], state[2 * k + 1]);
#pragma unroll
      for (int t = 0; t < kChunk / kTile; ++t) {
        uint32_t b[4];
        load_row_by_row(b, queries, lane, kTile * t, kTile * k);
        multiply_add_pair(&of_queries[2 * t], a, b);
        if constexpr (Rule::kCorrects) {
          load_row_by_row(b, keys, lane, kTile * t, kTile * k);
          multiply_add_pair(&of_keys[2 * t], a, b);
        }
      }
    }
#pragma unroll
    for (int tile = 0; tile < kChunk / 8; ++tile) {
      const float2 decay = *reinterpret_cast<const float2*>(&tokens.decay[8 * tile + lane % 4 * 2]);
#pragma unroll
      for (int i = 0; i < 4; ++i) of_queries[tile][i] *= i % 2 == 0 ? decay.x : decay.y;
    }
  }

  // The warp's values of tokens 16 t to 16 t + 15, as a left operand.
  __device__ void load_values(uint32_t (&fragment)[4], int t) const {
    load_row_by_row<true>(fragment, Tile<kColumns>{shared.values}, lane, kTile * t, kTile * warp);
  }

  // The delta rule's U' of the chunk, from d S' K'.
  __device__ void solve(const Tokens& tokens, Sums& u) const {
#pragma unroll
    for (int t = 0; t < kChunk / kTile; ++t) {
      uint32_t values[4];
      load_values(values, t);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int token = kTile * t + i / 2 * 8 + lane % 4 * 2;
        const float2 decay = *reinterpret_cast<const float2*>(&tokens.decay[token]),
                     gain = *reinterpret_cast<const float2*>(&tokens.gain[token]), value = unpacked(values[i]);
        float* const sums = &u[2 * t + i / 2][i % 2 * 2];
        sums[0] = gain.x * (value.x - decay.x * sums[0]);
        sums[1] = gain.y * (value.y - decay.y * sums[1]);
      }
    }
    const Tile<kChunk> high{shared.system_high}, low{shared.system_low};
#pragma unroll
    for (int j = 0; j < kChunk / kTile; ++j) {
      uint32_t b_high[4], b_low[4];
      load_row_by_row(b_high, high, lane, kTile * j, kTile * j);
      load_row_by_row(b_low, low, lane, kTile * j, kTile * j);
      float solved[2][4] = {};
      multiply_add_pair(solved, SplitOperand(u[2 * j], u[2 * j + 1]), b_high, b_low);
#pragma unroll
      for (int i = 0; i < 4; ++i) u[2 * j][i] = solved[0][i], u[2 * j + 1][i] = solved[1][i];
      if (j + 1 == kChunk / kTile) break;
      const SplitOperand done(u[2 * j], u[2 * j + 1]);
#pragma unroll
      for (int t = j + 1; t < kChunk / kTile; ++t) {
        load_row_by_row(b_high, high, lane, kTile * t, kTile * j);
        load_row_by_row(b_low, low, lane, kTile * t, kTile * j);
        multiply_add_pair(&u[2 * t], done, b_high, b_low);
      }
    }
  }

  // y += U' weights', for the tokens 16 j to 16 j + 15 of U.
  template <typename Left>
  __device__ void apply_weights(int j, const Left& u, Sums& y) const {
#pragma unroll
    for (int t = 0; t < kChunk / kTile; ++t) {
      if (t < j) continue;
      uint32_t b_high[4], b_low[4];
      load_row_by_row(b_high, Tile<kChunk>{shared.weights_high}, lane, kTile * t, kTile * j);
      load_row_by_row(b_low, Tile<kChunk>{shared.weights_low}, lane, kTile * t, kTile * j);
      multiply_add_pair(&y[2 * t], u, b_high, b_low);
    }
  }

  // S' = d[last] S' + (rest * U') K, where get_u(t, pairs) gets U' of the tokens 16 t to 16 t + 15, in pairs of tokens
  // as a left operand has them.
  template <typename GetU>
  __device__ void update(const Tokens& tokens, const Tile<kKeys>& keys, const GetU& get_u) {
    const float decay = tokens.decay[kChunk - 1];
#pragma unroll
    for (auto& tile : state) {
#pragma unroll
      for (float& element : tile) element *= decay;
    }
#pragma unroll
    for (int t = 0; t < kChunk / kTile; ++t) {
      float2 pairs[4];
      get_u(t, pairs);
      SplitOperand a;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float2 rest = *reinterpret_cast<const float2*>(&tokens.rest[kTile * t + i / 2 * 8 + lane % 4 * 2]);
        a.set(i, pairs[i].x * rest.x, pairs[i].y * rest.y);
      }
#pragma unroll
      for (int k = 0; k < kKeys / kTile; ++k) {
        uint32_t b[4];
        load_column_by_column<true>(b, keys, lane, kTile * t, kTile * k);
        multiply_add_pair(&state[2 * k], a, b);
      }
    }
  }

  // Rows of y from (0, column) of these on.
  __device__ void store_results(const Rows<bf16>& y, int64_t first, int64_t column, int count, int columns,
                                const Sums& sums) const {
#pragma unroll
    for (int tile = 0; tile < kChunk / 8; ++tile) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const uint32_t pair = transposed(packed(sums[tile][2 * half], sums[tile][2 * half + 1], bf16()));
        const int t = 8 * tile + lane / 4, c = kTile * warp + 8 * half + lane % 4 * 2;
        if (t < count && c < columns) *reinterpret_cast<uint32_t*>(y.row(first + t) + column + c) = pair;
      }
    }
  }
};

// The block's sequence is blockIdx.z, its head of values blockIdx.y, its columns the blockIdx.x-th 64.
template <typename Rule, int kKeys>
__global__ void __launch_bounds__(kBlockThreads) chunk_kernel(Arguments a, Rule rule) {
#if __CUDA_ARCH__ >= 800
  extern __shared__ __align__(128) unsigned char bytes[];
  auto& shared = *reinterpret_cast<Shared<Rule, kKeys>*>(bytes);
  // The same in all lanes, as the compiler can see.
  const int warp = __shfl_sync(0xffffffffU, static_cast<int>(threadIdx.x) / 32, 0);
  unsigned opaque_lane = threadIdx.x % 32;
  const int head = static_cast<int>(blockIdx.y), piece = static_cast<int>(blockIdx.x) * kColumns;
  const int columns = min(kColumns, a.value_dim - piece);
  const int64_t key_column = int64_t{head / a.heads_per_key} * a.key_dim,
                value_column = int64_t{head} * a.value_dim + piece;
  const int64_t begin = a.offsets[blockIdx.z], end = a.offsets[blockIdx.z + 1];
  const auto count_from = [&](int64_t first) {
    return static_cast<int>(max(int64_t{0}, min(int64_t{kChunk}, end - first)));
  };
  const auto copy_keys = [&](int64_t first, int buffer) {
    copy_rows(Tile<kKeys>{shared.keys[buffer]}, a.k, first, key_column, count_from(first), a.key_dim);
    copy_rows(Tile<kKeys>{shared.queries[buffer]}, a.q, first, key_column, count_from(first), a.key_dim);
  };
  if (begin == end) return;
  copy_keys(begin, 0);
  if (warp == 0) find_tokens(rule, begin, count_from(begin), head, shared.tokens[0]);
  WarpColumns<Rule, kKeys> of_warp{shared, warp, 0};

  int buffer = 0;
  for (int64_t first = begin; first < end; first += kChunk, buffer ^= 1) {
    // Addresses of fragments are found anew for each chunk: kept in registers, they would leave none for sums.
    asm volatile("" : "+r"(opaque_lane));
    const int lane = opaque_lane % 32U;
    of_warp.lane = lane;
    const int count = count_from(first);
    const Tokens& tokens = shared.tokens[buffer];
    const Tile<kKeys> keys{shared.keys[buffer]}, queries{shared.queries[buffer]};
    wait_for_groups<0>();  // all warps are done with the chunk before
    copy_rows(Tile<kColumns>{shared.values}, a.v, first, value_column, count, columns);
    copy_keys(first + kChunk, buffer ^ 1);
    const SharedRows<Rule, kKeys> rows{shared, tokens, keys, queries, warp, lane};
    if constexpr (Rule::kCorrects) rows.find_system();
    rows.find_weights(rule.skip(head));
    // The first warp has the fewest sums.
    if (warp == 0) find_tokens(rule, first + kChunk, count_from(first + kChunk), head, shared.tokens[buffer ^ 1]);
    wait_for_groups<2>();  // the values are here, and all rows of what is shared

    float y[kChunk / 8][4] = {};
    if constexpr (Rule::kCorrects) {
      float u[kChunk / 8][4] = {};
      of_warp.read_state(tokens, keys, queries, y, u);
      of_warp.solve(tokens, u);
#pragma unroll
      for (int t = 0; t < kChunk / kTile; ++t) of_warp.apply_weights(t, SplitOperand(u[2 * t], u[2 * t + 1]), y);
      of_warp.store_results(a.y, first, value_column, count, columns, y);
      of_warp.update(tokens, keys, [&](int t, float2(&pairs)[4]) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float* const sums = &u[2 * t + i / 2][i % 2 * 2];
          pairs[i] = {sums[0], sums[1]};
        }
      });
    } else {
      of_warp.read_state(tokens, keys, queries, y, y);
#pragma unroll
      for (int t = 0; t < kChunk / kTile; ++t) {
        uint32_t values[4];
        of_warp.load_values(values, t);
        of_warp.apply_weights(t, values, y);
      }
      of_warp.store_results(a.y, first, value_column, count, columns, y);
      of_warp.update(tokens, keys, [&](int t, float2(&pairs)[4]) {
        uint32_t values[4];
        of_warp.load_values(values, t);
#pragma unroll
        for (int i = 0; i < 4; ++i) pairs[i] = unpacked(values[i]);
      });
    }
  }
#endif
}

inline int attribute_of_device(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&value, attribute, device);
  return value;
}
// Shared memory that a block may have.
inline int most_shared_bytes() { return attribute_of_device(cudaDevAttrMaxSharedMemoryPerBlockOptin); }
// Of the compute capability, whose version 8 brings tensor cores for bf16 and asynchronous copies.
inline int major_version() { return attribute_of_device(cudaDevAttrComputeCapabilityMajor); }

template <typename Rule, int kKeys>
bool launch_with(const Gpu& gpu, const Arguments& arguments, dim3 blocks, const Rule& rule) {
  constexpr int kBytes = static_cast<int>(sizeof(Shared<Rule, kKeys>));
  if (major_version() < 8 || kBytes > most_shared_bytes()) return false;
  cudaFuncSetAttribute(chunk_kernel<Rule, kKeys>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  chunk_kernel<Rule, kKeys><<<blocks, kBlockThreads, kBytes, gpu.stream()>>>(arguments, rule);
  return true;
}

// Operands of an op: q, k [tokens, key_heads * key_dim], v, y [tokens, value_heads * value_dim].
struct Operands {
  ConstMatrixView q, k, v;
  MatrixView y;
  int64_t key_heads, value_heads, key_dim, value_dim;
};

// Launches the kernel if it can take these operands, bf16 in pieces of 16 bytes, on this GPU: one with tensor cores for
// bf16 and enough shared memory. `offsets` on the device, of `sequences`.
template <typename Rule>
bool launch(const Gpu& gpu, const Operands& operands, const int64_t* offsets, int64_t sequences, const Rule& rule) {
  const auto& [q, k, v, y, key_heads, value_heads, key_dim, value_dim] = operands;
  if (y.dtype != DType::bf16 || !in_packs({q, k, v, y}) || key_dim % kWide != 0 || value_dim % kWide != 0) return false;
  const Arguments arguments{rows_of<bf16>(q),
                            rows_of<bf16>(k),
                            rows_of<bf16>(v),
                            rows_of<bf16>(y),
                            offsets,
                            static_cast<int>(value_heads / key_heads),
                            static_cast<int>(key_dim),
                            static_cast<int>(value_dim)};
  const dim3 blocks(static_cast<unsigned>((value_dim + kColumns - 1) / kColumns), static_cast<unsigned>(value_heads),
                    static_cast<unsigned>(sequences));
  if (key_dim <= 64) return launch_with<Rule, 64>(gpu, arguments, blocks, rule);
  if (key_dim <= 128) return launch_with<Rule, 128>(gpu, arguments, blocks, rule);
  return key_dim <= 256 && launch_with<Rule, 256>(gpu, arguments, blocks, rule);
}

}  // namespace gptq::cuda::recurrence
