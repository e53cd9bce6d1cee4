#include "backend/trial_operands.h"

#include <algorithm>
#include <numeric>
#include <random>

namespace gptq {

MatrixView DeviceOperands::random(DType dtype, int64_t rows, int64_t cols) {
  if (!is_float(dtype)) return zeros(dtype, rows, cols);
  constexpr int64_t kFresh = 1 << 18;  // values, which are then repeated
  std::vector<float> values(static_cast<size_t>(std::min(kFresh, rows * cols)));
  std::minstd_rand random(1);
  for (float& value : values) value = static_cast<float>(random()) / static_cast<float>(random.max()) - 0.5F;
  const auto fresh = static_cast<int64_t>(values.size());
  const Matrix wide = to_device(backend_, DType::f32, 1, fresh, values.data());
  const MatrixView matrix = undefined(dtype, rows, cols), flat(matrix.data, dtype, 1, rows * cols);
  for (int64_t first = 0; first < flat.cols; first += fresh) {
    const int64_t count = std::min(fresh, flat.cols - first);
    backend_.run(ops::Convert{.x = wide.view().col_range(0, count), .y = flat.col_range(first, count)});
  }
  return matrix;
}

MatrixView DeviceOperands::filled(float value, int64_t rows, int64_t cols) {
  const std::vector<float> values(static_cast<size_t>(rows * cols), value);
  return matrices_.emplace_back(to_device(backend_, DType::f32, rows, cols, values.data()));
}

MatrixView DeviceOperands::zeros(DType dtype, int64_t rows, int64_t cols) {
  const MatrixView matrix = undefined(dtype, rows, cols);
  backend_.run(ops::Clear{.y = matrix});
  return matrix;
}

MatrixView DeviceOperands::undefined(DType dtype, int64_t rows, int64_t cols) {
  return matrices_.emplace_back(backend_, dtype, rows, cols);
}

MatrixView DeviceOperands::identities(int64_t rows, int64_t n) {
  const MatrixView matrix = zeros(DType::f32, rows, n * n);
  // The diagonals of all rows, which are n + 1 elements apart, as one column.
  const std::vector<float> ones(static_cast<size_t>(std::max(rows, n)), 1);
  if (rows == 1) {
    backend_.upload({matrix.data, DType::f32, n, 1, n + 1}, ones.data());
  } else {
    for (int64_t i = 0; i < n; ++i) backend_.upload(matrix.col_range(i * (n + 1), 1), ones.data());
  }
  return matrix;
}

std::span<const int32_t> DeviceOperands::ids(int64_t count, int32_t value) {
  return ids_.emplace_back(static_cast<size_t>(count), value);
}

std::span<const int32_t> DeviceOperands::shuffled(int64_t count) {
  std::vector<int32_t>& ids = count_to(count);
  std::shuffle(ids.begin(), ids.end(), std::minstd_rand(1));
  return ids;
}

std::span<const float> DeviceOperands::weights(int64_t count, float value) {
  return weights_.emplace_back(static_cast<size_t>(count), value);
}

std::span<const int64_t> DeviceOperands::sequence(int64_t tokens) {
  return offsets_.emplace_back(std::vector<int64_t>{0, tokens});
}

std::vector<int32_t>& DeviceOperands::count_to(int64_t count) {
  std::vector<int32_t>& ids = ids_.emplace_back(static_cast<size_t>(count));
  std::iota(ids.begin(), ids.end(), 0);
  return ids;
}

}  // namespace gptq
