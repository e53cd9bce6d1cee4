// Measures of logits.
#include "ops/losses.h"

#include "backend/opencl/xpu.h"

namespace gptq::opencl {
namespace {

Grid rows_of(int64_t rows) {
  constexpr int64_t kThreads = 256;
  return {{rows, 1, 1}, {kThreads, 1, 1}};
}

// For each row log(sum(exp(x))) and the place of the maximum: [rows, 2].
Matrix describe_rows(Xpu& xpu, ConstMatrixView x) {
  Matrix facts(xpu.memory(), DType::f32, x.rows, 2);
  xpu.launch({"losses", "describe_rows"}, rows_of(x.rows), x, facts, static_cast<int32_t>(x.cols));
  return facts;
}

void token_losses(Xpu& xpu, const ops::TokenLosses& op) {
  const Matrix targets = xpu.on_device(op.targets), facts = describe_rows(xpu, op.logits);
  xpu.launch({"losses", "token_losses"}, line(op.logits.rows), op.logits, facts, targets, op.losses, op.logits.rows);
}

void compare_logits(Xpu& xpu, const ops::CompareLogits& op) {
  const Matrix of_p = describe_rows(xpu, op.p), of_q = describe_rows(xpu, op.q);
  xpu.launch({"losses", "compare_logits"}, rows_of(op.p.rows), op.p, op.q, of_p, of_q, op.divergence, op.same_top,
             static_cast<int32_t>(op.p.cols));
}

}  // namespace

void add_loss_ops(XpuOps& table) {
  table.add<token_losses>();
  table.add<compare_logits>();
}

}  // namespace gptq::opencl
