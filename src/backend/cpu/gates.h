// The kernels of a gate, which fused linears and convolutions call too.
#pragma once

#include "backend/cpu/cpu_backend.h"

namespace gptq::cpu {

GateKernels<float>::Gate gate_f32(const CpuBackend& cpu, Activation activation);
GateKernels<uint16_t>::Gate gate_bf16(const CpuBackend& cpu, Activation activation);

}  // namespace gptq::cpu
