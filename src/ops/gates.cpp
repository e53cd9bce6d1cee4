#include "ops/gates.h"

#include <algorithm>
#include <cmath>

#include "ops/elements.h"

namespace gptq::ops {

double activated(Activation activation, double x) {
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
    case Activation::quick_gelu:
      return x / (1 + std::exp(-1.702 * x));
    case Activation::sigmoid:
      return 1 / (1 + std::exp(-x));
    case Activation::softplus:
      return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x)));
    case Activation::identity:
      return x;
  }
  return 0;
}

void reference(const Gate& op) {
  for (int64_t i = 0; i < op.y.rows; ++i) {
    for (int64_t j = 0; j < op.y.cols; ++j) {
      double factor = op.up.empty() ? 1 : load(op.up, i, j);
      if (op.activation == Activation::clamped_swiglu) factor = std::clamp(factor, -7.0, 7.0) + 1;
      store(op.y, i, j, activated(op.activation, load(op.gate, i, j)) * factor);
    }
  }
}

void reference(const Cap& op) {
  const double most = op.bound;
  for (int64_t i = 0; i < op.x.rows; ++i) {
    for (int64_t j = 0; j < op.x.cols; ++j) {
      const double value = load(op.x, i, j);
      store(op.x, i, j, op.kind == Cap::hard ? std::clamp(value, -most, most) : most * std::tanh(value / most));
    }
  }
}

void reference(const Xielu& op) {
  const double positive = activated(Activation::softplus, load(op.alphas, 0, 0)),
               negative = 0.5 + activated(Activation::softplus, load(op.alphas, 1, 0));
  for (int64_t i = 0; i < op.y.rows; ++i) {
    for (int64_t j = 0; j < op.y.cols; ++j) {
      const double x = load(op.x, i, j);
      store(op.y, i, j, 0.5 * x + (x > 0 ? positive * x * x : negative * (std::expm1(std::min(x, -1e-6)) - x)));
    }
  }
}

}  // namespace gptq::ops
