// The gated delta rule in chunks, as in the file of this name of the CPU: a block passes the chunks of one head of one
// sequence, for some columns of its values, which are independent of the others. All operands of a chunk, and the
// state, are in shared memory. Products are computed on tensor cores in TF32, split so that nothing is lost: each f32
// is the sum of two TF32 and a rest below 2^-22 of it, and f16 and bf16 are TF32 as they are. Limited by shared memory.
#include <algorithm>
#include <cstdint>

#include <mma.h>

#include "backend/cuda/gpu.h"
#include "backend/cuda/recurrence.cuh"
#include "backend/cuda/rows.cuh"
#include "base/error.h"
#include "base/rounding.h"
#include "ops/delta_rule.h"

namespace gptq::cuda {
namespace {

namespace wmma = nvcuda::wmma;

constexpr int kWarps = 16, kDeltaThreads = 32 * kWarps;
constexpr int kTile = 16, kDepth = 8;  // a product of tiles: 16 x 16 sums of 8 products
constexpr int kPad = 4;                // floats at the end of each row, against bank conflicts

// A row-major matrix in shared memory.
struct Panel {
  float* data;
  int stride;
  __device__ float& at(int r, int c) const { return data[r * stride + c]; }
};

// Sizes of a block's work; rows and columns of all matrices are multiples of 16.
struct DeltaSizes {
  int chunk, keys, values;  // tokens, elements of a key, columns of values
  __host__ __device__ int stride(int columns) const { return columns + kPad; }
  // Floats: keys and queries, scores, reads, updates, state; then the sums of a chunk in double, and beta.
  __host__ __device__ int floats() const {
    return 2 * chunk * (stride(keys) + stride(chunk) + stride(values)) + chunk * stride(values) +
           keys * stride(values) + 4 * chunk;
  }
};

struct DeltaArguments {
  AnyRows q, k, v, y;
  Rows<const float> log_decay, beta;
  const int64_t* offsets;
  int heads_per_key, key_dim, value_dim;
  DeltaSizes sizes;
};

// Each element of a fragment as a sum of two TF32.
template <typename Fragment>
__device__ void split(Fragment& high, Fragment& low, bool has_low) {
#pragma unroll
  for (int i = 0; i < high.num_elements; ++i) {
    const float value = high.x[i];
    high.x[i] = wmma::__float_to_tf32(value);
    if (has_low) low.x[i] = wmma::__float_to_tf32(value - high.x[i]);
  }
}

// y = factor y + a b for matrices in shared memory, each warp some tiles. Layouts say how a [rows, inner] and b [inner,
// cols] are stored: as they are, or transposed. An exact operand has no more bits than TF32.
template <typename LayoutA, typename LayoutB, bool kExactA, bool kExactB>
__device__ void multiply(int rows, int cols, int inner, Panel a, Panel b, float factor, Panel y) {
  constexpr bool kTurnedA = std::is_same_v<LayoutA, wmma::col_major>,
                 kTurnedB = std::is_same_v<LayoutB, wmma::col_major>;
  const int warp = static_cast<int>(threadIdx.x) / 32, across = cols / kTile, tiles = rows / kTile * across;
  for (int tile = warp; tile < tiles; tile += kWarps) {
    const int row = tile / across * kTile, col = tile % across * kTile;
    wmma::fragment<wmma::accumulator, kTile, kTile, kDepth, float> sum;
    if (factor == 0) {
      wmma::fill_fragment(sum, 0.0F);
    } else {
      wmma::load_matrix_sync(sum, &y.at(row, col), y.stride, wmma::mem_row_major);
#pragma unroll
      for (int i = 0; i < sum.num_elements; ++i) sum.x[i] *= factor;
    }
    for (int k = 0; k < inner; k += kDepth) {
      wmma::fragment<wmma::matrix_a, kTile, kTile, kDepth, wmma::precision::tf32, LayoutA> a_high, a_low;
      wmma::fragment<wmma::matrix_b, kTile, kTile, kDepth, wmma::precision::tf32, LayoutB> b_high, b_low;
      wmma::load_matrix_sync(a_high, kTurnedA ? &a.at(k, row) : &a.at(row, k), a.stride);
      wmma::load_matrix_sync(b_high, kTurnedB ? &b.at(col, k) : &b.at(k, col), b.stride);
      split(a_high, a_low, !kExactA);
      split(b_high, b_low, !kExactB);
      if constexpr (!kExactA) wmma::mma_sync(sum, a_low, b_high, sum);
      if constexpr (!kExactB) wmma::mma_sync(sum, a_high, b_low, sum);
      wmma::mma_sync(sum, a_high, b_high, sum);
    }
    wmma::store_matrix_sync(&y.at(row, col), sum, y.stride, wmma::mem_row_major);
  }
}

// exp(x) for x <= 0.
__device__ float decay_of(double x) { return expf(static_cast<float>(x)); }

// x = (1 + a)^-1 x, where a is strictly lower triangular: 16 rows at a time, a column per thread; then these are
// subtracted from the rows below.
__device__ void solve(int rows, int cols, Panel a, Panel x) {
  const int thread = static_cast<int>(threadIdx.x);
  for (int first = 0; first < rows; first += kTile) {
    for (int c = thread; c < cols; c += kDeltaThreads) {
      float column[kTile];
#pragma unroll
      for (int i = 0; i < kTile; ++i) column[i] = x.at(first + i, c);
#pragma unroll
      for (int j = 0; j < kTile; ++j) {
#pragma unroll
        for (int i = j + 1; i < kTile; ++i) column[i] = fmaf(-a.at(first + i, first + j), column[j], column[i]);
      }
#pragma unroll
      for (int i = 0; i < kTile; ++i) x.at(first + i, c) = column[i];
    }
    __syncthreads();
    const int below = rows - first - kTile;
    for (int place = thread; place < below * cols; place += kDeltaThreads) {
      const int r = first + kTile + place / cols, c = place % cols;
      float sum = x.at(r, c);
#pragma unroll
      for (int j = 0; j < kTile; ++j) sum = fmaf(-a.at(r, first + j), x.at(first + j, c), sum);
      x.at(r, c) = sum;
    }
    __syncthreads();
  }
}

// What a block has in shared memory.
struct DeltaRoom {
  DeltaSizes sizes;
  double* sums;  // of log_decay, up to each token of the chunk
  float* beta;
  Panel keys_queries, scores, reads, updates, state;

