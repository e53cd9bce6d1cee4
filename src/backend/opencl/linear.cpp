// Products with weights.
#include "ops/linear.h"

#include "backend/opencl/products.h"

namespace gptq::opencl {
namespace {

void linear(Xpu& xpu, const ops::Linear& op) { multiply(xpu, {.a = op.x, .b = op.w, .c = op.y, .bias = op.bias}); }

}  // namespace

void add_linear_ops(XpuOps& table) { table.add<linear>(); }

}  // namespace gptq::opencl
