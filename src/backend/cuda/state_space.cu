// State-space models.
#include <algorithm>
#include <cstdint>
#include <type_traits>

#include <mma.h>

#include "backend/cuda/gpu.h"
#include "backend/cuda/recurrence.cuh"
#include "backend/cuda/rows.cuh"
#include "base/error.h"
#include "ops/state_space.h"

namespace gptq::cuda {
namespace {

namespace wmma = nvcuda::wmma;

// Reads a matrix whose elements are T, or of any type. A Value is what is in memory, where the type is known.
template <typename T>
struct Reader {
  using Value = T;
  Rows<const T> rows;
  explicit Reader(ConstMatrixView m) : rows(rows_of<T>(m)) {}
  __device__ Value value(int64_t r, int64_t c) const { return rows.row(r)[c]; }
  __device__ float get(int64_t r, int64_t c) const { return widened(value(r, c)); }
};
struct AnyReader : AnyRows {
  using Value = float;
  explicit AnyReader(ConstMatrixView m) : AnyRows(any_rows(m)) {}
  __device__ Value value(int64_t r, int64_t c) const { return get(r, c); }
};

__device__ float softplus(float x) { return x > 20 ? x : log1pf(expf(x)); }

// Mamba-2: a block takes 32 columns of one head through a sequence, in chunks of 64 tokens. Its state stays in shared
// memory. Products are those of tensor cores in tf32; operands in f32 are split into two of tf32, which are multiplied
// in three products. Limited by shared memory: fragments are loaded from it for each product.
constexpr int kChunk = 64, kWidth = 32, kSlice = 64;  // tokens, columns, elements of the state at a time
constexpr int kRow = kSlice + 4, kShortRow = kWidth + 4;
constexpr int kMostState = 256;

struct DualShared {
  float c[kChunk * kRow], b[kChunk * kRow], weights[kChunk * kRow], x[kChunk * kShortRow];
  float steps[kChunk], logs[kChunk], log_rests[kChunk], fed[kChunk], decays[kChunk];
};
constexpr size_t dual_bytes(int64_t state) {
  return sizeof(DualShared) + static_cast<size_t>((state + kSlice - 1) / kSlice * kSlice) * kShortRow * sizeof(float);
}

using Sums = wmma::fragment<wmma::accumulator, 16, 16, 8, float>;

// sums += a b for the 16 x 8 and 8 x 16 elements at these places.
template <bool kSplit, typename LayoutA, typename LayoutB>
__device__ void multiply_add(Sums& sums, const float* a, int a_stride, const float* b, int b_stride) {
  wmma::fragment<wmma::matrix_a, 16, 16, 8, wmma::precision::tf32, LayoutA> left, left_rest;
  wmma::fragment<wmma::matrix_b, 16, 16, 8, wmma::precision::tf32, LayoutB> right, right_rest;
  wmma::load_matrix_sync(left, a, static_cast<unsigned>(a_stride));
  wmma::load_matrix_sync(right, b, static_cast<unsigned>(b_stride));
#pragma unroll
  for (int i = 0; i < left.num_elements; ++i) {
    const float value = left.x[i];
    left.x[i] = wmma::__float_to_tf32(value);
    if constexpr (kSplit) left_rest.x[i] = wmma::__float_to_tf32(value - left.x[i]);
  }
#pragma unroll
  for (int i = 0; i < right.num_elements; ++i) {
    const float value = right.x[i];
    right.x[i] = wmma::__float_to_tf32(value);
    if constexpr (kSplit) right_rest.x[i] = wmma::__float_to_tf32(value - right.x[i]);
  }
  if constexpr (kSplit) {
    wmma::mma_sync(sums, left_rest, right, sums);
    wmma::mma_sync(sums, left, right_rest, sums);
  }
  wmma::mma_sync(sums, left, right, sums);
}

template <typename In>
struct DualArguments {
  In x, dt, b, c;
  AnyRows y;
  const float *dt_bias, *a_log, *d;
  const int64_t* offsets;
  int head_dim, heads_per_group, state;
  float min_step, max_step;
};

// Step sizes of the chunk's tokens; the sums of the logarithms of their decays, in two floats; what remains of the
// state before the chunk, and how much of each token is in the state after it. One warp, two tokens a lane; tokens past
// the end have a step of zero.
template <typename In>
__device__ void find_steps(const DualArguments<In>& a, int64_t first, int tokens, int head, DualShared& shared) {
  const int lane = static_cast<int>(threadIdx.x);
  const double rate = -exp(static_cast<double>(a.a_log[head]));
  double log[2], sum = 0;
  float step[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int t = 2 * lane + i;
    step[i] = 0;
    if (t < tokens)
      step[i] = fminf(fmaxf(softplus(a.dt.get(first + t, head) + a.dt_bias[head]), a.min_step), a.max_step);
    sum += rate * static_cast<double>(step[i]);
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
    shared.steps[t] = step[i];
    shared.logs[t] = static_cast<float>(all);
    shared.log_rests[t] = static_cast<float>(all - static_cast<double>(shared.logs[t]));
    shared.decays[t] = expf(static_cast<float>(all));
    shared.fed[t] = step[i] * expf(static_cast<float>(total - all));
  }
}

template <typename In, bool kSplit>
__global__ void __launch_bounds__(kThreads) dual_kernel(DualArguments<In> a) {
  extern __shared__ __align__(128) unsigned char bytes[];
  DualShared& shared = *reinterpret_cast<DualShared*>(bytes);
  float* const states = reinterpret_cast<float*>(bytes + sizeof(DualShared));
  float* const results = shared.c;  // [kChunk, kShortRow], between passes over the state
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32;
  const int head = static_cast<int>(blockIdx.y), column = static_cast<int>(blockIdx.x) * kWidth;
  const int64_t end = a.offsets[blockIdx.z + 1], group_column = int64_t{head / a.heads_per_group} * a.state,
                head_column = int64_t{head} * a.head_dim + column;
  const int width = min(kWidth, a.head_dim - column), slices = (a.state + kSlice - 1) / kSlice;
  const int tile_row = warp / 2 * 16, tile_col = warp % 2 * 16;  // of results and of a slice of the state
  for (int i = thread; i < slices * kSlice * kShortRow; i += kThreads) states[i] = 0;

  for (int64_t first = a.offsets[blockIdx.z]; first < end; first += kChunk) {
    const int tokens = static_cast<int>(min(int64_t{kChunk}, end - first));
    if (warp == 0) find_steps(a, first, tokens, head, shared);
    for (int i = thread; i < kChunk * kWidth; i += kThreads) {
      const int t = i / kWidth, p = i % kWidth;
      shared.x[t * kShortRow + p] = t < tokens && p < width ? a.x.get(first + t, head_column + p) : 0.0F;
    }

    Sums of_state, weights[2];
    wmma::fill_fragment(of_state, 0.0F);
    wmma::fill_fragment(weights[0], 0.0F);
    wmma::fill_fragment(weights[1], 0.0F);
    for (int slice = 0; slice < slices; ++slice) {
      float* const state = states + slice * kSlice * kShortRow;
      __syncthreads();
      for (int i = thread; i < kChunk * kSlice; i += kThreads) {
        const int t = i / kSlice, n = i % kSlice, place = t * kRow + n;
        const bool inside = t < tokens && slice * kSlice + n < a.state;
        shared.b[place] = inside ? a.b.get(first + t, group_column + slice * kSlice + n) : 0.0F;
        shared.c[place] = inside ? a.c.get(first + t, group_column + slice * kSlice + n) : 0.0F;
      }
      __syncthreads();
      for (int k = 0; k < kSlice; k += 8) {
        const float* const left = shared.c + tile_row * kRow + k;
        multiply_add<kSplit, wmma::row_major, wmma::row_major>(of_state, left, kRow, state + k * kShortRow + tile_col,
                                                               kShortRow);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int col = 2 * tile_col + 16 * i;
          if (col <= tile_row)  // later tokens have no weight
            multiply_add<kSplit, wmma::row_major, wmma::col_major>(weights[i], left, kRow, shared.b + col * kRow + k,
                                                                   kRow);
        }
      }
      __syncthreads();
      for (int i = thread; i < kChunk * kSlice; i += kThreads)
        shared.b[i / kSlice * kRow + i % kSlice] *= shared.fed[i / kSlice];
      __syncthreads();
      Sums next;
      float* const tile = state + tile_row * kShortRow + tile_col;
      wmma::load_matrix_sync(next, tile, kShortRow, wmma::mem_row_major);
      const float decay = shared.decays[kChunk - 1];
#pragma unroll
      for (int i = 0; i < next.num_elements; ++i) next.x[i] *= decay;
      for (int t = 0; t < kChunk; t += 8) {
        multiply_add<kSplit, wmma::col_major, wmma::row_major>(next, shared.b + t * kRow + tile_row, kRow,
                                                               shared.x + t * kShortRow + tile_col, kShortRow);
      }
      wmma::store_matrix_sync(tile, next, kShortRow, wmma::mem_row_major);
    }

    // All warps are done with c: its memory takes the results.
    float* const result = results + tile_row * kShortRow + tile_col;
    wmma::store_matrix_sync(result, of_state, kShortRow, wmma::mem_row_major);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int col = 2 * tile_col + 16 * i;
      if (col <= tile_row)
        wmma::store_matrix_sync(shared.weights + tile_row * kRow + col, weights[i], kRow, wmma::mem_row_major);
    }
    __syncthreads();
    for (int i = thread; i < kChunk * kChunk; i += kThreads) {
      const int t = i / kChunk, u = i % kChunk;
      float weight = 0;
      if (u <= t) {
        const float log = shared.logs[t] - shared.logs[u] + (shared.log_rests[t] - shared.log_rests[u]);
        weight = shared.weights[t * kRow + u] * expf(log) * shared.steps[u] + (u == t ? a.d[head] : 0.0F);
      }
      shared.weights[t * kRow + u] = weight;
    }
    for (int i = thread; i < kChunk * kWidth; i += kThreads)
      results[i / kWidth * kShortRow + i % kWidth] *= shared.decays[i / kWidth];
    __syncthreads();
    wmma::load_matrix_sync(of_state, result, kShortRow, wmma::mem_row_major);
    for (int u = 0; u < tile_row + 16; u += 8) {
      multiply_add<kSplit, wmma::row_major, wmma::row_major>(of_state, shared.weights + tile_row * kRow + u, kRow,
                                                             shared.x + u * kShortRow + tile_col, kShortRow);
    }
    wmma::store_matrix_sync(result, of_state, kShortRow, wmma::mem_row_major);
    __syncthreads();
    for (int i = thread; i < kChunk * kWidth; i += kThreads) {
      const int t = i / kWidth, p = i % kWidth;
      if (t < tokens && p < width) a.y.set(first + t, head_column + p, results[t * kShortRow + p]);
    }
  }
}

