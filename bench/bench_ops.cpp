// Each op of the CPU backend against its ceiling, for the shapes of SmolLM2-135M and Llama-3-8B. The ceiling is
// measured first, in the same process and with the same number of threads: sgemm of 1024 x 1024 x 1024 on each core at
// once for products, copying of 64 MB arrays for the rest. Column `share` is the part of it that the op reaches in
// the median call.
#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <random>
#include <span>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>
#include <cblas.h>

#include "backend/backend.h"
#include "backend/registry.h"
#include "base/parallel.h"
#include "vector_units.h"

namespace gptq {
namespace {

struct Ceiling {
  double flops = 0, bytes = 0;  // per second; bytes counts reads and writes
};

// The best of several runs of `work` on all threads at once, in units per second.
double best_rate(ThreadPool& pool, double units, const std::function<void(int64_t)>& work) {
  double best = 0;
  for (int round = 0; round < 12; ++round) {
    const double start = seconds_now(pool.size());
    pool.for_each(pool.size(), work);
    best = std::max(best, units * pool.size() / (seconds_now(pool.size()) - start));
  }
  return best;
}

const Ceiling& ceiling(int threads) {
  static std::map<int, Ceiling> known;
  Ceiling& result = known[threads];
  if (result.flops > 0) return result;
  openblas_set_num_threads(1);
  ThreadPool pool(threads);
  constexpr int n = 1024;
  constexpr size_t kArray = size_t{16} << 20;  // floats
  std::vector<std::vector<float>> a(threads, std::vector<float>(kArray, 0.5F)), b = a;
  result.flops = best_rate(pool, 2.0 * n * n * n, [&](int64_t i) {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, n, n, 1, a[i].data(), n, a[i].data() + n * n, n, 0,
                b[i].data(), n);
  });
  result.bytes = best_rate(pool, 2.0 * kArray * sizeof(float),
                           [&](int64_t i) { std::memcpy(b[i].data(), a[i].data(), kArray * sizeof(float)); });
  return result;
}

Matrix random(Backend& backend, int64_t rows, int64_t cols, float scale = 1, DType dtype = DType::f32) {
  std::vector<float> values(static_cast<size_t>(rows * cols));
  std::minstd_rand generator(static_cast<unsigned>(rows + cols));
  std::normal_distribution<float> normal(0, scale);
  for (float& value : values) value = normal(generator);
  Matrix m = to_device(backend, DType::f32, rows, cols, values.data());
  if (dtype == DType::f32) return m;
  Matrix converted(backend, dtype, rows, cols);
  backend.run(ops::Convert{.x = m, .y = converted});
  return converted;
}

Matrix filled(Backend& backend, DType dtype, int64_t rows, int64_t cols) {
  Matrix m(backend, dtype, rows, cols);
  std::memset(m.view().data, 0, m.bytes());
  return m;
}

Matrix constant(Backend& backend, float value, int64_t rows, int64_t cols) {
  const std::vector<float> values(static_cast<size_t>(rows * cols), value);
  return to_device(backend, DType::f32, rows, cols, values.data());
}

struct Model {
  const char* name;
  int64_t tokens, sequence, hidden, heads, kv_heads, head_dim, intermediate;
};
constexpr Model kModels[] = {{"SmolLM2-135M", 2048, 512, 576, 9, 3, 64, 1536},
                             {"Llama-3-8B", 512, 512, 4096, 32, 8, 128, 14336}};

enum class Kind { product, bytes };

// What an op is given: its operands live as long as the closure. `work` counts flops or bytes of one call.
struct Case {
  Kind kind;
  double work;
  std::function<void()> call;
};

using Setup = std::function<Case(Backend&, const Model&)>;

std::vector<int64_t> sequences(const Model& model) {
  std::vector<int64_t> offsets;
  for (int64_t start = 0; start <= model.tokens; start += model.sequence) offsets.push_back(start);
  return offsets;
}

template <typename T>
std::shared_ptr<T> keep(T&& value) {
  return std::make_shared<T>(std::forward<T>(value));
}

Case linear(Backend& backend, int64_t m, int64_t n, int64_t k, DType w_dtype = DType::f32, DType dtype = DType::f32) {
  auto x = keep(random(backend, m, k, 1, dtype)), w = keep(random(backend, n, k, 1, w_dtype)),
       y = keep(Matrix(backend, dtype, m, n));
  return {Kind::product, 2.0 * m * n * k, [=, &backend] { backend.run(ops::Linear{.x = *x, .w = *w, .y = *y}); }};
}

Case gram(Backend& backend, int64_t tokens, int64_t n, DType dtype = DType::f32) {
  auto x = keep(random(backend, tokens, n, 1, dtype)), h = keep(filled(backend, DType::f32, n, n)),
       dropped = keep(filled(backend, DType::i32, 1, 1));
  return {Kind::product, 1.0 * tokens * n * (n + 1),
          [=, &backend] { backend.run(ops::AddGram{.x = *x, .h = *h, .dropped = *dropped}); }};
}

// With a soft cap or a window, of which only `pairs` of query and key are work.
Case attention(Backend& backend, const Model& model, float soft_cap = 0, int64_t window = 0, DType dtype = DType::f32) {
  auto q = keep(random(backend, model.tokens, model.heads * model.head_dim, 1, dtype)),
       k = keep(random(backend, model.tokens, model.kv_heads * model.head_dim, 1, dtype)),
       v = keep(random(backend, model.tokens, model.kv_heads * model.head_dim, 1, dtype)),
       y = keep(Matrix(backend, dtype, model.tokens, model.heads * model.head_dim));
  const std::vector<int64_t> offsets = sequences(model);
  AttentionShape shape = {model.heads, model.kv_heads, model.head_dim, 0.1F};
  shape.soft_cap = soft_cap;
  shape.window = window;
  // Half of the score matrix, diagonal included, times two products
  double pairs = static_cast<double>(model.tokens) * static_cast<double>(model.sequence + 1) / 2;
  if (window > 0 && window < model.sequence) {
    const auto hidden = static_cast<double>(model.sequence - window);
    pairs -= static_cast<double>(model.tokens) / static_cast<double>(model.sequence) * hidden * (hidden + 1) / 2;
  }
  return {Kind::product, 4.0 * pairs * static_cast<double>(model.heads * model.head_dim), [=, &backend] {
            backend.run(ops::Attention{.q = *q, .k = *k, .v = *v, .offsets = offsets, .shape = shape, .y = *y});
          }};
}

// One row, as of a text that grows token by token: by a weight of 4 bits in groups of 64, and by one of bf16.
Case packed_linear(Backend& backend, int64_t n, int64_t k) {
  auto x = keep(random(backend, 1, k)), y = keep(Matrix(backend, DType::f32, 1, n));
  auto words = keep(filled(backend, DType::i32, k / 8, n)), zeros = keep(filled(backend, DType::u8, k / 64, n)),
       scales = keep(random(backend, k / 64, n, 1, DType::f16));
  const double bytes = static_cast<double>(words->bytes() + zeros->bytes() + scales->bytes());
  return {Kind::bytes, bytes, [=, &backend] {
            backend.run(ops::PackedLinear{.x = *x, .weight = {*words, *scales, *zeros, 4, 64}, .bias = {}, .y = *y});
          }};
}

Case narrow_linear(Backend& backend, int64_t n, int64_t k) {
  auto x = keep(random(backend, 1, k)), w = keep(random(backend, n, k, 1, DType::bf16)),
       y = keep(Matrix(backend, DType::f32, 1, n));
  return {Kind::bytes, static_cast<double>(w->bytes()),
          [=, &backend] { backend.run(ops::NarrowLinear{.x = *x, .w = *w, .bias = {}, .y = *y}); }};
}

// Its query and the keys of a sequence.
Case cached_attention(Backend& backend, const Model& model) {
  auto q = keep(random(backend, 1, model.heads * model.head_dim)),
       k = keep(random(backend, model.sequence, model.kv_heads * model.head_dim)),
       v = keep(random(backend, model.sequence, model.kv_heads * model.head_dim)),
       y = keep(Matrix(backend, DType::f32, 1, model.heads * model.head_dim));
  const AttentionShape shape = {model.heads, model.kv_heads, model.head_dim, 0.1F};
  return {Kind::bytes, static_cast<double>(k->bytes() + v->bytes()),
          [=, &backend] { backend.run(ops::CachedAttention{.q = *q, .k = *k, .v = *v, .shape = shape, .y = *y}); }};
}

// The mixer of Granite 4.0-H Tiny for 2048 tokens of one sequence: its time beside that of its two projections. The
// work counts the products of a chunked form in chunks of 64.
constexpr StateSpaceShape kDual = {.heads = 48, .head_dim = 64, .groups = 1, .state = 128};
constexpr int64_t kDualTokens = 2048, kDualHidden = 1536, kDualIn = 2 * 48 * 64 + 2 * 128 + 48;
Case state_space_dual(Backend& backend, DType dtype = DType::f32) {
  const int64_t width = kDual.heads * kDual.head_dim, of_groups = kDual.groups * kDual.state;
  auto all = keep(random(backend, kDualTokens, width + 2 * of_groups + kDual.heads, 1, dtype)),
       of_heads = keep(random(backend, 1, kDual.heads)), y = keep(Matrix(backend, dtype, kDualTokens, width));
  const std::vector<int64_t> offsets = {0, kDualTokens};
  const double each = 2.0 * (2.0 * 64 * kDual.state + 64.0 * 64) + 2.0 * 64 * kDual.state / 8;
  return {Kind::product, kDualTokens * kDual.heads * each, [=, &backend] {
            const ConstMatrixView columns = *all, vector = *of_heads;
            backend.run(ops::StateSpaceDual{.x = columns.col_range(0, width),
                                            .dt = columns.col_range(width + 2 * of_groups, kDual.heads),
                                            .b = columns.col_range(width, of_groups),
                                            .c = columns.col_range(width + of_groups, of_groups),
                                            .dt_bias = vector,
                                            .a_log = vector,
                                            .d = vector,
                                            .offsets = offsets,
                                            .shape = kDual,
                                            .y = *y});
          }};
}

// The mixer of Mamba 130M for 2048 tokens of one sequence.
Case selective_scan(Backend& backend) {
  constexpr int64_t kTokens = 2048, kChannels = 1536, kState = 16;
  auto x = keep(random(backend, kTokens, kChannels)), bc = keep(random(backend, kTokens, 2 * kState)),
       a_log = keep(random(backend, kChannels, kState)), d = keep(random(backend, 1, kChannels)),
       y = keep(Matrix(backend, DType::f32, kTokens, kChannels));
  const std::vector<int64_t> offsets = {0, kTokens};
  return {Kind::bytes, 12.0 * kTokens * kChannels, [=, &backend] {
            const ConstMatrixView both = *bc;
            backend.run(ops::SelectiveScan{.x = *x,
                                           .dt = *x,
                                           .b = both.col_range(0, kState),
                                           .c = both.col_range(kState, kState),
                                           .a_log = *a_log,
                                           .d = *d,
                                           .offsets = offsets,
                                           .y = *y});
          }};
}

// The mixer of Qwen3-Next 80B-A3B for 2048 tokens of one sequence, beside its two projections. The work counts the
// products of chunks of 64, as GatedDeltaRule::work() does.
constexpr DeltaShape kDelta = {.key_heads = 16, .value_heads = 32, .key_dim = 128, .value_dim = 128};
constexpr int64_t kDeltaTokens = 2048, kDeltaHidden = 2048, kDeltaKeys = kDelta.key_heads * kDelta.key_dim,
                  kDeltaValues = kDelta.value_heads * kDelta.value_dim, kDeltaMixed = 2 * kDeltaKeys + kDeltaValues;
Case gated_delta_rule(Backend& backend, DType dtype = DType::f32) {
  auto mixed = keep(random(backend, kDeltaTokens, kDeltaMixed, 0.05F, dtype)),
       gates = keep(constant(backend, -0.05F, kDeltaTokens, kDelta.value_heads)),
       beta = keep(constant(backend, 0.5F, kDeltaTokens, kDelta.value_heads)),
       y = keep(Matrix(backend, dtype, kDeltaTokens, kDeltaValues));
  const std::vector<int64_t> offsets = {0, kDeltaTokens};
  const double flops =
      2 * ops::GatedDeltaRule::work({kDeltaTokens, kDelta.value_heads, kDelta.key_dim, kDelta.value_dim});
  return {Kind::product, flops, [=, &backend] {
            const ConstMatrixView all = *mixed;
            backend.run(ops::GatedDeltaRule{.q = all.col_range(0, kDeltaKeys),
                                            .k = all.col_range(kDeltaKeys, kDeltaKeys),
                                            .v = all.col_range(2 * kDeltaKeys, kDeltaValues),
                                            .log_decay = *gates,
                                            .beta = *beta,
                                            .offsets = offsets,
                                            .shape = kDelta,
                                            .y = *y});
          }};
}

// The convolution before it.
Case causal_convolution(Backend& backend, DType dtype = DType::f32) {
  auto x = keep(random(backend, kDeltaTokens, kDeltaMixed, 1, dtype)), weight = keep(random(backend, kDeltaMixed, 4)),
       y = keep(Matrix(backend, dtype, kDeltaTokens, kDeltaMixed));
  const std::vector<int64_t> offsets = {0, kDeltaTokens};
  return {Kind::bytes, 2.0 * kDeltaTokens * kDeltaMixed * static_cast<double>(size_of(dtype)), [=, &backend] {
            backend.run(ops::CausalConvolution{
                .x = *x, .weight = *weight, .bias = {}, .offsets = offsets, .activation = Activation::silu, .y = *y});
          }};
}

Case factor(Backend& backend, int64_t n) {
  auto x = keep(random(backend, n + n / 4, n)), h = keep(filled(backend, DType::f32, n, n)),
       dropped = keep(filled(backend, DType::i32, 1, 1)), copy = keep(Matrix(backend, DType::f32, n, n));
  backend.run(ops::AddGram{.x = *x, .h = *h, .dropped = *dropped});
  return {Kind::product, 1.0 / 3 * n * n * n, [=, &backend] {
            backend.run(ops::Convert{.x = *h, .y = *copy});
            backend.run(ops::Factor{.h = *copy});
          }};
}

Case cross_gram(Backend& backend, int64_t tokens, int64_t n) {
  auto x = keep(random(backend, tokens, n)), original = keep(random(backend, tokens, n)),
       c = keep(filled(backend, DType::f32, n, n));
  return {Kind::product, 2.0 * tokens * n * n,
          [=, &backend] { backend.run(ops::AddCrossGram{.x = *x, .original = *original, .c = *c}); }};
}

// The identity is solved in place, so the values stay what they are.
Case solve_triangle(Backend& backend, int64_t rows, int64_t n) {
  auto factor = keep(filled(backend, DType::f32, n, n)), x = keep(random(backend, rows, n));
  for (int64_t i = 0; i < n; ++i) factor->row<float>(i)[i] = 1;
  return {Kind::product, 1.0 * rows * n * n,
          [=, &backend] { backend.run(ops::SolveTriangle{.factor = *factor, .transposed = false, .x = *x}); }};
}

Case solve_systems(Backend& backend, int64_t rows, int64_t n) {
  auto systems = keep(filled(backend, DType::f32, rows, n * n)), x = keep(random(backend, rows, n));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < n; ++i) systems->row<float>(r)[i * (n + 1)] = 1;
  }
  return {Kind::product, 1.0 / 3 * rows * n * n * n,
          [=, &backend] { backend.run(ops::SolveSystems{.a = *systems, .ridge = 0, .x = *x}); }};
}

