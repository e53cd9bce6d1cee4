// Attention.
#include "ops/attention.h"

#include <algorithm>

#include "backend/opencl/xpu.h"

namespace gptq::opencl {
namespace {

// Shape of kernels/attention.cl and kernels/cached_attention.cl.
struct Shape {
  cl_int head_dim, heads_per_kv, window, chunk;
  cl_float scale, soft_cap;
};

void attention(Xpu& xpu, const ops::Attention& op) {
  constexpr int64_t kQueries = 32, kThreads = 8, kNarrow = 64, kWide = 128;
  const AttentionShape& shape = op.shape;
  const Matrix offsets = xpu.on_device(op.offsets);
  int64_t longest = 0;
  for (size_t s = 0; s + 1 < op.offsets.size(); ++s) longest = std::max(longest, op.offsets[s + 1] - op.offsets[s]);
  if (longest == 0 || op.y.empty()) return;
  const auto bound = [&](int64_t keys) { return static_cast<cl_int>(std::min(keys, longest)); };  // 0 stays 0
  const Shape passed = {static_cast<cl_int>(shape.head_dim),
                        static_cast<cl_int>(shape.heads / shape.kv_heads),
                        bound(shape.window),
                        bound(shape.chunk),
                        shape.scale,
                        shape.soft_cap};
  const bool narrow = shape.head_dim <= kNarrow;
  const int64_t slices = pieces_of(shape.head_dim, narrow ? kNarrow : kWide);
  const Grid grid = {{pieces_of(longest, kQueries) * slices, shape.heads, static_cast<int64_t>(op.offsets.size()) - 1},
                     {kThreads, kThreads, 1}};
  xpu.launch({"attention", "attention", narrow ? "-DSLICE=64" : "-DSLICE=128"}, grid, op.q, op.k, op.v, offsets,
             shape.slopes, shape.sinks, op.y, passed, static_cast<int32_t>(slices));
}

void cached_attention(Xpu& xpu, const ops::CachedAttention& op) {
  constexpr int64_t kThreads = 64;
  const AttentionShape& shape = op.shape;
  if (op.y.empty()) return;
  const auto bound = [&](int64_t keys) { return static_cast<cl_int>(std::min(keys, op.k.rows)); };
  const Shape passed = {static_cast<cl_int>(shape.head_dim),
                        static_cast<cl_int>(shape.heads / shape.kv_heads),
                        bound(shape.window),
                        bound(shape.chunk),
                        shape.scale,
                        shape.soft_cap};
  const Matrix scores(xpu.memory(), DType::f32, op.q.rows * shape.heads, op.k.rows);
  xpu.launch({"cached_attention", "cached_attention"}, {{shape.heads, op.q.rows, 1}, {kThreads, 1, 1}}, op.q, op.k,
             op.v, shape.slopes, shape.sinks, scores, op.y, passed, op.k.rows - op.q.rows);
}

}  // namespace

void add_attention_ops(XpuOps& table) {
  table.add<attention>();
  table.add<cached_attention>();
}

}  // namespace gptq::opencl