const float* vector_of(ConstMatrixView m) { return m.row<float>(0); }

// Calls body(make) with make(view) being the reader that all these matrices allow, and whether their products are
// split.
template <typename Body>
void with_reader(std::initializer_list<ConstMatrixView> views, const Body& body) {
  const DType dtype = views.begin()->dtype;
  const bool same = std::all_of(views.begin(), views.end(), [&](const auto& view) { return view.dtype == dtype; });
  if (!same) return body([](ConstMatrixView m) { return AnyReader(m); }, std::true_type());
  with_element(dtype, [&](auto element) {
    using T = decltype(element);
    body([](ConstMatrixView m) { return Reader<T>(m); }, std::is_same<T, float>());
  });
}

struct DualRule {
  AnyRows dt;
  const float *dt_bias, *a_log, *d;
  float min_step, max_step;
  static constexpr bool kCorrects = false;
  __device__ double log_decay(int64_t token, int head, float& gain) const {
    gain = fminf(fmaxf(softplus(dt.get(token, head) + dt_bias[head]), min_step), max_step);
    return -exp(static_cast<double>(a_log[head])) * static_cast<double>(gain);
  }
  __device__ float skip(int head) const { return d[head]; }
};

void state_space_dual(Gpu& gpu, const ops::StateSpaceDual& op) {
  const StateSpaceShape& shape = op.shape;
  if (shape.state > kMostState) {
    throw UnsupportedError(cat(gpu.name(), ": states of ", shape.state, " elements; Mamba-2 here has up to ",
                               kMostState, ", on the device cpu any"));
  }
  const Matrix offsets = gpu.on_device(op.offsets);
  if (op.x.empty()) return;
  const recurrence::Operands operands{op.c, op.b, op.x, op.y, shape.groups, shape.heads, shape.state, shape.head_dim};
  const DualRule rule{any_rows(op.dt), vector_of(op.dt_bias), vector_of(op.a_log),
                      vector_of(op.d), shape.min_step,        shape.max_step};
  const bool launched = recurrence::launch(gpu, operands, static_cast<const int64_t*>(offsets.view().data),
                                           static_cast<int64_t>(op.offsets.size()) - 1, rule);
  if (launched) return;
  const dim3 blocks(static_cast<unsigned>((shape.head_dim + kWidth - 1) / kWidth), static_cast<unsigned>(shape.heads),
                    static_cast<unsigned>(op.offsets.size() - 1));
  with_reader({op.x, op.dt, op.b, op.c}, [&](auto reader, auto split) {
    using In = decltype(reader(op.x));
    const auto kernel = dual_kernel<In, decltype(split)::value>;
    const size_t shared = dual_bytes(shape.state);
    static_assert(dual_bytes(kMostState) <= 99 * 1024, "what a block may have where multiprocessors have least");
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared));
    kernel<<<blocks, kThreads, shared, gpu.stream()>>>(
        {reader(op.x), reader(op.dt), reader(op.b), reader(op.c), any_rows(op.y), vector_of(op.dt_bias),
         vector_of(op.a_log), vector_of(op.d), static_cast<const int64_t*>(offsets.view().data),
         static_cast<int>(shape.head_dim), static_cast<int>(shape.heads / shape.groups), static_cast<int>(shape.state),
         shape.min_step, shape.max_step});
  });
}