Case quantize(Backend& backend, int64_t rows) {
  constexpr int64_t kCols = 128;
  auto w = keep(random(backend, rows, kCols, 0.02F)), feedback = keep(random(backend, rows, kCols)),
       factor = keep(filled(backend, DType::f32, kCols, kCols)), scales = keep(Matrix(backend, DType::f32, rows, 1)),
       zeros = keep(Matrix(backend, DType::u8, rows, 1)), codes = keep(Matrix(backend, DType::u8, rows, kCols)),
       errors = keep(Matrix(backend, DType::f32, rows, kCols)), loss = keep(filled(backend, DType::f32, rows, 1));
  for (int64_t i = 0; i < kCols; ++i) factor->row<float>(i)[i] = 50;
  backend.run(ops::FindGrid{.w = *w, .group_size = kCols, .scales = *scales, .zeros = *zeros});
  const std::vector<int32_t> groups(kCols);
  return {Kind::product, 1.0 * rows * kCols * kCols, [=, &backend] {
            backend.run(ops::QuantizeColumns{.w = *w,
                                             .feedback = *feedback,
                                             .factor = *factor,
                                             .groups = groups,
                                             .grid = {*scales, *zeros, 4},
                                             .codes = *codes,
                                             .errors = *errors,
                                             .loss = *loss});
          }};
}

