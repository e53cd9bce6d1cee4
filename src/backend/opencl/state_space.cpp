// State-space models.
#include "ops/state_space.h"

#include "backend/opencl/recurrence.h"

namespace gptq::opencl {
namespace {

// Shape of kernels/state_space.cl.
struct Shape {
  cl_int head_dim, heads_per_group, state;
  cl_float min_step, max_step;
};

void state_space_dual(Xpu& xpu, const ops::StateSpaceDual& op) {
  if (op.y.empty()) return;
  const StateSpaceShape& shape = op.shape;
  const Matrix offsets = xpu.on_device(op.offsets);
  const Shape passed = {static_cast<cl_int>(shape.head_dim), static_cast<cl_int>(shape.heads / shape.groups),
                        static_cast<cl_int>(shape.state), shape.min_step, shape.max_step};
  const int64_t of_token = 2 * shape.state, threads = threads_for(xpu, shape.state, of_token);
  const Grid grid = {{pieces_of(shape.head_dim, threads), shape.heads, static_cast<int64_t>(op.offsets.size()) - 1},
                     {threads, 1, 1}};
  xpu.launch({"state_space", "state_space_dual"}, grid, op.x, op.dt, op.b, op.c, op.dt_bias, op.a_log, op.d, offsets,
             op.y, passed, local_floats(shape.state * threads), local_floats(of_token));
}

void selective_scan(Xpu& xpu, const ops::SelectiveScan& op) {
  if (op.y.empty()) return;
  const int64_t channels = op.x.cols, state = op.b.cols, of_token = 2 * state;
  const Matrix offsets = xpu.on_device(op.offsets);
  const int64_t threads = threads_for(xpu, 2 * state, of_token);
  const Grid grid = {{pieces_of(channels, threads), static_cast<int64_t>(op.offsets.size()) - 1, 1}, {threads, 1, 1}};
  xpu.launch({"state_space", "selective_scan"}, grid, op.x, op.dt, op.b, op.c, op.a_log, op.d, offsets, op.y,
             static_cast<int32_t>(channels), static_cast<int32_t>(state), local_floats(state * threads),
             local_floats(state * threads), local_floats(of_token));
}

}  // namespace

void add_state_space_ops(XpuOps& table) {
  table.add<state_space_dual>();
  table.add<selective_scan>();
}

}  // namespace gptq::opencl
