// Functions of single elements, row by row.
#include "backend/cpu/gates.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace gptq::cpu {
namespace {

template <typename Element>
typename GateKernels<Element>::Gate gate_of(const GateKernels<Element>& gates, Activation activation) {
  switch (activation) {
    case Activation::gelu:
      return gates.gelu;
    case Activation::gelu_tanh:
      return gates.gelu_tanh;
    case Activation::relu:
      return gates.relu;
    case Activation::relu_squared:
      return gates.relu_squared;
    case Activation::clamped_swiglu:
      return gates.clamped_swiglu;
    case Activation::quick_gelu:
      return gates.quick_gelu;
    case Activation::sigmoid:
      return gates.sigmoid;
    case Activation::softplus:
      return gates.softplus;
    case Activation::identity:
      return gates.identity;
    case Activation::silu:
      break;
  }
  return gates.silu;
}

void gate(CpuBackend& cpu, const ops::Gate& op) {
  if (op.gate.dtype == DType::bf16 && op.y.dtype == DType::bf16 && (op.up.empty() || op.up.dtype == DType::bf16)) {
    const auto kernel = gate_bf16(cpu, op.activation);
    constexpr uint16_t kOne = 0x3f80;
    const std::vector<uint16_t> ones(static_cast<size_t>(op.up.empty() ? op.y.cols : 0), kOne);
    return cpu.for_rows(op.y.rows, op.y.cols, 0, [&](int64_t row, float*) {
      kernel(op.gate.row<uint16_t>(row), op.up.empty() ? ones.data() : op.up.row<uint16_t>(row),
             op.y.row<uint16_t>(row), op.y.cols);
    });
  }
  const auto kernel = gate_f32(cpu, op.activation);
  const std::vector<float> ones(static_cast<size_t>(op.up.empty() ? op.y.cols : 0), 1.0F);
  cpu.for_rows(op.y.rows, op.y.cols, 3, [&](int64_t row, float* scratch) {
    float* result = cpu.begin_row(op.y, row, scratch);
    const float* factors = op.up.empty() ? ones.data() : cpu.as_f32(op.up, row, scratch + 2 * op.y.cols);
    kernel(cpu.as_f32(op.gate, row, scratch + op.y.cols), factors, result, op.y.cols);
    cpu.finish_row(result, op.y, row);
  });
}

void cap(CpuBackend& cpu, const ops::Cap& op) {
  cpu.for_rows(op.x.rows, op.x.cols, 1, [&](int64_t row, float* scratch) {
    float* values = cpu.update_row(op.x, row, scratch);
    (op.kind == ops::Cap::hard ? cpu.kernels.hard_cap : cpu.kernels.soft_cap)(op.bound, values, op.x.cols);
    cpu.finish_row(values, op.x, row);
  });
}

void xielu(CpuBackend& cpu, const ops::Xielu& op) {
  const auto softplus = [](float x) { return std::max(x, 0.0F) + std::log1p(std::exp(-std::abs(x))); };
  const float positive = softplus(op.alphas.row<float>(0)[0]), negative = 0.5F + softplus(op.alphas.row<float>(1)[0]);
  cpu.for_rows(op.y.rows, op.y.cols, 2, [&](int64_t row, float* scratch) {
    float* result = cpu.begin_row(op.y, row, scratch);
    const float* values = cpu.as_f32(op.x, row, scratch + op.y.cols);
    for (int64_t i = 0; i < op.y.cols; ++i) {
      const float x = values[i];
      const float curve = x > 0 ? positive * x * x : negative * (std::expm1(std::min(x, -1e-6F)) - x);
      result[i] = 0.5F * x + curve;
    }
    cpu.finish_row(result, op.y, row);
  });
}

}  // namespace

GateKernels<float>::Gate gate_f32(const CpuBackend& cpu, Activation activation) {
  return gate_of(cpu.kernels.gates, activation);
}

GateKernels<uint16_t>::Gate gate_bf16(const CpuBackend& cpu, Activation activation) {
  return gate_of(cpu.kernels.gates_bf16, activation);
}

void add_gate_ops(CpuOps& table) {
  table.add<gate>();
  table.add<cap>();
  table.add<xielu>();
}

}  // namespace gptq::cpu
