// Attention.
#pragma once

#include <algorithm>

#include "ops/op.h"
#include "ops/rope.h"

namespace gptq {

// Scores are modified in the order of the members.
struct AttentionShape {
  int64_t heads = 0, kv_heads = 0, head_dim = 0;  // heads is a multiple of kv_heads
  float scale = 1;                                // scores are multiplied by it before the softmax
  float soft_cap = 0;                             // scaled scores s become soft_cap tanh(s / soft_cap); 0: no cap
  int64_t window = 0;      // a query sees its own key and the window - 1 before it; 0: all before it
  int64_t chunk = 0;       // attention is limited to chunks of this many positions (Llama 4); 0: no limit
  ConstMatrixView slopes;  // [1, heads] f32, or empty: adds slope (key position - query position) as in ALiBi
  ConstMatrixView sinks;   // [1, heads] f32, or empty: a score that takes part in each softmax and has no value
};

namespace ops {

// Causal grouped-query attention inside each sequence: y = softmax(scale q k') v for each head, sums in f32; the
// probabilities may be rounded to v's dtype before the second product.
// q, y [tokens, heads * head_dim]; k, v [tokens, kv_heads * head_dim]
struct Attention {
  static constexpr const char* kName = "attention";
  static constexpr bool kIsProduct = true;
  ConstMatrixView q, k, v;
  SequenceOffsets offsets;
  AttentionShape shape;
  MatrixView y;

  auto reads() { return std::array{&q, &k, &v, &shape.slopes, &shape.sinks}; }
  auto writes() { return std::array{&y}; }
  // Tokens, heads, head_dim, mean tokens of a sequence.
  OpSizes sizes() const {
    const auto sequences = static_cast<int64_t>(offsets.size()) - 1;
    return {q.rows, shape.heads, shape.head_dim, sequences > 0 ? q.rows / sequences : 0};
  }
  DType dtype() const { return q.dtype; }
  // Half of each of the two products.
  static double work(const OpSizes& s) { return as_double(s[0]) * as_double(s[1]) * as_double(s[2]) * as_double(s[3]); }
  // One sequence, with fewer heads before fewer tokens.
  static OpSizes trial_sizes(OpSizes s, const TrialLimits& limits) {
    auto& [tokens, heads, head_dim, length] = s;
    if (length > 0 && tokens > length) tokens = length;
    halve<Attention>(s, 1, 4, limits.products);
    while (work(s) > limits.products && length > 128) tokens = length /= 2;
    return s;
  }
  static Attention trial(TrialOperands& t, const OpSizes& s, DType dtype) {
    const int64_t width = s[1] * s[2];
    return {t.random(dtype, s[0], width),
            t.random(dtype, s[0], width),
            t.random(dtype, s[0], width),
            t.sequence(s[0]),
            {.heads = s[1], .kv_heads = s[1], .head_dim = s[2], .scale = 0.1F},
            t.undefined(dtype, s[0], width)};
  }
};
void reference(const Attention& op);

// The same for the last queries of one sequence, whose earlier keys and values are there: a few rows, limited by
// reading the keys.   q, y [queries, heads * head_dim]; k, v [keys, kv_heads * head_dim], keys >= queries
struct CachedAttention {
  static constexpr const char* kName = "cached_attention";
  static constexpr bool kIsProduct = true;
  ConstMatrixView q, k, v;
  AttentionShape shape;
  MatrixView y;

  auto reads() { return std::array{&q, &k, &v, &shape.slopes, &shape.sinks}; }
  auto writes() { return std::array{&y}; }
  // Queries, heads, head_dim, keys of earlier tokens.
  OpSizes sizes() const { return {q.rows, shape.heads, shape.head_dim, k.rows - q.rows}; }
  DType dtype() const { return q.dtype; }
  static double work(const OpSizes& s) {
    return 2 * as_double(s[0]) * as_double(s[1]) * as_double(s[2]) * as_double(s[0] + s[3]);
  }
  static OpSizes trial_sizes(OpSizes s, const TrialLimits& limits) {
    halve<CachedAttention>(s, 1, 4, limits.products);
    halve<CachedAttention>(s, 3, 128, limits.products);
    halve<CachedAttention>(s, 0, 16, limits.products);
    return s;
  }
  static CachedAttention trial(TrialOperands& t, const OpSizes& s, DType dtype) {
    const int64_t width = s[1] * s[2], keys = s[0] + s[3];
    return {t.random(dtype, s[0], width),
            t.random(dtype, keys, width),
            t.random(dtype, keys, width),
            {.heads = s[1], .kv_heads = s[1], .head_dim = s[2], .scale = 0.1F},
            t.undefined(dtype, s[0], width)};
  }
};
void reference(const CachedAttention& op);

using AttentionOps = OpList<Attention, CachedAttention>;

}  // namespace ops
}  // namespace gptq
