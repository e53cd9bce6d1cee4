#include "model/mlp.h"

#include <cmath>
#include <vector>

#include "model/columns.h"

namespace gptq {
namespace {

// The number that a standard normal variable does not exceed with probability `share`.
double normal_quantile(double share) {
  double least = -40, most = 40;
  for (int step = 0; step < 100; ++step) {
    const double middle = (least + most) / 2;
    (0.5 * std::erfc(-middle / std::sqrt(2.0)) < share ? least : most) = middle;
  }
  return (least + most) / 2;
}

// x [rows, cols] -= values[row]
void subtract(Backend& backend, const std::vector<float>& values, MatrixView x) {
  const Matrix column = to_device(backend, DType::f32, x.rows, 1, values.data());
  const Matrix all = outer_product(backend, DType::f32, column, ones(backend, 1, x.cols));
  backend.run(ops::Add{.x = all, .factor = -1, .y = x});
}

// max(0, x - the row's mean - `deviations` times its standard deviation). Changes x [rows, cols] f32.
Matrix cut_rows(Backend& backend, double deviations, MatrixView x) {
  const auto cols = static_cast<float>(x.cols);
  Matrix sums(backend, DType::f32, x.rows, 1), squares = zeros(backend, DType::f32, x.rows, 1);
  backend.run(ops::Linear{.x = x, .w = ones(backend, 1, x.cols), .bias = {}, .y = sums});
  std::vector<float> means = to_host<float>(backend, sums);
  for (float& mean : means) mean /= cols;
  subtract(backend, means, x);
  backend.run(ops::AddRowNorms{.x = x, .norms = squares});
  std::vector<float> bounds = to_host<float>(backend, squares);
  for (float& bound : bounds) bound = static_cast<float>(deviations) * std::sqrt(bound / cols);
  subtract(backend, bounds, x);
  Matrix y(backend, DType::f32, x.rows, x.cols);
  backend.run(ops::Gate{.gate = x, .up = {}, .activation = Activation::relu, .y = y});
  return y;
}

}  // namespace

Matrix Mlp::activate(const Block& block, int64_t step, const Batch& batch) {
  Backend& backend = *block.backend;
  const Step& linears = block.steps[static_cast<size_t>(step)];
  const ConstMatrixView input = batch.input;
  Matrix y(backend, dtype_, batch.tokens(), width(linears));
  const ConstMatrixView alphas = part_of(block, Part::activation_alphas).weight;
  const double sparsity = config_.kinds[static_cast<size_t>(block.index)].sparsity;
  micro_batches_.for_each(batch, [&](Rows rows, SequenceOffsets) {
    if (sparsity > 0) return activate_sparsely(backend, linears, sparsity, rows.of(input), rows.of(y));
    if (alphas.empty()) return activate(backend, linears, rows.of(input), rows.of(y), 0);
    const Matrix x = apply(backend, linears.linears[0], rows.of(input));
    backend.run(ops::Xielu{.x = x, .alphas = alphas, .y = rows.of(y)});
  });
  return y;
}

Matrix Mlp::activate_rows(Backend& backend, const Step& step, ConstMatrixView x, int64_t room) const {
  Matrix y(backend, dtype_, room, width(step));
  activate(backend, step, x, y.view().row_range(0, x.rows), room);
  return y;
}

void Mlp::activate_sparsely(Backend& backend, const Step& step, double sparsity, ConstMatrixView x,
                            MatrixView y) const {
  const Linear& gate = step.linears[0];
  Matrix gates(backend, DType::f32, x.rows, y.cols);
  multiply(backend, gate, x, gates);
  const Matrix cut = cut_rows(backend, normal_quantile(sparsity), gates);
  const Matrix up = apply(backend, step.linears[1], x);
  backend.run(ops::Gate{.gate = cut, .up = up, .activation = config_.activation, .y = y});
}

int64_t Mlp::width(const Step& step) const {
  const bool is_fused = !config_.architecture->gate.empty() && step.linears.size() == 1;
  return step.linears[0].out_features() / (is_fused ? 2 : 1);
}

void Mlp::activate(Backend& backend, const Step& step, ConstMatrixView x, MatrixView y, int64_t room) const {
  const std::vector<Linear>& linears = step.linears;
  if (is_fused(backend, linears[0], dtype_)) {
    const ConstMatrixView weight = linears[0].weight, bias = linears[0].bias;
    GatedWeights weights{.gate = weight, .gate_bias = bias, .activation = config_.activation};
    if (weight.rows != y.cols) {  // gate and up fused in one linear
      weights.gate = weight.row_range(0, y.cols);
      weights.up = weight.row_range(y.cols, y.cols);
      if (!bias.empty()) {
        weights.gate_bias = bias.col_range(0, y.cols);
        weights.up_bias = bias.col_range(y.cols, y.cols);
      }
    } else if (linears.size() > 1) {
      weights.up = linears[1].weight;
      weights.up_bias = linears[1].bias;
    }
    return backend.run(ops::GatedLinear{.x = x, .weights = weights, .y = y});
  }
  const Matrix first = apply(backend, linears[0], x, room),
               second = linears.size() > 1 ? apply(backend, linears[1], x, room) : Matrix();
  const ConstMatrixView gate = first.view().row_range(0, x.rows);
  const bool is_fused = gate.cols != y.cols;
  const ConstMatrixView up = is_fused         ? gate.col_range(y.cols, y.cols)
                             : second.empty() ? ConstMatrixView()
                                              : second.view().row_range(0, x.rows);
  backend.run(ops::Gate{.gate = gate.col_range(0, y.cols), .up = up, .activation = config_.activation, .y = y});
}

}  // namespace gptq
