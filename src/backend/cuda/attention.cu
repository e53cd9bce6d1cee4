// Attention: which kernel computes it, and with what arguments.
#include <algorithm>
#include <type_traits>

#include "backend/cuda/attention.cuh"
#include "backend/cuda/gpu.h"
#include "backend/cuda/kernels.h"
#include "backend/cuda/rows.cuh"
#include "base/error.h"
#include "ops/attention.h"

namespace gptq::cuda {
namespace {

unsigned pieces(int64_t length, int each) { return static_cast<unsigned>((length + each - 1) / each); }

bool is_wide(ConstMatrixView m) { return reinterpret_cast<uintptr_t>(m.data) % 16 == 0 && m.stride % 8 == 0; }

template <typename T>
Arguments<T> arguments_of(const ops::Attention& op, const int64_t* offsets) {
  const AttentionShape& shape = op.shape;
  const auto bound = [](int64_t keys) {
    return keys == 0 ? kAllKeys : static_cast<int>(std::min<int64_t>(keys, kAllKeys));
  };
  return {.q = static_cast<const T*>(op.q.data),
          .k = static_cast<const T*>(op.k.data),
          .v = static_cast<const T*>(op.v.data),
          .y = static_cast<T*>(op.y.data),
          .q_stride = op.q.stride,
          .k_stride = op.k.stride,
          .v_stride = op.v.stride,
          .y_stride = op.y.stride,
          .offsets = offsets,
          .head_dim = static_cast<int>(shape.head_dim),
          .heads_per_kv = static_cast<int>(shape.heads / shape.kv_heads),
          .scale = shape.scale * kLog2E,
          .soft_cap = shape.soft_cap * kLog2E,
          .soft_cap_scale = shape.soft_cap > 0 ? shape.scale / shape.soft_cap : 0,
          .window = bound(shape.window),
          .chunk = bound(shape.chunk),
          .slopes = shape.slopes.empty() ? nullptr : shape.slopes.row<float>(0),
          .sinks = shape.sinks.empty() ? nullptr : shape.sinks.row<float>(0)};
}

// longest: tokens of the longest sequence. q, k, v, y have the same dtype.
template <typename T>
void launch(const ops::Attention& op, const Arguments<T>& arguments, int64_t longest, cudaStream_t stream) {
  const AttentionShape& shape = op.shape;
  const int64_t dim = shape.head_dim;
  const bool modified =
      shape.soft_cap > 0 || shape.window > 0 || shape.chunk > 0 || !shape.slopes.empty() || !shape.sinks.empty();
  const auto blocks_of = [&](int queries) {
    return dim3(pieces(longest, queries), static_cast<unsigned>(shape.heads),
                static_cast<unsigned>(op.offsets.size() - 1));
  };
  if (dim > kShortHead) return launch_long_heads(arguments, modified, blocks_of(kLongHeadQueries), stream);
  if constexpr (std::is_same_v<T, float>) {
    launch_short_heads(arguments, modified, blocks_of(kWideQueries), stream);
  } else {
    const bool wide = dim % 8 == 0 && is_wide(op.q) && is_wide(op.k) && is_wide(op.v) && is_wide(op.y);
    const dim3 blocks = blocks_of(kQueries);
    const auto kernel = dim <= 32    ? launch_attention<T, 32>
                        : dim <= 64  ? launch_attention<T, 64>
                        : dim <= 96  ? launch_attention<T, 96>
                        : dim <= 128 ? launch_attention<T, 128>
                        : dim <= 160 ? launch_attention<T, 160>
                        : dim <= 192 ? launch_attention<T, 192>
                                     : launch_attention<T, 256>;
    kernel(arguments, wide, modified, blocks, stream);
  }
}

void attention(Gpu& gpu, const ops::Attention& op) {
  constexpr int64_t kMostHeadDim = 512;
  if (op.shape.head_dim > kMostHeadDim) {
    throw UnsupportedError(cat(gpu.name(), ": heads of ", op.shape.head_dim, " elements; attention here does up to ",
                               kMostHeadDim, ", the device cpu any"));
  }
  if (op.y.empty()) return;
  if (op.k.dtype != op.q.dtype || op.v.dtype != op.q.dtype || op.y.dtype != op.q.dtype) {  // in no model: in f32 then
    const Matrix q = aligned_copy(gpu, op.q, DType::f32), k = aligned_copy(gpu, op.k, DType::f32),
                 v = aligned_copy(gpu, op.v, DType::f32);
    Matrix y(gpu.memory(), DType::f32, op.y.rows, op.y.cols);
    attention(gpu, {.q = q.view().col_range(0, op.q.cols),
                    .k = k.view().col_range(0, op.k.cols),
                    .v = v.view().col_range(0, op.v.cols),
                    .offsets = op.offsets,
                    .shape = op.shape,
                    .y = y});
    return convert(y, op.y, gpu.stream());
  }
  int64_t longest = 0;
  for (size_t s = 0; s + 1 < op.offsets.size(); ++s) longest = std::max(longest, op.offsets[s + 1] - op.offsets[s]);
  const Matrix offsets = gpu.on_device(op.offsets);
  if (longest == 0) return;
  with_element(op.q.dtype, [&](auto element) {
    using T = decltype(element);
    launch<T>(op, arguments_of<T>(op, static_cast<const int64_t*>(offsets.view().data)), longest, gpu.stream());
  });
}

// A few queries of one sequence. A block has one query of one head: its threads share the keys out for the scores, then
// the columns for the sum of values. Limited by reading keys and values.
struct CachedArguments {
  AnyRows q, k, v, scores, y;
  int head_dim, heads_per_kv, window, chunk;  // 0: no bound
  int64_t earlier;                            // keys before the first query
  float scale, soft_cap;
  const float *slopes, *sinks;
};

__global__ void __launch_bounds__(kThreads) cached_attention_kernel(CachedArguments a) {
  const int head = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  const int64_t row = blockIdx.y, query = a.earlier + row, column = static_cast<int64_t>(head) * a.head_dim;
  const int64_t kv_column = static_cast<int64_t>(head / a.heads_per_kv) * a.head_dim;
  int64_t first = a.window > 0 && query >= a.window ? query - a.window + 1 : 0;
  if (a.chunk > 0) first = max(first, query / a.chunk * a.chunk);
  float* const own = static_cast<float*>(a.scores.data) + (row * gridDim.x + head) * a.scores.stride;

  float top = a.sinks == nullptr ? -INFINITY : a.sinks[head];
  for (int64_t key = first + thread; key <= query; key += kThreads) {
    float score = 0;
    for (int d = 0; d < a.head_dim; ++d) score = fmaf(a.q.get(row, column + d), a.k.get(key, kv_column + d), score);
    score *= a.scale;
    if (a.soft_cap > 0) score = a.soft_cap * tanhf(score / a.soft_cap);
    if (a.slopes != nullptr) score += a.slopes[head] * static_cast<float>(key - query);
    own[key] = score;
    top = fmaxf(top, score);
  }
  top = over_block(top, Maximum());
  float total = 0;
  for (int64_t key = first + thread; key <= query; key += kThreads) {
    own[key] = expf(own[key] - top);
    total += own[key];
  }
  total = over_block(total, Sum());                            // after it all threads see all scores
  if (a.sinks != nullptr) total += expf(a.sinks[head] - top);  // it has no value
  for (int d = thread; d < a.head_dim; d += kThreads) {
    float sum = 0;
    for (int64_t key = first; key <= query; ++key) sum = fmaf(own[key], a.v.get(key, kv_column + d), sum);
    a.y.set(row, column + d, sum / total);
  }
}

void cached_attention(Gpu& gpu, const ops::CachedAttention& op) {
  if (op.y.empty()) return;
  const AttentionShape& shape = op.shape;
  const Matrix scores(gpu.memory(), DType::f32, op.q.rows * shape.heads, op.k.rows);
  const auto bound = [&](int64_t keys) { return static_cast<int>(std::min(keys, op.k.rows)); };  // 0 stays 0
  const dim3 blocks(static_cast<unsigned>(shape.heads), static_cast<unsigned>(op.q.rows));
  cached_attention_kernel<<<blocks, kThreads, 0, gpu.stream()>>>(
      {.q = any_rows(op.q),
       .k = any_rows(op.k),
       .v = any_rows(op.v),
       .scores = any_rows(scores.view()),
       .y = any_rows(op.y),
       .head_dim = static_cast<int>(shape.head_dim),
       .heads_per_kv = static_cast<int>(shape.heads / shape.kv_heads),
       .window = bound(shape.window),
       .chunk = bound(shape.chunk),
       .earlier = op.k.rows - op.q.rows,
       .scale = shape.scale,
       .soft_cap = shape.soft_cap,
       .slopes = shape.slopes.empty() ? nullptr : shape.slopes.row<float>(0),
       .sinks = shape.sinks.empty() ? nullptr : shape.sinks.row<float>(0)});
}

}  // namespace

void add_attention_ops(GpuOps& table) {
  table.add<attention>();
  table.add<cached_attention>();
}

}  // namespace gptq::cuda
