// Each op of an accelerator at the shapes of Llama-3-8B, against ceilings measured in the same run: a bf16 product of
// 8192 x 8192 x 8192 for products, the copy of 2 GB for what is limited by memory. Prints a table; times are medians of
// 7 rounds, each of as many calls as fill 20 ms.
//   bench_accelerator [DEVICE [PART]]      default cuda:0; a part is linears, mixers, hessians, columns or elementwise
#include <algorithm>
#include <array>
#include <cstdio>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/registry.h"
#include "base/stopwatch.h"

namespace gptq {
namespace {

class Bench {
 public:
  explicit Bench(const std::string& device) : backend_(open_backend(device)) {}
  void run(const std::string& part);

 private:
  // Normal values of a small block, over and over: as good as fresh ones for a matrix product's clock and power.
  Matrix random(int64_t rows, int64_t cols, DType dtype, float scale = 1) {
    std::mt19937 generator(1);
    std::normal_distribution<float> normal(0, scale);
    std::vector<float> block(size_t{1} << 20);
    for (float& value : block) value = normal(generator);
    Matrix m(*backend_, dtype, rows, cols);
    const auto length = static_cast<int64_t>(block.size());
    MatrixView flat(m.view().data, dtype, 1, rows * cols);
    const Matrix part = to_device(*backend_, DType::f32, 1, length, block.data());
    for (int64_t first = 0; first < flat.cols; first += length) {
      const int64_t count = std::min(length, flat.cols - first);
      backend_->run(ops::Convert{.x = part.view().col_range(0, count), .y = flat.col_range(first, count)});
    }
    return m;
  }
  Matrix cleared(DType dtype, int64_t rows, int64_t cols) {
    Matrix m(*backend_, dtype, rows, cols);
    backend_->run(ops::Clear{.y = m});
    return m;
  }

  double seconds(const std::function<void()>& call) {
    call();
    backend_->wait();
    Stopwatch once;
    call();
    backend_->wait();
    const int calls = std::clamp(static_cast<int>(0.02 / once.seconds()), 1, 1000);
    std::vector<double> rounds;
    for (int round = 0; round < 7; ++round) {
      const Stopwatch watch;
      for (int i = 0; i < calls; ++i) call();
      backend_->wait();
      rounds.push_back(watch.seconds() / calls);
    }
    std::nth_element(rounds.begin(), rounds.begin() + 3, rounds.end());
    return rounds[3];
  }
  void product(const char* name, double flops, const std::function<void()>& call) {
    const double time = seconds(call);
    std::printf("%-58s %10.1f us %8.1f TFLOP/s %5.1f %% of products\n", name, time * 1e6, flops / time / 1e12,
                100 * flops / time / peak_);
  }
  void memory(const char* name, double bytes, const std::function<void()>& call) {
    const double time = seconds(call);
    std::printf("%-58s %10.1f us %8.1f GB/s    %5.1f %% of copying\n", name, time * 1e6, bytes / time / 1e9,
                100 * bytes / time / bandwidth_);
  }

  void linears();
  void hessians();
  void mixers(int64_t sequences);
  void columns(int64_t rows, int64_t cols);
  void elementwise();