  __device__ DeltaRoom(const DeltaSizes& sizes, float* room) : sizes(sizes) {
    const int chunk = sizes.chunk, keys = sizes.stride(sizes.keys), values = sizes.stride(sizes.values);
    keys_queries = {room, keys};
    scores = {keys_queries.data + 2 * chunk * keys, sizes.stride(chunk)};
    reads = {scores.data + 2 * chunk * scores.stride, values};
    updates = {reads.data + 2 * chunk * values, values};
    state = {updates.data + chunk * values, values};
    sums = reinterpret_cast<double*>(state.data + sizes.keys * values);
    beta = reinterpret_cast<float*>(sums + chunk);
  }

  // Calls body(r, c) for all places of a matrix, neighbouring threads in a row.
  template <typename Body>
  __device__ static void for_each(int rows, int cols, const Body& body) {
    for (int place = static_cast<int>(threadIdx.x); place < rows * cols; place += kDeltaThreads)
      body(place / cols, place % cols);
  }

  // Products of keys and queries with keys and the state to a, p, the right side of the system, and what the state
  // before the chunk adds to y.
  __device__ void apply_decays() const {
    const int chunk = sizes.chunk;
    for_each(chunk, chunk, [&](int i, int j) {
      const float decay = j <= i ? decay_of(sums[i] - sums[j]) : 0;
      scores.at(i, j) = j < i ? scores.at(i, j) * beta[i] * decay : 0;
      scores.at(chunk + i, j) = j <= i ? scores.at(chunk + i, j) * decay : 0;
    });
    for_each(chunk, sizes.values, [&](int i, int c) {
      const float decay = decay_of(sums[i]);
      updates.at(i, c) = beta[i] * (updates.at(i, c) - decay * reads.at(i, c));
      reads.at(chunk + i, c) *= decay;
    });
  }
};

// The block's sequence is blockIdx.z, its head of values blockIdx.y, its columns the blockIdx.x-th.
template <bool kExact>
__global__ void __launch_bounds__(kDeltaThreads) delta_kernel(DeltaArguments a) {
#if __CUDA_ARCH__ >= 800
  extern __shared__ __align__(128) float shared[];
  const DeltaSizes& sizes = a.sizes;
  const DeltaRoom room(sizes, shared);
  const int chunk = sizes.chunk, head = static_cast<int>(blockIdx.y), thread = static_cast<int>(threadIdx.x);
  const int first_column = static_cast<int>(blockIdx.x) * sizes.values,
            columns = min(sizes.values, a.value_dim - first_column);
  const int64_t key_column = static_cast<int64_t>(head / a.heads_per_key) * a.key_dim,
                value_column = static_cast<int64_t>(head) * a.value_dim + first_column;
  const int64_t end = a.offsets[blockIdx.z + 1];
  const Panel queries{&room.keys_queries.at(chunk, 0), room.keys_queries.stride},
      weights{&room.scores.at(chunk, 0), room.scores.stride}, results{&room.reads.at(chunk, 0), room.reads.stride};
  DeltaRoom::for_each(sizes.keys, sizes.values, [&](int r, int c) { room.state.at(r, c) = 0; });
  for (int64_t first = a.offsets[blockIdx.z]; first < end; first += chunk) {
    const int count = static_cast<int>(min(static_cast<int64_t>(chunk), end - first));
    __syncthreads();
    // Tokens after the last one have zeros, and no decay.
    DeltaRoom::for_each(chunk, sizes.keys, [&](int r, int c) {
      const bool inside = r < count && c < a.key_dim;
      room.keys_queries.at(r, c) = inside ? a.k.get(first + r, key_column + c) : 0;
      queries.at(r, c) = inside ? a.q.get(first + r, key_column + c) : 0;
    });
    DeltaRoom::for_each(chunk, sizes.values, [&](int r, int c) {
      room.updates.at(r, c) = r < count && c < columns ? a.v.get(first + r, value_column + c) : 0;
    });
    if (thread < chunk) {
      double sum = 0;
      for (int i = 0; i <= min(thread, count - 1); ++i) sum += a.log_decay.row(first + i)[head];
      room.sums[thread] = sum;
      room.beta[thread] = thread < count ? a.beta.row(first + thread)[head] : 0;
    }
    __syncthreads();
    multiply<wmma::row_major, wmma::col_major, kExact, kExact>(2 * chunk, chunk, sizes.keys, room.keys_queries,
                                                               room.keys_queries, 0, room.scores);
    multiply<wmma::row_major, wmma::row_major, kExact, false>(2 * chunk, sizes.values, sizes.keys, room.keys_queries,
                                                              room.state, 0, room.reads);
    __syncthreads();
    room.apply_decays();
    __syncthreads();
    solve(chunk, sizes.values, room.scores, room.updates);
    multiply<wmma::row_major, wmma::row_major, false, false>(chunk, sizes.values, chunk, weights, room.updates, 1,
                                                             results);
    __syncthreads();
    DeltaRoom::for_each(count, columns, [&](int r, int c) { a.y.set(first + r, value_column + c, results.at(r, c)); });
    const double all = room.sums[chunk - 1];
    DeltaRoom::for_each(chunk, sizes.values,
                        [&](int r, int c) { room.updates.at(r, c) *= decay_of(all - room.sums[r]); });
    __syncthreads();
    multiply<wmma::col_major, wmma::row_major, kExact, false>(sizes.keys, sizes.values, chunk, room.keys_queries,
                                                              room.updates, decay_of(all), room.state);
  }
#endif
}

// The largest sizes for which a block has room: few chunks before few columns.
DeltaSizes sizes_for(const Gpu& gpu, const DeltaShape& shape) {
  const int bytes = recurrence::most_shared_bytes();
  if (recurrence::major_version() < 8)
    throw UnsupportedError(cat(gpu.name(), ": the gated delta rule needs compute capability 8.0; use the device cpu"));
  const int keys = static_cast<int>(rounded_up(shape.key_dim, kTile)),
            values = static_cast<int>(std::min<int64_t>(rounded_up(shape.value_dim, kTile), 64));
  for (const int chunk : {64, 32, 16}) {
    for (const int columns : {values, std::min(values, 32), kTile}) {
      const DeltaSizes sizes{chunk, keys, columns};
      if (static_cast<int>(sizeof(float)) * sizes.floats() <= bytes) return sizes;
    }
  }
  throw UnsupportedError(cat(gpu.name(), ": keys of ", shape.key_dim,
                             " elements are too long for the gated delta rule here; the device cpu takes any"));
}

template <bool kExact>
void launch_delta(const DeltaArguments& arguments, dim3 blocks, cudaStream_t stream) {
  const int bytes = static_cast<int>(sizeof(float)) * arguments.sizes.floats();
  cudaFuncSetAttribute(delta_kernel<kExact>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  delta_kernel<kExact><<<blocks, kDeltaThreads, static_cast<size_t>(bytes), stream>>>(arguments);
}

struct DeltaRule {
  Rows<const float> log_decays, beta;
  static constexpr bool kCorrects = true;
  __device__ double log_decay(int64_t token, int head, float& gain) const {
    gain = beta.row(token)[head];
    return log_decays.row(token)[head];
  }
  __device__ static float skip(int /*head*/) { return 0; }
};

void gated_delta_rule(Gpu& gpu, const ops::GatedDeltaRule& op) {
  if (op.y.empty()) return;
  const DeltaShape& shape = op.shape;
  const Matrix offsets = gpu.on_device(op.offsets);
  const recurrence::Operands operands{op.q,          op.k,           op.v, op.y, shape.key_heads, shape.value_heads,
                                      shape.key_dim, shape.value_dim};
  const bool launched = recurrence::launch(gpu, operands, static_cast<const int64_t*>(offsets.view().data),
                                           static_cast<int64_t>(op.offsets.size()) - 1,
                                           DeltaRule{rows_of<float>(op.log_decay), rows_of<float>(op.beta)});
  if (launched) return;
  const DeltaArguments arguments{any_rows(op.q),
                                 any_rows(op.k),
                                 any_rows(op.v),
                                 any_rows(op.y),
                                 rows_of<float>(op.log_decay),
                                 rows_of<float>(op.beta),
                                 static_cast<const int64_t*>(offsets.view().data),
                                 static_cast<int>(shape.value_heads / shape.key_heads),
                                 static_cast<int>(shape.key_dim),
                                 static_cast<int>(shape.value_dim),
                                 sizes_for(gpu, shape)};
  const dim3 blocks(static_cast<unsigned>(pieces_of(shape.value_dim, arguments.sizes.values)),
                    static_cast<unsigned>(shape.value_heads), static_cast<unsigned>(op.offsets.size() - 1));
  const bool exact = op.q.dtype != DType::f32 && op.k.dtype != DType::f32;
  exact ? launch_delta<true>(arguments, blocks, gpu.stream()) : launch_delta<false>(arguments, blocks, gpu.stream());
}

struct LogDecay {
  AnyRows x;
  Rows<const float> log_rate, bias;
  Rows<float> y;
  __device__ void operator()(int64_t r, int64_t c) const {
    const float sum = x.get(r, c) + bias.row(0)[c];
    y.row(r)[c] = -expf(log_rate.row(0)[c]) * (fmaxf(sum, 0) + log1pf(expf(-fabsf(sum))));
  }
};

void log_decay(Gpu& gpu, const ops::LogDecay& op) {
  launch_places(op.y.rows, op.y.cols, 1, gpu.stream(),
                LogDecay{any_rows(op.x), rows_of<float>(op.log_rate), rows_of<float>(op.bias), rows_of<float>(op.y)});
}

}  // namespace

void add_delta_rule_ops(GpuOps& table) {
  table.add<log_decay>();
  table.add<gated_delta_rule>();
}

}  // namespace gptq::cuda
