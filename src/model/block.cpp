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

Matrix apply(Backend& backend, const Linear& linear, ConstMatrixView x, int64_t room) {
  Matrix y(backend, x.dtype, std::max(x.rows, room), linear.weight.rows());
  backend.run(ops::Linear{.x = x, .w = linear.weight, .bias = linear.bias, .y = y.view().row_range(0, x.rows)});
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