// 7 operations for each weight and candidate; half of sgemm's peak is all that they could reach, being no fused pairs.
Case find_grid(Backend& backend, int64_t rows, int64_t cols, const GridSearch& search) {
  auto w = keep(random(backend, rows, cols, 0.02F)), scales = keep(Matrix(backend, DType::f32, rows, cols / 64)),
       zeros = keep(Matrix(backend, DType::u8, rows, cols / 64));
  return {Kind::product, 7.0 * rows * cols * search.candidates * (search.signed_scales ? 2 : 1), [=, &backend] {
            backend.run(ops::FindGrid{.w = *w, .group_size = 64, .search = search, .scales = *scales, .zeros = *zeros});
          }};
}

Case elementwise(Backend& backend, int64_t rows, int64_t cols, int arrays,
                 const std::function<void(Matrix&, Matrix&, Matrix&)>& call, DType y_dtype = DType::f32) {
  auto a = keep(random(backend, rows, cols)), b = keep(random(backend, rows, cols)),
       y = keep(filled(backend, y_dtype, rows, cols));
  const double bytes = static_cast<double>(rows * cols) * (4.0 * (arrays - 1) + static_cast<double>(size_of(y_dtype)));
  return {Kind::bytes, bytes, [=] { call(*a, *b, *y); }};
}