  std::unique_ptr<Backend> backend_;
  double peak_ = 1, bandwidth_ = 1;
};

void Bench::linears() {
  const auto one = [&](const char* name, int64_t m, int64_t n, int64_t k, DType dtype) {
    const Matrix x = random(m, k, dtype), w = random(n, k, dtype);
    Matrix y(*backend_, dtype, m, n);
    product(name, 2.0 * m * n * k, [&] { backend_->run(ops::Linear{.x = x, .w = w, .y = y}); });
  };
  one("linear bf16 8192 x 4096 -> 4096 (q, o)", 8192, 4096, 4096, DType::bf16);
  one("linear bf16 8192 x 4096 -> 1024 (k, v)", 8192, 1024, 4096, DType::bf16);
  one("linear bf16 8192 x 4096 -> 14336 (gate, up)", 8192, 14336, 4096, DType::bf16);
  one("linear bf16 8192 x 14336 -> 4096 (down)", 8192, 4096, 14336, DType::bf16);
  one("linear bf16 2048 x 4096 -> 14336", 2048, 14336, 4096, DType::bf16);
  one("linear f32 8192 x 4096 -> 4096", 8192, 4096, 4096, DType::f32);
  one("feedback f32 4096 x 2048 -> 128", 4096, 128, 2048, DType::f32);
  one("feedback f32 1024 x 2048 -> 128", 1024, 128, 2048, DType::f32);
  one("feedback f32 14336 x 2048 -> 128", 14336, 128, 2048, DType::f32);
  one("feedback f32 4096 x 8192 -> 128", 4096, 128, 8192, DType::f32);

  for (const auto& [heads, kv_heads, head_dim] : {std::array<int64_t, 3>{32, 8, 128}, {9, 3, 64}}) {
    const Matrix q = random(8192, heads * head_dim, DType::bf16), k = random(8192, kv_heads * head_dim, DType::bf16),
                 v = random(8192, kv_heads * head_dim, DType::bf16);
    Matrix y(*backend_, DType::bf16, 8192, heads * head_dim);
    const std::vector<int64_t> offsets = {0, 2048, 4096, 6144, 8192};
    const std::string name =
        "attention bf16 4 x 2048, " + std::to_string(heads) + " heads of " + std::to_string(head_dim);
    const auto one_attention = [&](const std::string& kind, const AttentionShape& shape) {
      const double keys_hidden = shape.window > 0 ? 2048.0 - static_cast<double>(shape.window) : 0;
      const double pairs = 2048.0 * 2049 / 2 - keys_hidden * (keys_hidden + 1) / 2;
      product((name + kind).c_str(), 4.0 * 4 * pairs * static_cast<double>(heads * head_dim), [&] {
        backend_->run(ops::Attention{.q = q, .k = k, .v = v, .offsets = offsets, .shape = shape, .y = y});
      });
    };
    const AttentionShape plain = {heads, kv_heads, head_dim, 0.1F};
    AttentionShape capped = plain, windowed = plain, biased = plain;
    capped.soft_cap = 50;
    windowed.window = 512;
    const Matrix each_head = random(1, heads, DType::f32);
    biased.slopes = biased.sinks = each_head;
    one_attention("", plain);
    one_attention(", soft cap", capped);
    one_attention(", window 512", windowed);
    one_attention(", slopes, sinks", biased);
  }
}

// Mixers beside the two projections of their blocks: Granite 4.0-H Small, Nemotron-H 8B, Falcon-Mamba 7B, and
// Qwen3-Next 80B with its convolution.
void Bench::mixers(int64_t sequences) {
  const int64_t tokens = 2048 * sequences, width = 8192;
  std::vector<int64_t> offsets;
  for (int64_t s = 0; s <= sequences; ++s) offsets.push_back(2048 * s);
  const std::string of_tokens = " bf16 " + std::to_string(sequences) + " x 2048 x ";
  const auto projections = [&](int64_t in, int64_t mixer_width = 8192, int64_t hidden = 4096) {
    const Matrix x = random(tokens, hidden, DType::bf16), w = random(in, hidden, DType::bf16),
                 mixed = random(tokens, mixer_width, DType::bf16), out = random(hidden, mixer_width, DType::bf16);
    Matrix projected(*backend_, DType::bf16, tokens, in), y(*backend_, DType::bf16, tokens, hidden);
    return seconds([&] {
      backend_->run(ops::Linear{.x = x, .w = w, .y = projected});
      backend_->run(ops::Linear{.x = mixed, .w = out, .y = y});
    });
  };
  const auto line = [](const std::string& name, double time, double beside) {
    std::printf("%-58s %10.1f us, projections %.1f us: together %.2f x\n", name.c_str(), time * 1e6, beside * 1e6,
                1 + time / beside);
  };
  for (const int64_t groups : {1, 8}) {
    const StateSpaceShape shape{.heads = 128, .head_dim = 64, .groups = groups, .state = 128};
    const int64_t of_groups = groups * shape.state;
    const Matrix all = random(tokens, width + 2 * of_groups + shape.heads, DType::bf16),
                 of_heads = random(1, shape.heads, DType::f32);
    Matrix y(*backend_, DType::bf16, tokens, width);
    const ConstMatrixView columns = all, vector = of_heads;
    const double time = seconds([&] {
      backend_->run(ops::StateSpaceDual{.x = columns.col_range(0, width),
                                        .dt = columns.col_range(width + 2 * of_groups, shape.heads),
                                        .b = columns.col_range(width, of_groups),
                                        .c = columns.col_range(width + of_groups, of_groups),
                                        .dt_bias = vector,
                                        .a_log = vector,
                                        .d = vector,
                                        .offsets = offsets,
                                        .shape = shape,
                                        .y = y});
    });
    line("state_space_dual" + of_tokens + "128 x 64, " + std::to_string(groups) + (groups == 1 ? " group" : " groups"),
         time, projections(2 * width + 2 * of_groups + shape.heads));
  }
  const Matrix x = random(tokens, width, DType::bf16), bc = random(tokens, 32, DType::bf16),
               a_log = random(width, 16, DType::f32), d = random(1, width, DType::f32);
  Matrix y(*backend_, DType::bf16, tokens, width);
  const ConstMatrixView both = bc;
  const double time = seconds([&] {
    backend_->run(ops::SelectiveScan{.x = x,
                                     .dt = x,
                                     .b = both.col_range(0, 16),
                                     .c = both.col_range(16, 16),
                                     .a_log = a_log,
                                     .d = d,
                                     .offsets = offsets,
                                     .y = y});
  });
  line("selective_scan" + of_tokens + "8192 x 16", time, projections(2 * width));

  const DeltaShape delta = {.key_heads = 16, .value_heads = 32, .key_dim = 128, .value_dim = 128};
  const int64_t keys = 16 * 128, values = 32 * 128, all_width = 2 * keys + values;
  const Matrix projected = random(tokens, all_width, DType::bf16), taps = random(all_width, 4, DType::f32),
               mixed = random(tokens, all_width, DType::bf16, 0.05F), beta = cleared(DType::f32, tokens, 32);
  Matrix convolved(*backend_, DType::bf16, tokens, all_width), attended(*backend_, DType::bf16, tokens, values);
  const ConstMatrixView heads = mixed;
  const double convolution_time = seconds([&] {
    backend_->run(ops::CausalConvolution{.x = projected,
                                         .weight = taps,
                                         .bias = {},
                                         .offsets = offsets,
                                         .activation = Activation::silu,
                                         .y = convolved});
  });
  const double delta_time = seconds([&] {
    backend_->run(ops::GatedDeltaRule{.q = heads.col_range(0, keys),
                                      .k = heads.col_range(keys, keys),
                                      .v = heads.col_range(2 * keys, values),
                                      .log_decay = beta,
                                      .beta = beta,
                                      .offsets = offsets,
                                      .shape = delta,
                                      .y = attended});
  });
  const double beside = projections(all_width + values, values, 2048);
  line("causal_convolution" + of_tokens + "8192, 4 taps", convolution_time, beside);
  line("gated_delta_rule" + of_tokens + "32 x 128 x 128", delta_time, beside);
  // Ten experts of a token and the shared one, 512 wide each, as products without routing.
  const int64_t experts = 11 * 512;
  const Matrix x_of_block = random(tokens, 2048, DType::bf16), gate_up = random(2 * experts, 2048, DType::bf16),
               gated = random(tokens, experts, DType::bf16), down = random(2048, experts, DType::bf16);
  Matrix up(*backend_, DType::bf16, tokens, 2 * experts), out(*backend_, DType::bf16, tokens, 2048);
  const double of_experts = seconds([&] {
    backend_->run(ops::Linear{.x = x_of_block, .w = gate_up, .y = up});
    backend_->run(ops::Linear{.x = gated, .w = down, .y = out});
  });
  line("both, beside the block's experts too" + of_tokens, convolution_time + delta_time, beside + of_experts);
}

void Bench::hessians() {
  for (const DType dtype : {DType::bf16, DType::f32}) {
    for (const int64_t n : {576, 1536, 4096, 14336}) {
      if (dtype == DType::f32 && n > 4096) continue;
      const Matrix x = random(8192, n, dtype);
      Matrix h = cleared(DType::f32, n, n), dropped = cleared(DType::i32, 1, 1);
      const std::string name =
          "add_gram " + std::string(name_of(dtype)) + " 8192 x " + std::to_string(n) + ", useful half";
      product(name.c_str(), 8192.0 * n * (n + 1),
              [&] { backend_->run(ops::AddGram{.x = x, .h = h, .dropped = dropped}); });
    }
  }
  for (const int64_t n : {576, 4096, 14336}) {
    const Matrix x = random(n + 1024, n, DType::bf16);
    Matrix h = cleared(DType::f32, n, n), dropped = cleared(DType::i32, 1, 1), work(*backend_, DType::f32, n, n);
    backend_->run(ops::AddGram{.x = x, .h = h, .dropped = dropped});
    std::vector<int32_t> order(static_cast<size_t>(n));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937(1));
    std::string name = "permute_symmetric " + std::to_string(n);
    memory(name.c_str(), 6.0 * n * n,
           [&] { backend_->run(ops::PermuteSymmetric{.h = h, .order = order, .damp = 100, .y = work}); });
    name = "permute and factor " + std::to_string(n);
    product(name.c_str(), 1.0 / 3 * n * n * n, [&] {
      backend_->run(ops::PermuteSymmetric{.h = h, .order = order, .damp = 100, .y = work});
      backend_->run(ops::Factor{.h = work});
    });
  }
}

void Bench::columns(int64_t rows, int64_t cols) {
  constexpr int64_t kGroup = 128;
  const std::string shape = std::to_string(rows) + " x " + std::to_string(cols);
  const Matrix w = random(rows, cols, DType::f32, 0.02F), importance = random(1, cols, DType::f32);
  Matrix scales(*backend_, DType::f32, rows, cols / kGroup), zeros(*backend_, DType::u8, rows, cols / kGroup);
  memory(("find_grid, 40 candidates, " + shape).c_str(), 4.0 * rows * cols, [&] {
    backend_->run(ops::FindGrid{
        .w = w, .group_size = kGroup, .search = {4, true, 40, 0.0175F, 2}, .scales = scales, .zeros = zeros});
  });
  const Matrix feedback = random(rows, kGroup, DType::f32, 0.1F);
  Matrix factor = random(kGroup, kGroup, DType::f32), codes(*backend_, DType::u8, rows, cols),
         errors(*backend_, DType::f32, rows, cols), loss = cleared(DType::f32, rows, 1);
  MatrixView diagonal = factor.view();
  diagonal.cols = 1;
  diagonal.stride = kGroup + 1;
  backend_->upload(diagonal, std::vector<float>(kGroup, 20).data());
  std::vector<int32_t> groups(kGroup);
  for (size_t k = 0; k < groups.size(); ++k) groups[k] = static_cast<int32_t>(k * 7 % (cols / kGroup));
  const Grid grid = {scales.view(), zeros.view(), 4};
  const double time = seconds([&] {
    backend_->run(ops::QuantizeColumns{.w = w.view().col_range(0, kGroup),
                                       .feedback = feedback,
                                       .factor = factor,
                                       .groups = groups,
                                       .grid = grid,
                                       .codes = codes.view().col_range(0, kGroup),
                                       .errors = errors.view().col_range(0, kGroup),
                                       .loss = loss});
  });
  std::printf("%-58s %10.1f us %8.3f us a column\n", ("quantize_columns, 128 of " + shape).c_str(), time * 1e6,
              time * 1e6 / kGroup);
  std::vector<int32_t> order(static_cast<size_t>(cols));
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::mt19937(1));
  memory(("gather_columns f32, " + shape).c_str(), 8.0 * rows * cols,
         [&] { backend_->run(ops::GatherColumns{.x = w, .ids = order, .y = errors}); });
  Matrix words(*backend_, DType::i32, cols / 8, rows), dequantized(*backend_, DType::bf16, rows, cols);
  backend_->run(ops::Clear{.y = codes});
  memory(("pack 4 bits, " + shape).c_str(), 1.5 * rows * cols,
         [&] { backend_->run(ops::Pack{.codes = codes, .bits = 4, .words = words}); });
  memory(("unpack 4 bits, " + shape).c_str(), 1.5 * rows * cols,
         [&] { backend_->run(ops::Unpack{.words = words, .bits = 4, .codes = codes}); });
  const Matrix group_scales = random(cols / kGroup, rows, DType::f16), row = random(1, cols, DType::bf16);
  Matrix group_zeros(*backend_, DType::u8, cols / kGroup, rows), result(*backend_, DType::bf16, 1, rows);
  backend_->run(ops::Clear{.y = group_zeros});
  const PackedWeight packed{words, group_scales, group_zeros, 4, kGroup};
  memory(("1 row by 4 bits, " + shape).c_str(), 0.5 * rows * cols,
         [&] { backend_->run(ops::PackedLinear{.x = row, .weight = packed, .bias = {}, .y = result}); });
  memory(("dequantize 4 bits to bf16, " + shape).c_str(), 2.5 * rows * cols,
         [&] { backend_->run(ops::DequantizePacked{.weight = packed, .w = dequantized}); });
  std::vector<int32_t> g_idx(static_cast<size_t>(cols));
  for (size_t k = 0; k < g_idx.size(); ++k) g_idx[k] = static_cast<int32_t>(k / kGroup);
  memory(("dequantize to bf16, " + shape).c_str(), 3.0 * rows * cols,
         [&] { backend_->run(ops::Dequantize{.codes = codes, .groups = g_idx, .grid = grid, .w = dequantized}); });
}

