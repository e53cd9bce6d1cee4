// Convolutions over tokens, row by row: the taps' weights of all channels are rows too.
#include <algorithm>
#include <vector>

#include "backend/cpu/gates.h"

namespace gptq::cpu {
namespace {

// weight [channels, taps] as [taps, channels], the tap of the row itself first.
std::vector<float> taps_of(ConstMatrixView weight) {
  std::vector<float> taps(static_cast<size_t>(weight.size()));
  for (int64_t c = 0; c < weight.rows; ++c) {
    for (int64_t back = 0; back < weight.cols; ++back)
      taps[static_cast<size_t>(back * weight.rows + c)] = weight.row<float>(c)[weight.cols - 1 - back];
  }
  return taps;
}

void causal_convolution(CpuBackend& cpu, const ops::CausalConvolution& op) {
  if (op.y.empty()) return;
  const int64_t width = op.y.cols;
  const std::vector<float> taps = taps_of(op.weight), biases = cpu.widened(op.bias);
  std::vector<int64_t> earlier;  // tokens of the same sequence before each row
  for (size_t s = 0; s + 1 < op.offsets.size(); ++s) {
    for (int64_t row = op.offsets[s]; row < op.offsets[s + 1]; ++row) earlier.push_back(row - op.offsets[s]);
  }
  const auto gate = gate_f32(cpu, op.activation);
  const std::vector<float> ones(static_cast<size_t>(width), 1.0F);
  cpu.for_rows(op.y.rows, width, 2, [&](int64_t row, float* scratch) {
    float* sums = cpu.begin_row(op.y, row, scratch);
    if (biases.empty())
      std::fill_n(sums, width, 0.0F);
    else
      std::copy_n(biases.data(), width, sums);
    const int64_t count = std::min(op.weight.cols, earlier[static_cast<size_t>(row)] + 1);
    for (int64_t back = 0; back < count; ++back)
      cpu.kernels.add_products(cpu.as_f32(op.x, row - back, scratch + width), taps.data() + back * width, sums, width);
    if (op.activation != Activation::identity) gate(sums, ones.data(), sums, width);
    cpu.finish_row(sums, op.y, row);
  });
}

}  // namespace

void add_convolution_ops(CpuOps& table) { table.add<causal_convolution>(); }

}  // namespace gptq::cpu