// Mamba: 4 lanes share a channel's state, a block takes 64 channels through a sequence, 16 tokens at a time, and reads
// the next ones meanwhile. The sums of 4 tokens are found together, one in each lane. Limited by exponentials.
constexpr int kLanes = 4, kChannels = kThreads / kLanes, kTokens = 16;

template <typename In>
struct ScanArguments {
  In x, dt, b, c;
  AnyRows y, a_log;
  const float* d;
  const int64_t* offsets;
  int channels, state;
};

// What a thread reads of 16 tokens, as it is in memory, so that nothing waits for it; and its places in shared memory.
// What is not there is zero.
template <typename In, int kPerLane>
struct ScanTile {
  static constexpr int kState = kLanes * kPerLane, kOfChannels = kTokens * kChannels / kThreads,
                       kOfStates = kTokens * kState / kThreads;
  struct Room {
    float x[kTokens][kChannels], steps[kTokens][kChannels];
    float b[kTokens][kState], c[kTokens][kState];
  };
  using Value = typename In::Value;
  Value x[kOfChannels], dt[kOfChannels], b[kOfStates], c[kOfStates];

  __device__ void read(const ScanArguments<In>& a, int64_t first, int64_t end, int first_channel) {
#pragma unroll
    for (int i = 0; i < kOfChannels; ++i) {
      const int place = i * kThreads + static_cast<int>(threadIdx.x), channel = first_channel + place % kChannels;
      const int64_t token = first + place / kChannels;
      const bool there = token < end && channel < a.channels;
      x[i] = there ? a.x.value(token, channel) : Value(0.0F);
      dt[i] = there ? a.dt.value(token, channel) : Value(0.0F);
    }
#pragma unroll
    for (int i = 0; i < kOfStates; ++i) {
      const int place = i * kThreads + static_cast<int>(threadIdx.x), n = place % kState;
      const int64_t token = first + place / kState;
      const bool there = token < end && n < a.state;
      b[i] = there ? a.b.value(token, n) : Value(0.0F);
      c[i] = there ? a.c.value(token, n) : Value(0.0F);
    }
  }
  __device__ void write(Room& room) const {
    const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
    for (int i = 0; i < kOfChannels; ++i) {
      room.x[0][i * kThreads + thread] = widened(x[i]);
      room.steps[0][i * kThreads + thread] = softplus(widened(dt[i]));
    }
#pragma unroll
    for (int i = 0; i < kOfStates; ++i) {
      room.b[0][i * kThreads + thread] = widened(b[i]);
      room.c[0][i * kThreads + thread] = widened(c[i]);
    }
  }
};

