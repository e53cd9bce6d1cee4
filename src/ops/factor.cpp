#include "ops/factor.h"

#include <cmath>
#include <vector>

#include "ops/elements.h"

namespace gptq::ops {

// Row k of h = F' F needs only rows k and later of F, so F is found from its last row upwards.
bool reference(const Factor& op) {
  const int64_t n = op.h.rows;
  std::vector<std::vector<double>> F(static_cast<size_t>(n));
  for (int64_t k = n - 1; k >= 0; --k) {
    F[k] = load_row(op.h, k);
    for (int64_t m = k + 1; m < n; ++m) {
      for (int64_t j = 0; j <= k; ++j) F[k][j] -= F[m][k] * F[m][j];
    }
    if (!(F[k][k] > 0) || !std::isfinite(F[k][k])) return false;
    const double diagonal = std::sqrt(F[k][k]);
    for (int64_t j = 0; j <= k; ++j) F[k][j] /= diagonal;
  }
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j <= i; ++j) store(op.h, i, j, F[i][j]);
  }
  return true;
}

// y F = x is solved from the last column on, y F' = x from the first.
void reference(const SolveTriangle& op) {
  const int64_t n = op.x.cols;
  for (int64_t row = 0; row < op.x.rows; ++row) {
    std::vector<double> y = load_row(op.x, row);
    for (int64_t step = 0; step < n; ++step) {
      const int64_t k = op.transposed ? step : n - 1 - step;
      y[k] /= load(op.factor, k, k);
      if (op.transposed) {
        for (int64_t j = k + 1; j < n; ++j) y[j] -= y[k] * load(op.factor, j, k);
      } else {
        for (int64_t j = 0; j < k; ++j) y[j] -= y[k] * load(op.factor, k, j);
      }
      store(op.x, row, k, y[k]);
    }
  }
}

void reference(const SolveSystems& op) {
  const int64_t n = op.x.cols;
  for (int64_t row = 0; row < op.x.rows; ++row) {
    std::vector<double> L = load_row(op.a, row), y = load_row(op.x, row);
    double trace = 0;
    for (int64_t i = 0; i < n; ++i) trace += L[i * n + i];
    bool positive = true;
    for (int64_t i = 0; i < n; ++i) {  // Cholesky's L, row by row, and L z = x with it
      L[i * n + i] += op.ridge * trace / static_cast<double>(n);
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
    for (int64_t i = 0; i < n; ++i) store(op.x, row, i, positive ? y[i] : 0);
  }
}

}  // namespace gptq::ops