void Bench::elementwise() {
  const int64_t tokens = 8192, hidden = 4096, wide = 14336;
  const Matrix x = random(tokens, hidden, DType::bf16), weight = random(1, hidden, DType::bf16),
               gate = random(tokens, wide, DType::bf16), cos = random(2048, 64, DType::f32);
  Matrix y = random(tokens, hidden, DType::bf16), z(*backend_, DType::bf16, tokens, wide);
  const std::vector<int64_t> offsets = {0, 2048, 4096, 6144, 8192};
  memory("rms_norm bf16 8192 x 4096", 4.0 * tokens * hidden,
         [&] { backend_->run(ops::RmsNorm{.x = x, .weight = weight, .eps = 1e-5F, .y = y}); });
  const Matrix f32_weight = random(1, hidden, DType::f32), head_weight = random(1, 128, DType::bf16),
               short_weight = random(1, 64, DType::bf16);
  memory("rms_norm bf16 8192 x 4096, f32 weight", 4.0 * tokens * hidden,
         [&] { backend_->run(ops::RmsNorm{.x = x, .weight = f32_weight, .eps = 1e-5F, .y = y}); });
  memory("rms_norm bf16 8192 x 32 x 128", 4.0 * tokens * hidden,
         [&] { backend_->run(ops::RmsNorm{.x = x, .weight = head_weight, .eps = 1e-5F, .y = y}); });
  memory("rms_norm bf16 8192 x 64 x 64", 4.0 * tokens * hidden,
         [&] { backend_->run(ops::RmsNorm{.x = x, .weight = short_weight, .eps = 1e-5F, .y = y}); });
  memory("layer_norm bf16 8192 x 4096", 4.0 * tokens * hidden,
         [&] { backend_->run(ops::LayerNorm{.x = x, .weight = weight, .bias = weight, .eps = 1e-5F, .y = y}); });
  memory("layer_norm bf16 8192 x 32 x 128", 4.0 * tokens * hidden,
         [&] { backend_->run(ops::LayerNorm{.x = x, .weight = head_weight, .eps = 1e-5F, .y = y}); });
  std::vector<int32_t> ids(static_cast<size_t>(tokens));
  std::iota(ids.begin(), ids.end(), 0);
  std::shuffle(ids.begin(), ids.end(), std::mt19937(1));
  const std::vector<float> shares(ids.size(), 0.25F);
  memory("add_rows bf16 8192 x 4096", 6.0 * tokens * hidden,
         [&] { backend_->run(ops::AddRows{.x = x, .ids = ids, .weights = shares, .y = y}); });
  memory("cap bf16 8192 x 4096, soft", 4.0 * tokens * hidden,
         [&] { backend_->run(ops::Cap{.kind = ops::Cap::soft, .bound = 30, .x = y}); });
  const float alpha[2] = {0.2F, -0.9F};
  const Matrix alphas = to_device(*backend_, DType::f32, 2, 1, alpha);
  memory("xielu bf16 8192 x 4096", 4.0 * tokens * hidden,
         [&] { backend_->run(ops::Xielu{.x = x, .alphas = alphas, .y = y}); });
  memory("add bf16 8192 x 4096", 6.0 * tokens * hidden, [&] { backend_->run(ops::Add{.x = x, .factor = 1, .y = y}); });
  memory("rope bf16 8192 x 32 x 128", 4.0 * tokens * hidden, [&] {
    backend_->run(
        ops::Rope{.cos = cos, .sin = cos, .offsets = offsets, .order = RotaryOrder::halves, .head_dim = 128, .x = y});
  });
  memory("rope bf16 8192 x 32 x 128, interleaved", 4.0 * tokens * hidden, [&] {
    backend_->run(ops::Rope{
        .cos = cos, .sin = cos, .offsets = offsets, .order = RotaryOrder::interleaved, .head_dim = 128, .x = y});
  });
  memory("gate silu bf16 8192 x 14336", 6.0 * tokens * wide,
         [&] { backend_->run(ops::Gate{.gate = gate, .up = gate, .activation = Activation::silu, .y = z}); });
  memory("gate gelu bf16 8192 x 14336, no second side", 4.0 * tokens * wide,
         [&] { backend_->run(ops::Gate{.gate = gate, .activation = Activation::gelu, .y = z}); });
}