// The sum over the 4 lanes of a channel of sums[lane].
__device__ float sum_of_lane(const float (&sums)[kLanes], int lane) {
  const bool odd = lane % 2 == 1, high = lane / 2 == 1;
  const float first = (odd ? sums[1] : sums[0]) + __shfl_xor_sync(0xffffffffU, odd ? sums[0] : sums[1], 1);
  const float second = (odd ? sums[3] : sums[2]) + __shfl_xor_sync(0xffffffffU, odd ? sums[2] : sums[3], 1);
  return (high ? second : first) + __shfl_xor_sync(0xffffffffU, high ? first : second, 2);
}

template <typename In, int kPerLane>
__global__ void __launch_bounds__(kThreads, kPerLane == 4 ? 4 : 1) scan_kernel(ScanArguments<In> a) {
  using Tile = ScanTile<In, kPerLane>;
  extern __shared__ float4 memory[];
  auto& room = *reinterpret_cast<typename Tile::Room*>(memory);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kLanes, place = thread / kLanes;
  const int first_channel = static_cast<int>(blockIdx.x) * kChannels, channel = first_channel + place;
  float states[kPerLane] = {}, rates[kPerLane] = {};  // of a step, as powers of two
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int n = lane * kPerLane + i;
    if (n < a.state && channel < a.channels) rates[i] = -kLog2E * expf(a.a_log.get(channel, n));
  }
  const float skip = channel < a.channels ? a.d[channel] : 0.0F;
  const int64_t end = a.offsets[blockIdx.y + 1];
  Tile tile;
  tile.read(a, a.offsets[blockIdx.y], end, first_channel);
  for (int64_t first = a.offsets[blockIdx.y]; first < end; first += kTokens) {
    __syncthreads();  // all are done with the tokens before
    tile.write(room);
    __syncthreads();
    tile.read(a, first + kTokens, end, first_channel);
#pragma unroll 1
    for (int t = 0; t < kTokens; t += kLanes) {
      float sums[kLanes] = {};
#pragma unroll
      for (int u = 0; u < kLanes; ++u) {
        const float step = room.steps[t + u][place], added = step * room.x[t + u][place];
        const float4* const b = reinterpret_cast<const float4*>(room.b[t + u]) + lane * kPerLane / 4;
        const float4* const c = reinterpret_cast<const float4*>(room.c[t + u]) + lane * kPerLane / 4;
#pragma unroll
        for (int i = 0; i < kPerLane; i += 4) {
          const float4 b4 = b[i / 4], c4 = c[i / 4];
          const float of_b[4] = {b4.x, b4.y, b4.z, b4.w}, of_c[4] = {c4.x, c4.y, c4.z, c4.w};
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            states[i + j] = fmaf(power_of_two(rates[i + j] * step), states[i + j], of_b[j] * added);
            sums[u] = fmaf(of_c[j], states[i + j], sums[u]);
          }
        }
      }
      const float result = fmaf(skip, room.x[t + lane][place], sum_of_lane(sums, lane));
      if (first + t + lane < end && channel < a.channels) a.y.set(first + t + lane, channel, result);
    }
  }
}

