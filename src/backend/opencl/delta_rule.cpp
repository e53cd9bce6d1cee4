// The gated delta rule.
#include "ops/delta_rule.h"

#include "backend/opencl/recurrence.h"

namespace gptq::opencl {
namespace {

void log_decay(Xpu& xpu, const ops::LogDecay& op) {
  xpu.launch({"delta_rule", "log_decay"}, elements(op.y.rows, op.y.cols), op.x, op.log_rate, op.bias, op.y, op.y.rows,
             op.y.cols);
}

// Shape of kernels/delta_rule.cl.
struct Shape {
  cl_int heads_per_key, key_dim, value_dim;
};

void gated_delta_rule(Xpu& xpu, const ops::GatedDeltaRule& op) {
  if (op.y.empty()) return;
  const DeltaShape& shape = op.shape;
  const Matrix offsets = xpu.on_device(op.offsets);
  const Shape passed = {static_cast<cl_int>(shape.value_heads / shape.key_heads), static_cast<cl_int>(shape.key_dim),
                        static_cast<cl_int>(shape.value_dim)};
  const int64_t of_token = 2 * shape.key_dim, threads = threads_for(xpu, shape.key_dim, of_token);
  const Grid grid = {
      {pieces_of(shape.value_dim, threads), shape.value_heads, static_cast<int64_t>(op.offsets.size()) - 1},
      {threads, 1, 1}};
  xpu.launch({"delta_rule", "gated_delta_rule"}, grid, op.q, op.k, op.v, op.log_decay, op.beta, offsets, op.y, passed,
             local_floats(shape.key_dim * threads), local_floats(of_token));
}

}  // namespace

void add_delta_rule_ops(XpuOps& table) {
  table.add<log_decay>();
  table.add<gated_delta_rule>();
}

}  // namespace gptq::opencl
