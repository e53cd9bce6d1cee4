#include "ops/packed.h"

#include <vector>

#include "ops/elements.h"

namespace gptq::ops {
namespace {

// The weights of an output.
std::vector<double> row_of(const PackedWeight& weight, int64_t output) {
  const int bits = weight.bits;
  std::vector<double> row;
  for (int64_t k = 0; k < weight.inputs(); ++k) {
    const int64_t word = k * bits / 32, shift = k * bits % 32, group = k / weight.group_size;
    uint64_t code = weight.words.row<uint32_t>(word)[output] >> shift;
    if (shift + bits > 32) code |= uint64_t{weight.words.row<uint32_t>(word + 1)[output]} << (32 - shift);
    const auto value = static_cast<int>(code & ((1U << bits) - 1));
    row.push_back(load(weight.scales, group, output) * (value - weight.zeros.row<uint8_t>(group)[output]));
  }
  return row;
}

}  // namespace

void reference(const DequantizePacked& op) {
  for (int64_t output = 0; output < op.w.rows; ++output) {
    const std::vector<double> row = row_of(op.weight, output);
    for (int64_t k = 0; k < op.w.cols; ++k) store(op.w, output, k, row[static_cast<size_t>(k)]);
  }
}

void reference(const PackedLinear& op) {
  for (int64_t output = 0; output < op.y.cols; ++output) {
    const std::vector<double> row = row_of(op.weight, output);
    for (int64_t i = 0; i < op.x.rows; ++i) {
      double sum = op.bias.empty() ? 0 : load(op.bias, 0, output);
      for (int64_t k = 0; k < op.x.cols; ++k) sum += load(op.x, i, k) * row[static_cast<size_t>(k)];
      store(op.y, i, output, sum);
    }
  }
}

}  // namespace gptq::ops