void selective_scan(Gpu& gpu, const ops::SelectiveScan& op) {
  const int64_t state = op.b.cols;
  if (state > kMostState) {
    throw UnsupportedError(cat(gpu.name(), ": states of ", state, " elements; Mamba here has up to ", kMostState,
                               ", on the device cpu any"));
  }
  const Matrix offsets = gpu.on_device(op.offsets);
  if (op.x.empty()) return;
  const dim3 blocks(static_cast<unsigned>((op.x.cols + kChannels - 1) / kChannels),
                    static_cast<unsigned>(op.offsets.size() - 1));
  with_reader({op.x, op.dt, op.b, op.c}, [&](auto reader, auto) {
    using In = decltype(reader(op.x));
    const ScanArguments<In> arguments{reader(op.x),
                                      reader(op.dt),
                                      reader(op.b),
                                      reader(op.c),
                                      any_rows(op.y),
                                      any_rows(op.a_log),
                                      vector_of(op.d),
                                      static_cast<const int64_t*>(offsets.view().data),
                                      static_cast<int>(op.x.cols),
                                      static_cast<int>(state)};
    const auto launch = [&](auto per_lane) {
      constexpr int kPerLane = decltype(per_lane)::value;
      constexpr size_t kBytes = sizeof(typename ScanTile<In, kPerLane>::Room);
      static_assert(kBytes <= 48 * 1024, "what a block may have without asking");
      scan_kernel<In, kPerLane><<<blocks, kThreads, kBytes, gpu.stream()>>>(arguments);
    };
    if (state <= 4 * kLanes) return launch(std::integral_constant<int, 4>());
    if (state <= 16 * kLanes) return launch(std::integral_constant<int, 16>());
    launch(std::integral_constant<int, kMostState / kLanes>());
  });
}

}  // namespace

void add_state_space_ops(GpuOps& table) {
  table.add<state_space_dual>();
  table.add<selective_scan>();
}

}  // namespace gptq::cuda
