#include "plan/speed.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "base/stopwatch.h"

namespace gptq {
namespace {

// The most multiply-adds or elements of a trial: a few milliseconds; for a large job, whose large calls matter, this
// share of the job.
struct TrialLimits {
  double min_products = 4e8, max_products = 1e10, elements = 1 << 20;
};
constexpr TrialLimits kOfProcessors,
    kOfAccelerators = {.min_products = 1e10, .max_products = 1e12, .elements = 1 << 26};
constexpr double kShare = 1e-4;

bool is_product(std::string_view op) {
  return op == "linear" || op == "gated_linear" || op == "add_linear" || op == "attention" || op == "add_gram" ||
         op == "add_cross_gram" || op == "factor" || op == "solve_triangle" || op == "solve_systems" ||
         op == "add_product_norms" || op == "quantize_columns";
}

// The largest power of two that is not above n.
int64_t rounded_down(int64_t n) {
  int64_t power = 1;
  while (power * 2 <= n) power *= 2;
  return power;
}

// The small call that is timed for `call`. Sizes that do not change the speed are reduced first.
OpCall tried_for(OpCall call, double max_products, double max_elements) {
  auto& [a, b, c, d] = call.sizes;
  if (call.op == "linear" || call.op == "gated_linear" || call.op == "add_linear") {
    // The column loop multiplies with all lengths: powers of two represent them.
    if (b <= 256 && c > 0) c = rounded_down(c);
    while (work_of(call) > max_products && a > 256) a /= 2;
    while (work_of(call) > max_products && b > 256) b /= 2;
    while (work_of(call) > max_products && c > 256) c /= 2;
    return call;
  }
  if (call.op == "attention") {
    if (d > 0 && a > d) a = d;
    while (work_of(call) > max_products && b > 4) b /= 2;
    while (work_of(call) > max_products && d > 128) a = d /= 2;
    return call;
  }
  if (call.op == "add_gram" || call.op == "add_cross_gram" || call.op == "add_product_norms") {
    while (work_of(call) > max_products && a > 256) a /= 2;
    while (work_of(call) > max_products && b > 512) b /= 2;
    return call;
  }
  if (call.op == "factor" || call.op == "permute_symmetric" || call.op == "mirror") {
    // Factorizations need large sizes for full speed.
    while ((is_product(call.op) ? work_of(call) > 2 * max_products : work_of(call) > max_elements) && a > 256) a /= 2;
    return call;
  }
  const double most = is_product(call.op)      ? max_products / 16
                      : call.op == "find_grid" ? max_elements * 8
                                               : max_elements;
  while (work_of(call) > most && a > 16) a /= 2;
  return call;
}

// Random values on a device, the same in every run.
Matrix random_matrix(Backend& backend, DType dtype, int64_t rows, int64_t cols) {
  constexpr int64_t kFresh = 1 << 18;  // distinct values, then repeated
  std::vector<float> values(static_cast<size_t>(std::min(kFresh, rows * cols)));
  std::minstd_rand random(1);
  for (float& value : values) value = static_cast<float>(random()) / static_cast<float>(random.max()) - 0.5F;
  const auto fresh = static_cast<int64_t>(values.size());
  const Matrix wide = to_device(backend, DType::f32, 1, fresh, values.data());
  Matrix matrix(backend, dtype, rows, cols);
  const MatrixView flat(matrix.view().data, dtype, 1, rows * cols);
  for (int64_t first = 0; first < flat.cols; first += fresh) {
    const int64_t count = std::min(fresh, flat.cols - first);
    backend.convert(wide.view().col_range(0, count), flat.col_range(first, count));
  }
  return matrix;
}

Matrix cleared(Backend& backend, DType dtype, int64_t rows, int64_t cols) {
  Matrix matrix(backend, dtype, rows, cols);
  backend.clear(matrix);
  return matrix;
}

// The identity, a positive definite matrix.
Matrix identity(Backend& backend, int64_t n) {
  Matrix matrix = cleared(backend, DType::f32, n, n);
  MatrixView diagonal = matrix.view();
  diagonal.cols = 1;
  diagonal.stride = n + 1;
  backend.upload(diagonal, std::vector<float>(static_cast<size_t>(n), 1).data());
  return matrix;
}

// The shortest time of the op with operands of these sizes, called for `patience` seconds, but at least twice.
double try_call(Backend& backend, const OpCall& call, double patience) {
  const auto [a, b, c, d] = call.sizes;
  const auto matrix = [&](int64_t rows, int64_t cols) { return random_matrix(backend, call.dtype, rows, cols); };
  const auto wide = [&](int64_t rows, int64_t cols) { return random_matrix(backend, DType::f32, rows, cols); };
  double best = INFINITY;
  const auto measure = [&](const std::function<void()>& body) {
    const Stopwatch all;
    for (int i = 0; i < 2 || all.seconds() < patience; ++i) {
      backend.wait();
      const Stopwatch watch;
      body();
      backend.wait();
      best = std::min(best, watch.seconds());
    }
  };
  const int64_t groups = 4;
  const auto grid = [&](int64_t rows) {
    Matrix scales = cleared(backend, DType::f32, rows, groups), zeros = cleared(backend, DType::u8, rows, groups);
    backend.upload(scales, std::vector<float>(static_cast<size_t>(rows * groups), 0.05F).data());
    return std::pair(std::move(scales), std::move(zeros));
  };
  std::vector<int32_t> columns(static_cast<size_t>(std::max(a, b)));
  std::iota(columns.begin(), columns.end(), 0);
  const std::vector<int32_t> first_group(static_cast<size_t>(std::max<int64_t>(b, 1)), 0);

  if (call.op == "linear") {
    const Matrix x = matrix(a, c), w = matrix(b, c);
    Matrix y(backend, call.dtype, a, b);
    measure([&] { backend.linear(x, w, {}, y); });
  } else if (call.op == "add_linear") {
    const Matrix x = matrix(a, c), w = matrix(b, c);
    Matrix y(backend, backend.residual_dtype(call.dtype), a, b);
    measure([&] { backend.add_linear(x, w, {}, 1, y); });
  } else if (call.op == "gated_linear") {
    const Matrix x = matrix(a, c), gate = matrix(b, c), up = matrix(b, c);
    Matrix y(backend, call.dtype, a, b);
    measure([&] { backend.gated_linear(x, {.gate = gate, .up = up}, y); });
  } else if (call.op == "attention") {
    const int64_t width = b * c;
    const Matrix q = matrix(a, width), k = matrix(a, width), v = matrix(a, width);
    Matrix y(backend, call.dtype, a, width);
    const std::vector<int64_t> offsets = {0, a};
    measure([&] { backend.attention(q, k, v, offsets, {.heads = b, .kv_heads = b, .head_dim = c, .scale = 0.1F}, y); });
  } else if (call.op == "add_gram") {
    const Matrix x = matrix(a, b);
    Matrix h = cleared(backend, DType::f32, b, b), dropped = cleared(backend, DType::i32, 1, 1);
    measure([&] { backend.add_gram(x, h, dropped); });
  } else if (call.op == "factor") {
    Matrix h = identity(backend, a);
    measure([&] { backend.factor(h); });
  } else if (call.op == "permute_symmetric") {
    const Matrix h = wide(a, a);
    std::shuffle(columns.begin(), columns.end(), std::minstd_rand(1));
    Matrix y(backend, DType::f32, a, a);
    measure([&] { backend.permute_symmetric(h, std::span(columns).first(static_cast<size_t>(a)), 1, y); });
  } else if (call.op == "add_cross_gram") {
    const Matrix x = matrix(a, b), original = matrix(a, b);
    Matrix product = cleared(backend, DType::f32, b, b);
    measure([&] { backend.add_cross_gram(x, original, product); });
  } else if (call.op == "mirror") {
    Matrix h = wide(a, a);
    measure([&] { backend.mirror(h); });
  } else if (call.op == "solve_triangle") {
    const Matrix factor = identity(backend, b);
    Matrix x = wide(a, b);
    measure([&] { backend.solve_triangle(factor, true, x); });
  } else if (call.op == "solve_systems") {
    Matrix systems = cleared(backend, DType::f32, a, b * b), x = wide(a, b);
    const std::vector<float> ones(static_cast<size_t>(a), 1);
    for (int64_t i = 0; i < b; ++i) backend.upload(systems.view().col_range(i * (b + 1), 1), ones.data());
    measure([&] { backend.solve_systems(systems, 1, x); });
  } else if (call.op == "group_products") {
    const Matrix x = wide(a, b), y = wide(a, b);
    Matrix products(backend, DType::f32, a, b / c);
    measure([&] { backend.group_products(x, y, c, products); });
  } else if (call.op == "add_product_norms") {
    const Matrix w = wide(a, b), factor = identity(backend, b);
    Matrix norms = cleared(backend, DType::f32, a, 1);
    measure([&] { backend.add_product_norms(w, factor, norms); });
  } else if (call.op == "find_grid") {
    const Matrix w = wide(a, b), importance = wide(1, b);
    Matrix scales(backend, DType::f32, a, b / c), zeros(backend, DType::u8, a, b / c);
    const GridSearch search{.candidates = static_cast<int>(d), .shrink_step = 0.8F / static_cast<float>(d)};
    measure([&] { backend.find_grid(w, importance, c, search, scales, zeros); });
  } else if (call.op == "quantize_columns") {
    const Matrix w = wide(a, b), feedback = wide(a, b), factor = identity(backend, b);
    const auto [scales, zeros] = grid(a);
    Matrix codes(backend, DType::u8, a, b), errors(backend, DType::f32, a, b),
        loss = cleared(backend, DType::f32, a, 1);
    measure([&] {
      backend.quantize_columns(w, feedback, factor, first_group, {scales.view(), zeros.view(), 4}, codes, errors, loss);
    });
  } else if (call.op == "round_columns" || call.op == "dequantize") {
    const auto [scales, zeros] = grid(a);
    Matrix codes = cleared(backend, DType::u8, a, b), w = wide(a, b);
    const Grid all{scales.view(), zeros.view(), 4};
    if (call.op == "dequantize") measure([&] { backend.dequantize(codes, first_group, all, w); });
    if (call.op == "round_columns") measure([&] { backend.round_columns(w, first_group, all, codes); });
  } else if (call.op == "pack") {
    const Matrix codes = cleared(backend, DType::u8, a, b);
    Matrix words(backend, DType::i32, b * c / 32, a);
    measure([&] { backend.pack(codes, static_cast<int>(c), words); });
  } else if (call.op == "rms_norm") {
    const Matrix x = matrix(a, b), weight = matrix(1, b);
    Matrix y(backend, call.dtype, a, b);
    measure([&] { backend.rms_norm(x, weight, 1e-5F, y); });
  } else if (call.op == "layer_norm") {
    const Matrix x = matrix(a, b), weight = matrix(1, b);
    Matrix y(backend, call.dtype, a, b);
    measure([&] { backend.layer_norm(x, weight, weight, 1e-5F, y); });
  } else if (call.op == "cap") {
    Matrix x = matrix(a, b);
    measure([&] { backend.cap(Cap::soft, 30, x); });
  } else if (call.op == "add_rows") {
    const Matrix x = matrix(a, b);
    Matrix y = matrix(a, b);
    const std::vector<float> shares(static_cast<size_t>(a), 0.25F);
    measure([&] { backend.add_rows(x, std::span(columns).first(static_cast<size_t>(a)), shares, y); });
  } else if (call.op == "gate") {
    const Matrix gate = matrix(a, b), up = matrix(a, b);
    Matrix y(backend, call.dtype, a, b);
    measure([&] { backend.gate(gate, up, Activation::silu, y); });
  } else if (call.op == "gather_columns") {
    const Matrix x = matrix(a, b);
    Matrix y(backend, call.dtype, a, b);
    measure([&] { backend.gather_columns(x, std::span(columns).first(static_cast<size_t>(b)), y); });
  } else {  // the rest reads and writes each element once
    const Matrix x = matrix(a, b);
    Matrix y = matrix(a, b);
    measure([&] { backend.add(x, 1, y); });
  }
  return best;
}

// Seconds per byte between staging memory and the device, averaged over both directions.
double try_transfers(Backend& backend) {
  constexpr int64_t kBytes = int64_t{32} << 20;
  Matrix host(backend.staging_memory(), DType::u8, 1, kBytes);
  Matrix device = to_device(backend, DType::u8, 1, kBytes, host.view().data);
  double best = INFINITY;
  for (int i = 0; i < 3; ++i) {
    backend.wait();
    const Stopwatch watch;
    backend.upload(device.view(), host.view().data);
    backend.wait();
    backend.download(host.view().data, device);
    backend.wait();
    best = std::min(best, watch.seconds());
  }
  return best / (2 * static_cast<double>(kBytes));
}

}  // namespace

double work_of(const OpCall& call) {
  const auto size = [&](int i) { return static_cast<double>(call.sizes[static_cast<size_t>(i)]); };
  if (call.op == "linear" || call.op == "add_linear") return size(0) * size(1) * std::max(size(2), 16.0);
  if (call.op == "gated_linear") return 2 * size(0) * size(1) * size(2);
  if (call.op == "attention") return size(0) * size(1) * size(2) * size(3);  // half of both products (causal)
  if (call.op == "add_gram") return size(0) * size(1) * size(1) / 2;
  if (call.op == "add_cross_gram") return size(0) * size(1) * size(1);
  if (call.op == "solve_triangle" || call.op == "add_product_norms" || call.op == "quantize_columns")
    return size(0) * size(1) * size(1) / 2;
  if (call.op == "solve_systems") return size(0) * size(1) * size(1) * size(1) / 6;
  if (call.op == "factor") return size(0) * size(0) * size(0) / 6;
  if (call.op == "permute_symmetric" || call.op == "mirror") return size(0) * size(0);
  if (call.op == "find_grid") return size(0) * size(1) * size(3);
  return size(0) * size(1);
}

Speeds::Speeds(Backend& backend, const Calls& calls, double budget) {
  double products = 0;
  for (const auto& [stage, of_stage] : calls) {
    for (const auto& [call, count] : of_stage)
      products += is_product(call.op) ? work_of(call) * static_cast<double>(count) : 0;
  }
  const std::string device = backend.name();
  const bool is_processor = device == "cpu" || device.starts_with("sim");
  const TrialLimits& limits = is_processor ? kOfProcessors : kOfAccelerators;
  max_products_ = std::clamp(kShare * products, limits.min_products, limits.max_products);
  max_elements_ = limits.elements;
  std::map<OpCall, double> totals;  // work represented by each trial
  for (const auto& [stage, of_stage] : calls) {
    for (const auto& [call, count] : of_stage) {
      if (work_of(call) > 0)
        totals[tried_for(call, max_products_, max_elements_)] += work_of(call) * static_cast<double>(count);
    }
  }
  std::vector<std::pair<double, OpCall>> order;
  for (const auto& [call, total] : totals) {
    // An element takes about as long as this many multiply-adds; the most expensive trials come first.
    order.emplace_back(total * (is_product(call.op) ? 1 : 20), call);
  }
  std::sort(order.begin(), order.end(), [](const auto& x, const auto& y) { return x.first > y.first; });

  // After sleep, threads take a while to spread over cores, and cores to raise their clock.
  constexpr double kWarmUp = 0.1;
  if (!order.empty()) try_call(backend, order.front().second, kWarmUp);
  double all = 0;
  for (const auto& [total, call] : order) all += total;

  const Stopwatch watch;
  for (const auto& [total, call] : order) {
    const bool first_of_its_kind = nearest(call) == nullptr;
    if (watch.seconds() > budget && !first_of_its_kind) continue;
    speeds_[call] = work_of(call) / try_call(backend, call, budget / 2 * total / all);
  }
  if (device != "cpu") seconds_per_byte_ = try_transfers(backend);
  backend.trim();
}

// The trial of the same op and dtype whose sizes are most similar.
const double* Speeds::nearest(const OpCall& call) const {
  const double* speed = nullptr;
  double least = INFINITY;
  for (const auto& [tried, found] : speeds_) {
    if (tried.op != call.op || tried.dtype != call.dtype) continue;
    double distance = 0;
    for (size_t i = 0; i < call.sizes.size(); ++i) {
      const auto size = [&](const OpCall& c) {
        return std::log(static_cast<double>(std::max<int64_t>(c.sizes[i], 1)));
      };
      distance += std::abs(size(tried) - size(call));
    }
    if (distance < least) {
      least = distance;
      speed = &found;
    }
  }
  return speed;
}

std::map<std::string, double> Speeds::seconds(const Calls& calls) const {
  std::map<std::string, double> seconds;
  for (const auto& [stage, of_stage] : calls) {
    for (const auto& [call, count] : of_stage) {
      if (work_of(call) <= 0) continue;
      const double* speed = nearest(tried_for(call, max_products_, max_elements_));
      if (speed != nullptr) seconds[stage] += work_of(call) * static_cast<double>(count) / *speed;
    }
  }
  return seconds;
}

}  // namespace gptq
