// The kernel of a gate, which fused linears call too.
#pragma once

#include "backend/cpu/cpu_backend.h"

namespace gptq::cpu {

GateKernels<uint16_t>::Gate gate_bf16(const CpuBackend& cpu, Activation activation);

}  // namespace gptq::cpu
