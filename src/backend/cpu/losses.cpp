// Measures of logits, row by row.
#include <algorithm>
#include <cmath>

#include "backend/cpu/cpu_backend.h"

namespace gptq::cpu {
namespace {

struct Softmax {
  float top = 0, log_sum = 0;
};

// The first largest element of x and the logarithm of sum exp(x).
Softmax softmax_of(CpuBackend& cpu, const float* x, int64_t n) {
  const float top = cpu.kernels.maximum(x, n);
  return {top, static_cast<float>(top + std::log(cpu.kernels.sum_of_exponentials(x, top, n)))};
}

void token_losses(CpuBackend& cpu, const ops::TokenLosses& op) {
  cpu.for_rows(op.logits.rows, op.logits.cols, 1, [&](int64_t row, float* scratch) {
    const float* x = cpu.as_f32(op.logits, row, scratch);
    op.losses.row<float>(row)[0] = softmax_of(cpu, x, op.logits.cols).log_sum - x[op.targets[row]];
  });
}

void compare_logits(CpuBackend& cpu, const ops::CompareLogits& op) {
  cpu.for_rows(op.p.rows, op.p.cols, 2, [&](int64_t row, float* scratch) {
    const float *a = cpu.as_f32(op.p, row, scratch), *b = cpu.as_f32(op.q, row, scratch + op.p.cols);
    const Softmax of_a = softmax_of(cpu, a, op.p.cols), of_b = softmax_of(cpu, b, op.p.cols);
    op.divergence.row<float>(row)[0] =
        static_cast<float>(cpu.kernels.divergence(a, of_a.log_sum, b, of_b.log_sum, op.p.cols));
    const auto place = [&](const float* x, float top) { return std::find(x, x + op.p.cols, top) - x; };
    op.same_top.row<float>(row)[0] = place(a, of_a.top) == place(b, of_b.top) ? 1.0F : 0.0F;
  });
}

}  // namespace

void add_loss_ops(CpuOps& table) {
  table.add<token_losses>();
  table.add<compare_logits>();
}

}  // namespace gptq::cpu
