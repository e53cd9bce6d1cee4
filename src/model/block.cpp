#include "model/block.h"

#include <algorithm>

#include "base/error.h"

namespace gptq {

const Affine& part_of(const Block& block, Part part) { return block.parts[static_cast<size_t>(part)]; }

const std::vector<Linear>& linears_of(const Block& block, StepKind kind) {
  const auto found = std::find(block.kinds.begin(), block.kinds.end(), kind);
  if (found == block.kinds.end()) throw Error("a block lacks a step of its kind");
  return block.steps[static_cast<size_t>(found - block.kinds.begin())].linears;
}

int64_t first_of_mlp(const Block& block) {
  const auto last = std::find_if(block.kinds.rbegin(), block.kinds.rend(), ends_mixer);
  return block.kinds.rend() - last;
}

namespace {

void multiply_packed(Backend& backend, const Linear& linear, ConstMatrixView x, MatrixView y) {
  const PackedWeight weight = linear.packed.view();
  Matrix ordered;
  if (!linear.packed.order.empty()) {
    ordered = Matrix(backend, x.dtype, x.rows, x.cols);
    backend.run(ops::GatherColumns{.x = x, .ids = linear.packed.order, .y = ordered});
    x = ordered;
  }
  if (x.rows <= ops::PackedLinear::kMostRows)
    return backend.run(ops::PackedLinear{.x = x, .weight = weight, .bias = linear.bias, .y = y});
  constexpr int64_t kElements = int64_t{8} << 20;  // dequantized at a time
  const int64_t at_once = std::max<int64_t>(64, kElements / std::max<int64_t>(x.cols, 1) / 64 * 64);
  for (int64_t first = 0; first < y.cols; first += at_once) {
    const int64_t count = std::min(at_once, y.cols - first);
    Matrix w(backend, x.dtype, count, x.cols);
    backend.run(ops::DequantizePacked{.weight = weight.part(first, count), .w = w});
    const ConstMatrixView bias = linear.bias;
    backend.run(ops::Linear{
        .x = x, .w = w, .bias = bias.empty() ? bias : bias.col_range(first, count), .y = y.col_range(first, count)});
  }
}

}  // namespace

void multiply(Backend& backend, const Linear& linear, ConstMatrixView x, MatrixView y) {
  if (linear.packed.bits > 0) return multiply_packed(backend, linear, x, y);
  if (linear.is_for_texts && x.rows <= ops::NarrowLinear::kMostRows)
    return backend.run(ops::NarrowLinear{.x = x, .w = linear.weight, .bias = linear.bias, .y = y});
  backend.run(ops::Linear{.x = x, .w = linear.weight, .bias = linear.bias, .y = y});
}

Matrix apply(Backend& backend, const Linear& linear, ConstMatrixView x, int64_t room) {
  Matrix y(backend, x.dtype, std::max(x.rows, room), linear.out_features());
  multiply(backend, linear, x, y.view().row_range(0, x.rows));
  return y;
}

Matrix place_matrix(ConstMatrixView host, Backend& backend, DType dtype) {
  Matrix stored = to_device(backend, host.dtype, host.rows, host.cols, host.data);
  if (stored.dtype() == dtype) return stored;
  Matrix converted(backend, dtype, stored.rows(), stored.cols());
  backend.run(ops::Convert{.x = stored, .y = converted});
  return converted;
}

Affine place_part(const Affine& part, Backend& backend) {
  Affine placed;
  if (!part.weight.empty()) placed.weight = place_matrix(part.weight, backend, DType::f32);
  if (!part.bias.empty()) placed.bias = place_matrix(part.bias, backend, DType::f32);
  return placed;
}

}  // namespace gptq
