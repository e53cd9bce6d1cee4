// The oracle: each op as its comment in ops.h states it, in plain loops over host memory, with all sums in double.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "backend/ops.h"

namespace gptq {
namespace {

double load(ConstMatrixView m, int64_t row, int64_t col) {
  switch (m.dtype) {
    case DType::f32:
      return m.row<float>(row)[col];
    case DType::f16:
      return static_cast<float>(m.row<Half>(row)[col]);
    case DType::bf16:
      return static_cast<float>(m.row<Bf16>(row)[col]);
    case DType::i32:
      return m.row<int32_t>(row)[col];
    case DType::u8:
      return m.row<uint8_t>(row)[col];
  }
  return 0;
}

void store(MatrixView m, int64_t row, int64_t col, double value) {
  const auto rounded = static_cast<float>(value);
  switch (m.dtype) {
    case DType::f32:
      m.row<float>(row)[col] = rounded;
      break;
    case DType::f16:
      m.row<Half>(row)[col] = Half(rounded);
      break;
    case DType::bf16:
      m.row<Bf16>(row)[col] = Bf16(rounded);
      break;
    case DType::i32:
      m.row<int32_t>(row)[col] = static_cast<int32_t>(value);
      break;
    case DType::u8:
      m.row<uint8_t>(row)[col] = static_cast<uint8_t>(value);
      break;
  }
}

std::vector<double> load_row(ConstMatrixView m, int64_t row) {
  std::vector<double> values(static_cast<size_t>(m.cols));
  for (int64_t col = 0; col < m.cols; ++col) values[col] = load(m, row, col);
  return values;
}

void add_to(MatrixView m, int64_t row, int64_t col, double value) { store(m, row, col, load(m, row, col) + value); }

double activate(Activation activation, double x) {
  switch (activation) {
    case Activation::silu:
      return x / (1 + std::exp(-x));
    case Activation::gelu:  // x P(normal <= x)
      return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case Activation::gelu_tanh:  // (1 + tanh(u)) / 2 = 1 / (1 + exp(-2 u))
      return x / (1 + std::exp(-2 * std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::relu:
      return std::max(x, 0.0);
    case Activation::relu_squared:
      return std::max(x, 0.0) * std::max(x, 0.0);
    case Activation::clamped_swiglu:
      return std::min(x, 7.0) / (1 + std::exp(-1.702 * std::min(x, 7.0)));
  }
  return 0;
}

// Calls visit(first column, row of the norm's weight) for each group of columns.
template <typename Visit>
void for_each_group(ConstMatrixView x, ConstMatrixView weight, const Visit& visit) {
  for (int64_t first = 0; first < x.cols; first += weight.cols) visit(first, first / weight.cols % weight.rows);
}

bool sees(const AttentionShape& shape, int64_t query, int64_t key) {
  return key <= query && (shape.window == 0 || query - key < shape.window) &&
         (shape.chunk == 0 || query / shape.chunk == key / shape.chunk);
}

// x becomes x - log(sum(exp(x))).
void log_softmax(std::vector<double>& x) {
  const double top = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (const double value : x) sum += std::exp(value - top);
  for (double& value : x) value -= top + std::log(sum);
}

// The code of w on a grid: clamp(round(w / scale) + zero).
double code_of(double w, double scale, double zero, int bits) {
  return std::clamp(std::nearbyint(w / scale) + zero, 0.0, static_cast<double>((1 << bits) - 1));
}

struct ScaleAndZero {
  double scale = 0, zero = 0;
};

// A scale as fp16 holds it: the nearest one, neither zero nor infinite.
double stored_scale(double scale) {
  const double half = std::abs(static_cast<float>(Half(static_cast<float>(scale))));
  return std::copysign(std::clamp(half, 0x1p-24, 65504.0), scale);
}

// The grids that a search tries for a group whose smallest weight, or 0, is lo and whose largest, or 0, is hi.
std::vector<ScaleAndZero> candidates_of(double lo, double hi, const GridSearch& search) {
  const double top = (1 << search.bits) - 1, middle = (top + 1) / 2;
  if (lo == 0 && hi == 0) lo = -1, hi = 1;
  std::vector<ScaleAndZero> grids;
  for (int candidate = 0; candidate < search.candidates; ++candidate) {
    const double p = 1.0 - candidate * static_cast<double>(search.shrink_step);
    if (!search.symmetric) {
      const double scale = stored_scale(p * (hi - lo) / top), zero = std::nearbyint(-p * lo / scale);
      for (const int step : {0, -1, 1}) {
        if (step == 0 || search.search_zeros) grids.push_back({scale, std::clamp(zero + step, 0.0, top)});
      }
    } else if (search.signed_scales) {
      const double widest = (-lo >= hi ? -lo : -hi) / middle;
      grids.push_back({stored_scale(p * widest), middle});
      if (search.candidates > 1) grids.push_back({stored_scale(-1.05 * p * widest), middle});
    } else {
      grids.push_back({stored_scale(p * 2 * std::max(-lo, hi) / top), middle});
    }
  }
  return grids;
}

class ReferenceOps final : public Ops {
 public:
  void gather_rows(ConstMatrixView table, std::span<const int32_t> ids, MatrixView y) override {
    for (int64_t i = 0; i < y.rows; ++i) {
      for (int64_t j = 0; j < y.cols; ++j) store(y, i, j, load(table, ids[i], j));
    }
  }

  void gather_columns(ConstMatrixView x, std::span<const int32_t> ids, MatrixView y) override {
    for (int64_t i = 0; i < y.rows; ++i) {
      for (int64_t j = 0; j < y.cols; ++j) {
        const ConstMatrixView from = x.block(i, 1, ids[j], 1);
        std::memcpy(y.block(i, 1, j, 1).data, from.data, size_of(from.dtype));
      }
    }
  }

  void convert(ConstMatrixView x, MatrixView y) override {
    for (int64_t i = 0; i < y.rows; ++i) {
      for (int64_t j = 0; j < y.cols; ++j) store(y, i, j, load(x, i, j));
    }
  }

  void clear(MatrixView y) override {
    for (int64_t i = 0; i < y.rows; ++i) {
      auto* row = static_cast<std::byte*>(y.row_range(i, 1).data);
      std::fill(row, row + y.cols * static_cast<int64_t>(size_of(y.dtype)), std::byte{0});
    }
  }

  void add(ConstMatrixView x, float factor, MatrixView y) override {
    for (int64_t i = 0; i < y.rows; ++i) {
      for (int64_t j = 0; j < y.cols; ++j) add_to(y, i, j, static_cast<double>(factor) * load(x, i, j));
    }
  }

  void rms_norm(ConstMatrixView x, ConstMatrixView weight, float eps, MatrixView y) override {
    for (int64_t i = 0; i < x.rows; ++i) {
      for_each_group(x, weight, [&](int64_t first, int64_t row) {
        double squares = 0;
        for (const double value : load_row(x.col_range(first, weight.cols), i)) squares += value * value;
        const double norm = std::sqrt(squares / static_cast<double>(weight.cols) + eps);
        for (int64_t j = 0; j < weight.cols; ++j)
          store(y, i, first + j, load(x, i, first + j) / norm * load(weight, row, j));
      });
    }
  }

  void layer_norm(ConstMatrixView x, ConstMatrixView weight, ConstMatrixView bias, float eps, MatrixView y) override {
    const auto width = static_cast<double>(weight.cols);
    for (int64_t i = 0; i < x.rows; ++i) {
      for_each_group(x, weight, [&](int64_t first, int64_t row) {
        const std::vector<double> values = load_row(x.col_range(first, weight.cols), i);
        double mean = 0, squares = 0;
        for (const double value : values) mean += value / width;
        for (const double value : values) squares += (value - mean) * (value - mean);
        const double deviation = std::sqrt(squares / width + eps);
        for (int64_t j = 0; j < weight.cols; ++j) {
          const double shift = bias.empty() ? 0 : load(bias, row, j);
          store(y, i, first + j, (values[j] - mean) / deviation * load(weight, row, j) + shift);
        }
      });
    }
  }

  void linear(ConstMatrixView x, ConstMatrixView w, ConstMatrixView bias, MatrixView y) override {
    for (int64_t j = 0; j < w.rows; ++j) {
      const std::vector<double> w_row = load_row(w, j);
      for (int64_t i = 0; i < x.rows; ++i) {
        double sum = bias.empty() ? 0 : load(bias, 0, j);
        for (int64_t k = 0; k < x.cols; ++k) sum += load(x, i, k) * w_row[k];
        store(y, i, j, sum);
      }
    }
  }

  void rope(ConstMatrixView cos, ConstMatrixView sin, SequenceOffsets offsets, RotaryOrder order, int64_t head_dim,
            MatrixView x) override {
    for (size_t s = 0; s + 1 < offsets.size(); ++s) {
      for (int64_t row = offsets[s]; row < offsets[s + 1]; ++row) {
        const int64_t position = row - offsets[s];
        for (int64_t head = 0; head < x.cols; head += head_dim) {
          for (int64_t i = 0; i < cos.cols; ++i) {
            const double c = load(cos, position, i), sn = load(sin, position, i);
            const bool halves = order == RotaryOrder::halves;
            const int64_t first = head + (halves ? i : 2 * i), second = first + (halves ? cos.cols : 1);
            const double a = load(x, row, first), b = load(x, row, second);
            store(x, row, first, a * c - b * sn);
            store(x, row, second, b * c + a * sn);
          }
        }
      }
    }
  }

  void attention(ConstMatrixView q, ConstMatrixView k, ConstMatrixView v, SequenceOffsets offsets,
                 const AttentionShape& shape, MatrixView y) override {
    const int64_t width = shape.head_dim;
    for (size_t s = 0; s + 1 < offsets.size(); ++s) {
      for (int64_t head = 0; head < shape.heads; ++head) {
        const int64_t column = head * width, kv_column = head / (shape.heads / shape.kv_heads) * width;
        for (int64_t row = offsets[s]; row < offsets[s + 1]; ++row) {
          std::vector<double> scores;
          for (int64_t key = offsets[s]; key <= row; ++key) {
            double sum = 0;
            for (int64_t d = 0; d < width; ++d) sum += load(q, row, column + d) * load(k, key, kv_column + d);
            sum *= shape.scale;
            if (shape.soft_cap > 0) sum = shape.soft_cap * std::tanh(sum / shape.soft_cap);
            if (!shape.slopes.empty()) sum += load(shape.slopes, 0, head) * static_cast<double>(key - row);
            scores.push_back(sees(shape, row - offsets[s], key - offsets[s]) ? sum : -INFINITY);
          }
          if (!shape.sinks.empty()) scores.push_back(load(shape.sinks, 0, head));
          log_softmax(scores);
          for (int64_t d = 0; d < width; ++d) {
            double sum = 0;
            for (int64_t key = offsets[s]; key <= row; ++key) {
              sum += std::exp(scores[key - offsets[s]]) * load(v, key, kv_column + d);
            }
            store(y, row, column + d, sum);
          }
        }
      }
    }
  }

  void gate(ConstMatrixView gate, ConstMatrixView up, Activation activation, MatrixView y) override {
    for (int64_t i = 0; i < y.rows; ++i) {
      for (int64_t j = 0; j < y.cols; ++j) {
        double factor = up.empty() ? 1 : load(up, i, j);
        if (activation == Activation::clamped_swiglu) factor = std::clamp(factor, -7.0, 7.0) + 1;
        store(y, i, j, activate(activation, load(gate, i, j)) * factor);
      }
    }
  }

  void cap(Cap kind, float bound, MatrixView x) override {
    const double most = bound;
    for (int64_t i = 0; i < x.rows; ++i) {
      for (int64_t j = 0; j < x.cols; ++j) {
        const double value = load(x, i, j);
        store(x, i, j, kind == Cap::hard ? std::clamp(value, -most, most) : most * std::tanh(value / most));
      }
    }
  }

  void add_rows(ConstMatrixView x, std::span<const int32_t> ids, std::span<const float> weights,
                MatrixView y) override {
    for (int64_t i = 0; i < x.rows; ++i) {
      for (int64_t j = 0; j < x.cols; ++j) add_to(y, ids[i], j, static_cast<double>(weights[i]) * load(x, i, j));
    }
  }

  void add_gram(ConstMatrixView x, MatrixView h, MatrixView dropped) override {
    std::vector<std::vector<double>> finite_rows;
    for (int64_t row = 0; row < x.rows; ++row) {
      std::vector<double> values = load_row(x, row);
      if (std::all_of(values.begin(), values.end(), [](double value) { return std::isfinite(value); })) {
        finite_rows.push_back(std::move(values));
      } else {
        dropped.row<int32_t>(0)[0] += 1;
      }
    }
    for (int64_t i = 0; i < x.cols; ++i) {
      for (int64_t j = 0; j <= i; ++j) {
        double sum = 0;
        for (const std::vector<double>& row : finite_rows) sum += row[i] * row[j];
        add_to(h, i, j, sum);
      }
    }
  }

  void add_cross_gram(ConstMatrixView x, ConstMatrixView original, MatrixView c) override {
    Matrix difference(host_memory(), x.dtype, x.rows, x.cols);
    std::vector<int64_t> finite_rows;
    for (int64_t row = 0; row < x.rows; ++row) {
      bool finite = true;
      for (int64_t k = 0; k < x.cols; ++k) {
        const double a = load(x, row, k), b = load(original, row, k);
        finite = finite && std::isfinite(a) && std::isfinite(b);
        store(difference, row, k, b - a);
      }
      if (finite) finite_rows.push_back(row);
    }
    for (int64_t i = 0; i < x.cols; ++i) {
      for (int64_t j = 0; j < x.cols; ++j) {
        double sum = 0;
        for (const int64_t row : finite_rows) sum += load(x, row, i) * load(difference, row, j);
        add_to(c, i, j, sum);
      }
    }
  }

  void mirror(MatrixView h) override {
    for (int64_t i = 0; i < h.rows; ++i) {
      for (int64_t j = i + 1; j < h.cols; ++j) store(h, i, j, load(h, j, i));
    }
  }

  void permute_symmetric(ConstMatrixView h, std::span<const int32_t> order, float damp, MatrixView y) override {
    for (int64_t i = 0; i < y.rows; ++i) {
      for (int64_t j = 0; j < y.cols; ++j) {
        const int64_t a = order[i], b = order[j];
        const double value = load(h, std::max(a, b), std::min(a, b));
        store(y, i, j, j > i ? 0 : j == i ? value + damp : value);
      }
    }
  }

  // y F = x is solved from the last column on, y F' = x from the first.
  void solve_triangle(ConstMatrixView factor, bool transposed, MatrixView x) override {
    const int64_t n = x.cols;
    for (int64_t row = 0; row < x.rows; ++row) {
      std::vector<double> y = load_row(x, row);
      for (int64_t step = 0; step < n; ++step) {
        const int64_t k = transposed ? step : n - 1 - step;
        y[k] /= load(factor, k, k);
        if (transposed) {
          for (int64_t j = k + 1; j < n; ++j) y[j] -= y[k] * load(factor, j, k);
        } else {
          for (int64_t j = 0; j < k; ++j) y[j] -= y[k] * load(factor, k, j);
        }
        store(x, row, k, y[k]);
      }
    }
  }

  void solve_systems(ConstMatrixView a, float ridge, MatrixView x) override {
    const int64_t n = x.cols;
    for (int64_t row = 0; row < x.rows; ++row) {
      std::vector<double> L = load_row(a, row), y = load_row(x, row);
      double trace = 0;
      for (int64_t i = 0; i < n; ++i) trace += L[i * n + i];
      bool positive = true;
      for (int64_t i = 0; i < n; ++i) {  // Cholesky's L, row by row, and L z = x with it
        L[i * n + i] += ridge * trace / static_cast<double>(n);
        for (int64_t j = 0; j <= i; ++j) {
          for (int64_t k = 0; k < j; ++k) L[i * n + j] -= L[i * n + k] * L[j * n + k];
          if (j < i) L[i * n + j] /= L[j * n + j];
        }
        positive = positive && L[i * n + i] > 0 && std::isfinite(L[i * n + i]);
        L[i * n + i] = std::sqrt(L[i * n + i]);
        for (int64_t k = 0; k < i; ++k) y[i] -= L[i * n + k] * y[k];
        y[i] /= L[i * n + i];
      }
      for (int64_t i = n - 1; i >= 0; --i) {
        for (int64_t k = i + 1; k < n; ++k) y[i] -= L[k * n + i] * y[k];
        y[i] /= L[i * n + i];
      }
      for (int64_t i = 0; i < n; ++i) store(x, row, i, positive ? y[i] : 0);
    }
  }

  void group_products(ConstMatrixView x, ConstMatrixView y, int64_t group_size, MatrixView products) override {
    for (int64_t row = 0; row < products.rows; ++row) {
      for (int64_t group = 0; group < products.cols; ++group) {
        double sum = 0;
        for (int64_t k = group * group_size; k < (group + 1) * group_size; ++k)
          sum += load(x, row, k) * load(y, row, k);
        store(products, row, group, sum);
      }
    }
  }

  void add_row_norms(ConstMatrixView x, MatrixView norms) override {
    for (int64_t i = 0; i < x.rows; ++i) {
      double sum = 0;
      for (const double value : load_row(x, i)) sum += value * value;
      add_to(norms, i, 0, sum);
    }
  }

  void add_product_norms(ConstMatrixView w, ConstMatrixView factor, MatrixView norms) override {
    for (int64_t row = 0; row < w.rows; ++row) {
      double sum = 0;
      for (int64_t k = 0; k < w.cols; ++k) {
        double product = 0;
        for (int64_t j = 0; j <= k; ++j) product += load(w, row, j) * load(factor, k, j);
        sum += product * product;
      }
      add_to(norms, row, 0, sum);
    }
  }

  // Row k of h = F' F needs only rows k and later of F, so F is found from its last row upwards.
  bool factor(MatrixView h) override {
    const int64_t n = h.rows;
    std::vector<std::vector<double>> F(static_cast<size_t>(n));
    for (int64_t k = n - 1; k >= 0; --k) {
      F[k] = load_row(h, k);
      for (int64_t m = k + 1; m < n; ++m) {
        for (int64_t j = 0; j <= k; ++j) F[k][j] -= F[m][k] * F[m][j];
      }
      if (!(F[k][k] > 0) || !std::isfinite(F[k][k])) return false;
      const double diagonal = std::sqrt(F[k][k]);
      for (int64_t j = 0; j <= k; ++j) F[k][j] /= diagonal;
    }
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j <= i; ++j) store(h, i, j, F[i][j]);
    }
    return true;
  }

  void find_grid(ConstMatrixView w, ConstMatrixView importance, int64_t group_size, const GridSearch& search,
                 MatrixView scales, MatrixView zeros) override {
    for (int64_t row = 0; row < w.rows; ++row) {
      for (int64_t group = 0; group < scales.cols; ++group) {
        const std::vector<double> values = load_row(w.col_range(group * group_size, group_size), row);
        const double lo = std::min(0.0, *std::min_element(values.begin(), values.end()));
        const double hi = std::max(0.0, *std::max_element(values.begin(), values.end()));
        const std::vector<ScaleAndZero> grids = candidates_of(lo, hi, search);
        ScaleAndZero best = grids.front();
        double least = std::numeric_limits<double>::infinity();
        for (const ScaleAndZero& grid : grids) {
          double error = 0;
          for (int64_t k = 0; k < group_size; ++k) {
            const double code = code_of(values[k], grid.scale, grid.zero, search.bits);
            const double weight = importance.empty() ? 1 : load(importance, 0, group * group_size + k);
            error += weight * std::pow(std::abs(grid.scale * (code - grid.zero) - values[k]), search.norm);
          }
          if (!(error < least)) continue;
          least = error;
          best = grid;
        }
        store(scales, row, group, best.scale);
        store(zeros, row, group, best.zero);
      }
    }
  }

  void quantize_columns(ConstMatrixView w, ConstMatrixView feedback, ConstMatrixView factor,
                        std::span<const int32_t> groups, const Grid& grid, MatrixView codes, MatrixView errors,
                        MatrixView loss) override {
    for (int64_t row = 0; row < w.rows; ++row) {
      std::vector<double> a = load_row(feedback, row);
      double row_loss = 0;
      for (int64_t k = 0; k < w.cols; ++k) {
        const double scale = load(grid.scales, row, groups[k]), zero = load(grid.zeros, row, groups[k]);
        const double diagonal = load(factor, k, k);
        const double target = load(w, row, k) + a[k] / diagonal;
        const double code = code_of(target, scale, zero, grid.bits);
        const double dequantized = scale * (code - zero);
        const double error = load(w, row, k) - dequantized;
        for (int64_t j = k + 1; j < w.cols; ++j) a[j] += error * load(factor, j, k);
        row_loss += diagonal * (target - dequantized) * diagonal * (target - dequantized);
        store(codes, row, k, code);
        store(errors, row, k, error);
      }
      add_to(loss, row, 0, row_loss);
    }
  }

  void round_columns(ConstMatrixView w, std::span<const int32_t> groups, const Grid& grid, MatrixView codes) override {
    for (int64_t row = 0; row < w.rows; ++row) {
      for (int64_t k = 0; k < w.cols; ++k) {
        const double scale = load(grid.scales, row, groups[k]), zero = load(grid.zeros, row, groups[k]);
        store(codes, row, k, code_of(load(w, row, k), scale, zero, grid.bits));
      }
    }
  }

  void dequantize(ConstMatrixView codes, std::span<const int32_t> groups, const Grid& grid, MatrixView w) override {
    for (int64_t row = 0; row < w.rows; ++row) {
      for (int64_t k = 0; k < w.cols; ++k) {
        const double scale = load(grid.scales, row, groups[k]), zero = load(grid.zeros, row, groups[k]);
        store(w, row, k, scale * (load(codes, row, k) - zero));
      }
    }
  }

  void pack(ConstMatrixView codes, int bits, MatrixView words) override {
    for (int64_t row = 0; row < codes.rows; ++row) {
      std::vector<uint32_t> stream(static_cast<size_t>(words.rows));
      for (int64_t bit = 0; bit < codes.cols * bits; ++bit) {
        const uint32_t code = codes.row<uint8_t>(row)[bit / bits];
        stream[bit / 32] |= (code >> (bit % bits) & 1) << (bit % 32);
      }
      for (int64_t word = 0; word < words.rows; ++word) words.row<uint32_t>(word)[row] = stream[word];
    }
  }

  void token_losses(ConstMatrixView logits, std::span<const int32_t> targets, MatrixView losses) override {
    for (int64_t row = 0; row < logits.rows; ++row) {
      std::vector<double> log_probabilities = load_row(logits, row);
      log_softmax(log_probabilities);
      store(losses, row, 0, -log_probabilities[targets[row]]);
    }
  }

  void compare_logits(ConstMatrixView p, ConstMatrixView q, MatrixView divergence, MatrixView same_top) override {
    for (int64_t row = 0; row < p.rows; ++row) {
      std::vector<double> log_p = load_row(p, row), log_q = load_row(q, row);
      const auto top = [](const std::vector<double>& x) { return std::max_element(x.begin(), x.end()) - x.begin(); };
      store(same_top, row, 0, top(log_p) == top(log_q) ? 1 : 0);
      log_softmax(log_p);
      log_softmax(log_q);
      double sum = 0;
      for (int64_t j = 0; j < p.cols; ++j) sum += std::exp(log_p[j]) * (log_p[j] - log_q[j]);
      store(divergence, row, 0, sum);
    }
  }
};

}  // namespace

Ops& reference() {
  static ReferenceOps ops;
  return ops;
}

}  // namespace gptq