const std::vector<std::pair<const char*, Setup>>& setups() {
  static const std::vector<std::pair<const char*, Setup>> all = {
      {"linear q", [](Backend& b, const Model& m) { return linear(b, m.tokens, m.heads * m.head_dim, m.hidden); }},
      {"linear k", [](Backend& b, const Model& m) { return linear(b, m.tokens, m.kv_heads * m.head_dim, m.hidden); }},
      {"linear gate", [](Backend& b, const Model& m) { return linear(b, m.tokens, m.intermediate, m.hidden); }},
      {"linear down", [](Backend& b, const Model& m) { return linear(b, m.tokens, m.hidden, m.intermediate); }},
      {"linear head, bf16 weights, 256 tokens",
       [](Backend& b, const Model& m) {
         return linear(b, 256, 49152, std::min<int64_t>(m.hidden, 1024), DType::bf16);
       }},
      {"add_gram hidden", [](Backend& b, const Model& m) { return gram(b, m.tokens, m.hidden); }},
      {"add_gram intermediate",
       [](Backend& b, const Model& m) { return gram(b, m.tokens, std::min<int64_t>(m.intermediate, 8192)); }},
      {"attention", [](Backend& b, const Model& m) { return attention(b, m); }},
      {"linear q, bf16",
       [](Backend& b, const Model& m) {
         return linear(b, m.tokens, m.heads * m.head_dim, m.hidden, DType::bf16, DType::bf16);
       }},
      {"linear k, bf16",
       [](Backend& b, const Model& m) {
         return linear(b, m.tokens, m.kv_heads * m.head_dim, m.hidden, DType::bf16, DType::bf16);
       }},
      {"linear gate, bf16",
       [](Backend& b, const Model& m) {
         return linear(b, m.tokens, m.intermediate, m.hidden, DType::bf16, DType::bf16);
       }},
      {"linear down, bf16",
       [](Backend& b, const Model& m) {
         return linear(b, m.tokens, m.hidden, m.intermediate, DType::bf16, DType::bf16);
       }},
      {"add_gram hidden, bf16", [](Backend& b, const Model& m) { return gram(b, m.tokens, m.hidden, DType::bf16); }},
      {"add_gram intermediate, bf16",
       [](Backend& b, const Model& m) {
         return gram(b, m.tokens, std::min<int64_t>(m.intermediate, 8192), DType::bf16);
       }},
      {"attention, bf16", [](Backend& b, const Model& m) { return attention(b, m, 0, 0, DType::bf16); }},
      {"attention, soft cap 50", [](Backend& b, const Model& m) { return attention(b, m, 50); }},
      {"attention, window 128", [](Backend& b, const Model& m) { return attention(b, m, 0, 128); }},
      {"state_space_dual", [](Backend& b, const Model&) { return state_space_dual(b); }},
      {"state_space_dual, bf16", [](Backend& b, const Model&) { return state_space_dual(b, DType::bf16); }},
      {"state_space_dual's in_proj",
       [](Backend& b, const Model&) { return linear(b, kDualTokens, kDualIn, kDualHidden); }},
      {"state_space_dual's out_proj",
       [](Backend& b, const Model&) { return linear(b, kDualTokens, kDualHidden, 48 * 64); }},
      {"selective_scan", [](Backend& b, const Model&) { return selective_scan(b); }},
      {"selective_scan's in_proj", [](Backend& b, const Model&) { return linear(b, 2048, 3072, 768); }},
      {"selective_scan's out_proj", [](Backend& b, const Model&) { return linear(b, 2048, 768, 1536); }},
      {"gated_delta_rule", [](Backend& b, const Model&) { return gated_delta_rule(b); }},
      {"gated_delta_rule, bf16", [](Backend& b, const Model&) { return gated_delta_rule(b, DType::bf16); }},
      {"causal_convolution", [](Backend& b, const Model&) { return causal_convolution(b); }},
      {"causal_convolution, bf16", [](Backend& b, const Model&) { return causal_convolution(b, DType::bf16); }},
      {"gated_delta_rule's in_proj",
       [](Backend& b, const Model&) { return linear(b, kDeltaTokens, kDeltaMixed + kDeltaValues, kDeltaHidden); }},
      {"gated_delta_rule's out_proj",
       [](Backend& b, const Model&) { return linear(b, kDeltaTokens, kDeltaHidden, kDeltaValues); }},
      {"factor", [](Backend& b, const Model& m) { return factor(b, m.hidden); }},
      {"quantize_columns, 128 columns", [](Backend& b, const Model& m) { return quantize(b, m.intermediate); }},
      {"find_grid, 40 candidates",
       [](Backend& b, const Model& m) {
         return find_grid(b, 1024, m.hidden, {4, true, 40, 0.0175F, 2});
       }},
      {"find_grid, 40 candidates of both signs",
       [](Backend& b, const Model& m) {
         return find_grid(b, 1024, m.hidden, {4, true, 40, 0.0175F, 2, true});
       }},
      {"add_cross_gram hidden", [](Backend& b, const Model& m) { return cross_gram(b, m.tokens, m.hidden); }},
      {"solve_triangle", [](Backend& b, const Model& m) { return solve_triangle(b, m.hidden, m.hidden); }},
      {"solve_systems, 64 unknowns", [](Backend& b, const Model&) { return solve_systems(b, 256, 64); }},
      {"find_grid, 80 candidates, norm 2.4",
       [](Backend& b, const Model& m) {
         return find_grid(b, 1024, m.hidden, {4, true, 80, 0.01F, 2.4F});
       }},
      {"rms_norm",
       [](Backend& b, const Model& m) {
         auto weight = keep(random(b, 1, m.hidden));
         return elementwise(b, m.tokens, m.hidden, 2, [=, &b](Matrix& x, Matrix&, Matrix& y) {
           b.run(ops::RmsNorm{.x = x, .weight = *weight, .eps = 1e-5F, .y = y});
         });
       }},
      {"rms_norm of each head",
       [](Backend& b, const Model& m) {
         auto weight = keep(random(b, 1, m.head_dim));
         return elementwise(b, m.tokens, m.heads * m.head_dim, 2, [=, &b](Matrix& x, Matrix&, Matrix& y) {
           b.run(ops::RmsNorm{.x = x, .weight = *weight, .eps = 1e-5F, .y = y});
         });
       }},
      {"layer_norm",
       [](Backend& b, const Model& m) {
         auto weight = keep(random(b, 1, m.hidden)), bias = keep(random(b, 1, m.hidden));
         return elementwise(b, m.tokens, m.hidden, 2, [=, &b](Matrix& x, Matrix&, Matrix& y) {
           b.run(ops::LayerNorm{.x = x, .weight = *weight, .bias = *bias, .eps = 1e-5F, .y = y});
         });
       }},
      {"xielu",
       [](Backend& b, const Model& m) {
         auto alphas = keep(random(b, 2, 1));
         return elementwise(b, m.tokens, m.hidden, 2, [=, &b](Matrix& x, Matrix&, Matrix& y) {
           b.run(ops::Xielu{.x = x, .alphas = *alphas, .y = y});
         });
       }},
      {"cap, soft",
       [](Backend& b, const Model& m) {
         return elementwise(b, m.tokens, m.hidden, 2, [&b](Matrix& x, Matrix&, Matrix&) {
           b.run(ops::Cap{.kind = ops::Cap::soft, .bound = 30, .x = x});
         });
       }},
      {"gate silu",
       [](Backend& b, const Model& m) {
         return elementwise(b, m.tokens, m.intermediate, 3, [&b](Matrix& x, Matrix& up, Matrix& y) {
           b.run(ops::Gate{.gate = x, .up = up, .activation = Activation::silu, .y = y});
         });
       }},
      {"gate gelu",
       [](Backend& b, const Model& m) {
         return elementwise(b, m.tokens, m.intermediate, 3, [&b](Matrix& x, Matrix& up, Matrix& y) {
           b.run(ops::Gate{.gate = x, .up = up, .activation = Activation::gelu, .y = y});
         });
       }},
      {"add",
       [](Backend& b, const Model& m) {
         return elementwise(b, m.tokens, m.hidden, 3,
                            [&b](Matrix& x, Matrix&, Matrix& y) { b.run(ops::Add{.x = x, .factor = 1, .y = y}); });
       }},
      {"add_rows",
       [](Backend& b, const Model& m) {
         std::vector<int32_t> ids(static_cast<size_t>(m.tokens));
         for (int64_t i = 0; i < m.tokens; ++i) ids[i] = static_cast<int32_t>(i);
         std::shuffle(ids.begin(), ids.end(), std::minstd_rand(1));
         const std::vector<float> weights(ids.size(), 0.25F);
         return elementwise(b, m.tokens, m.hidden, 3, [=, &b](Matrix& x, Matrix&, Matrix& y) {
           b.run(ops::AddRows{.x = x, .ids = ids, .weights = weights, .y = y});
         });
       }},
      {"group_products",
       [](Backend& b, const Model& m) {
         return elementwise(b, m.tokens, m.hidden, 2, [=, &b](Matrix& x, Matrix& y, Matrix& to) {
           b.run(
               ops::GroupProducts{.x = x, .y = y, .group_size = 64, .products = to.view().col_range(0, m.hidden / 64)});
         });
       }},
      {"mirror",
       [](Backend& b, const Model& m) {
         return elementwise(b, m.hidden, m.hidden, 1,
                            [&b](Matrix& h, Matrix&, Matrix&) { b.run(ops::Mirror{.h = h}); });
       }},
      {"rope",
       [](Backend& b, const Model& m) {
         auto cos = keep(random(b, m.sequence, m.head_dim / 2)), sin = keep(random(b, m.sequence, m.head_dim / 2, 0));
         for (int64_t i = 0; i < cos->view().size(); ++i) cos->row<float>(0)[i] = 1;
         const std::vector<int64_t> offsets = sequences(m);
         return elementwise(b, m.tokens, m.heads * m.head_dim, 2, [=, &b](Matrix& x, Matrix&, Matrix&) {
           b.run(ops::Rope{.cos = *cos,
                           .sin = *sin,
                           .offsets = offsets,
                           .order = RotaryOrder::halves,
                           .head_dim = m.head_dim,
                           .x = x});
         });
       }},
      {"rope, interleaved",
       [](Backend& b, const Model& m) {
         auto cos = keep(random(b, m.sequence, m.head_dim / 2)), sin = keep(random(b, m.sequence, m.head_dim / 2, 0));
         for (int64_t i = 0; i < cos->view().size(); ++i) cos->row<float>(0)[i] = 1;
         const std::vector<int64_t> offsets = sequences(m);
         return elementwise(b, m.tokens, m.heads * m.head_dim, 2, [=, &b](Matrix& x, Matrix&, Matrix&) {
           b.run(ops::Rope{.cos = *cos,
                           .sin = *sin,
                           .offsets = offsets,
                           .order = RotaryOrder::interleaved,
                           .head_dim = m.head_dim,
                           .x = x});
         });
       }},
      {"convert to bf16",
       [](Backend& b, const Model& m) {
         return elementwise(
             b, m.tokens, m.intermediate, 2,
             [&b](Matrix& x, Matrix&, Matrix& y) { b.run(ops::Convert{.x = x, .y = y}); }, DType::bf16);
       }},
      {"token_losses, 256 x 49152",
       [](Backend& b, const Model&) {
         const std::vector<int32_t> targets(256);
         return elementwise(b, 256, 49152, 1, [=, &b](Matrix& x, Matrix&, Matrix& y) {
           b.run(ops::TokenLosses{.logits = x, .targets = targets, .losses = y.view().col_range(0, 1)});
         });
       }},
      {"packed_linear, 1 row", [](Backend& b, const Model& m) { return packed_linear(b, m.intermediate, m.hidden); }},
      {"narrow_linear, 1 row", [](Backend& b, const Model& m) { return narrow_linear(b, m.intermediate, m.hidden); }},
      {"cached_attention, 1 query", cached_attention},
      {"permute_symmetric",
       [](Backend& b, const Model& m) {
         std::vector<int32_t> order(static_cast<size_t>(m.hidden));
         for (int64_t i = 0; i < m.hidden; ++i) order[i] = static_cast<int32_t>(i);
         std::shuffle(order.begin(), order.end(), std::minstd_rand(1));
         return elementwise(b, m.hidden, m.hidden, 2, [=, &b](Matrix& h, Matrix&, Matrix& y) {
           b.run(ops::PermuteSymmetric{.h = h, .order = order, .damp = 1, .y = y});
         });
       }},
  };
  return all;
}

