// Single elements of host matrices of any dtype, as doubles: for the reference implementations.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "tensor/matrix.h"

namespace gptq::ops {

inline double load(ConstMatrixView m, int64_t row, int64_t col) {
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

inline void store(MatrixView m, int64_t row, int64_t col, double value) {
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

inline std::vector<double> load_row(ConstMatrixView m, int64_t row) {
  std::vector<double> values(static_cast<size_t>(m.cols));
  for (int64_t col = 0; col < m.cols; ++col) values[col] = load(m, row, col);
  return values;
}

inline void add_to(MatrixView m, int64_t row, int64_t col, double value) {
  store(m, row, col, load(m, row, col) + value);
}

// x becomes x - log(sum(exp(x))).
inline void log_softmax(std::vector<double>& x) {
  const double top = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (const double value : x) sum += std::exp(value - top);
  for (double& value : x) value -= top + std::log(sum);
}

// The code of w on a grid: clamp(round(w / scale) + zero).
inline double code_of(double w, double scale, double zero, int bits) {
  return std::clamp(std::nearbyint(w / scale) + zero, 0.0, static_cast<double>((1 << bits) - 1));
}

}  // namespace gptq::ops