void Bench::run(const std::string& part) {
  std::printf("%s: %s\n", backend_->name().c_str(), backend_->description().c_str());
  {
    const Matrix x = random(8192, 8192, DType::bf16), w = random(8192, 8192, DType::bf16);
    Matrix y(*backend_, DType::bf16, 8192, 8192);
    peak_ = 2.0 * 8192 * 8192 * 8192 / seconds([&] { backend_->run(ops::Linear{.x = x, .w = w, .y = y}); });
    const Matrix from = random(16384, 32768, DType::f32);
    Matrix to(*backend_, DType::bf16, 16384, 32768);
    bandwidth_ = 6.0 * 16384 * 32768 / seconds([&] { backend_->run(ops::Convert{.x = from, .y = to}); });
  }
  std::printf("ceilings: %.0f TFLOP/s (bf16 8192 x 8192 x 8192), %.0f GB/s (2 GB read, 1 GB written)\n", peak_ / 1e12,
              bandwidth_ / 1e9);
  const auto asked = [&](const char* name) { return part.empty() || part == name; };
  if (asked("linears")) linears();
  if (asked("mixers")) {
    mixers(1);
    mixers(4);
  }
  if (asked("hessians")) hessians();
  if (asked("columns")) {
    columns(4096, 4096);
    columns(1024, 4096);
    columns(14336, 4096);
    columns(4096, 14336);
  }
  if (asked("elementwise")) elementwise();
  for (const auto& [op, calls] : backend_->fallbacks()) std::printf("on the host: %s, %ld times\n", op.c_str(), calls);
}

}  // namespace
}  // namespace gptq

int main(int argc, char** argv) {
  try {
    gptq::Bench(argc > 1 ? argv[1] : "cuda:0").run(argc > 2 ? argv[2] : "");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