void run(benchmark::State& state, const Setup& setup, const Model& model, int threads) {
  const auto backend = open_backend("cpu", {.threads = threads});
  const Case op = setup(*backend, model);
  op.call();
  std::vector<double> seconds;
  for (auto _ : state) {
    const double start = seconds_now(threads);
    op.call();
    seconds.push_back(std::max(seconds_now(threads) - start, 1e-9));
  }
  std::nth_element(seconds.begin(), seconds.begin() + seconds.size() / 2, seconds.end());
  const double rate = op.work / seconds[seconds.size() / 2];
  const Ceiling& top = ceiling(threads);
  state.counters[op.kind == Kind::product ? "GFLOP/s" : "GB/s"] = rate / 1e9;
  state.counters["share"] = rate / (op.kind == Kind::product ? top.flops : top.bytes);
}

void register_all() {
  std::vector<int> thread_counts = {1};
  if (available_cores() > 1) thread_counts.push_back(available_cores());
  for (const int threads : thread_counts) {
    const Ceiling& top = ceiling(threads);
    const std::string label = std::to_string(threads) + (threads == 1 ? " thread" : " threads");
    benchmark::AddCustomContext("ceiling, " + label, std::to_string(static_cast<int>(top.flops / 1e9)) + " GFLOP/s, " +
                                                         std::to_string(static_cast<int>(top.bytes / 1e9)) + " GB/s");
    for (const Model& model : kModels) {
      for (const auto& [name, setup] : setups()) {
        benchmark::RegisterBenchmark(
            (std::string(model.name) + "/" + label + "/" + name).c_str(),
            [&setup = setup, &model, threads](benchmark::State& state) { run(state, setup, model, threads); })
            ->Unit(benchmark::kMillisecond)
            ->UseRealTime();
      }
    }
  }
  benchmark::AddCustomContext("device", open_backend("cpu")->description());
}

}  // namespace
}  // namespace gptq

int main(int argc, char** argv) {
  gptq::register_all();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
