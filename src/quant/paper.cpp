#include "quant/paper.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "tensor/dtype.h"

namespace gptq {
namespace {

using Square = std::vector<double>;  // [n, n] row-major

// A = L L', L lower triangular.
Square cholesky(Square A, int64_t n) {
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t i = j; i < n; ++i) {
      double sum = A[i * n + j];
      for (int64_t k = 0; k < j; ++k) sum -= A[i * n + k] * A[j * n + k];
      if (i == j && !(sum > 0)) throw Error("the damped Hessian is not positive definite");
      A[i * n + j] = i == j ? std::sqrt(sum) : sum / A[j * n + j];
    }
    std::fill(&A[j * n] + j + 1, &A[j * n] + n, 0.0);
  }
  return A;
}

Square transpose(const Square& A, int64_t n) {
  Square T(A.size());
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) T[j * n + i] = A[i * n + j];
  }
  return T;
}

// inverse(A) for A = L L': the columns of inv(L), then inv(L)' inv(L).
Square inverse_from_cholesky(const Square& L, int64_t n) {
  Square X(n * n, 0.0), inverse(n * n, 0.0);  // X = inv(L)
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t i = j; i < n; ++i) {
      double sum = i == j ? 1 : 0;
      for (int64_t k = j; k < i; ++k) sum -= L[i * n + k] * X[k * n + j];
      X[i * n + j] = sum / L[i * n + i];
    }
  }
  for (int64_t k = 0; k < n; ++k) {
    for (int64_t i = 0; i <= k; ++i) {
      for (int64_t j = 0; j <= k; ++j) inverse[i * n + j] += X[k * n + i] * X[k * n + j];
    }
  }
  return inverse;
}

struct Params {
  double scale;
  int zero;
};

// The min-max grid of one row of a group; the scale is rounded to fp16, as it is stored, before it is used.
Params find_params(std::span<const double> w, const PaperOptions& options) {
  const int maxq = (1 << options.bits) - 1;
  double lo = 0, hi = 0;
  for (const double value : w) {
    lo = std::min(lo, value);
    hi = std::max(hi, value);
  }
  if (options.sym) {
    hi = std::max(-lo, hi);
    lo = -hi;
  }
  if (lo == 0 && hi == 0) {
    lo = -1;
    hi = 1;
  }
  const double scale =
      std::clamp(static_cast<double>(static_cast<float>(Half(static_cast<float>((hi - lo) / maxq)))), 0x1p-24, 65504.0);
  const int zero =
      options.sym ? (maxq + 1) / 2 : static_cast<int>(std::clamp(std::nearbyint(-lo / scale), 0.0, double(maxq)));
  return {scale, zero};
}

}  // namespace

PaperResult paper_gptq(std::span<const double> weights, std::span<const double> hessian, int64_t rows, int64_t cols,
                       const PaperOptions& options) {
  const int64_t n = cols, group_size = options.group_size == -1 ? n : options.group_size, groups = n / group_size;
  const int maxq = (1 << options.bits) - 1;
  std::vector<double> W(weights.begin(), weights.end());
  Square H(hessian.begin(), hessian.end());

  for (int64_t j = 0; j < n; ++j) {  // dead columns: never activated in calibration
    if (H[j * n + j] != 0) continue;
    H[j * n + j] = 1;
    for (int64_t r = 0; r < rows; ++r) W[r * n + j] = 0;
  }
  double mean = 0;
  for (int64_t j = 0; j < n; ++j) mean += H[j * n + j] / static_cast<double>(n);
  for (int64_t j = 0; j < n; ++j) H[j * n + j] += options.damp_percent * mean;
  const Square Hinv = transpose(cholesky(inverse_from_cholesky(cholesky(H, n), n), n), n);  // upper Cholesky of inv(H)

  PaperResult result;
  result.codes.resize(rows * n);
  result.dequantized.resize(rows * n);
  result.scales.resize(rows * groups);
  result.zeros.resize(rows * groups);
  for (int64_t i1 = 0; i1 < n; i1 += options.blocksize) {
    const int64_t i2 = std::min(i1 + options.blocksize, n), count = i2 - i1;
    for (int64_t r = 0; r < rows; ++r) {
      double* w_row = &W[r * n];
      std::vector<double> w(w_row + i1, w_row + i2), err(count);  // this block of the row, with the corrections so far
      for (int64_t i = 0; i < count; ++i) {
        const int64_t column = i1 + i, group = column / group_size;
        if (column % group_size == 0) {  // from weights with the corrections of earlier blocks only
          const auto [scale, zero] = find_params({w_row + column, static_cast<size_t>(group_size)}, options);
          result.scales[r * groups + group] = scale;
          result.zeros[r * groups + group] = static_cast<uint8_t>(zero);
        }
        const double scale = result.scales[r * groups + group], zero = result.zeros[r * groups + group];
        const double d = Hinv[column * n + column];
        const double code = std::clamp(std::nearbyint(w[i] / scale) + zero, 0.0, static_cast<double>(maxq));
        const double q = scale * (code - zero);
        result.codes[r * n + column] = static_cast<uint8_t>(code);
        result.dequantized[r * n + column] = q;
        result.loss += (w[i] - q) * (w[i] - q) / (d * d);
        err[i] = (w[i] - q) / d;
        for (int64_t j = i; j < count; ++j) w[j] -= err[i] * Hinv[column * n + i1 + j];
      }
      for (int64_t i = 0; i < count; ++i) {
        for (int64_t j = i2; j < n; ++j) w_row[j] -= err[i] * Hinv[(i1 + i) * n + j];
      }
    }
  }
  return result;
}

}  // namespace gptq
