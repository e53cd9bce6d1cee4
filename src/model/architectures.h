// The table of model families is in four files; these are the rows that one needs from another.
#pragma once

#include <vector>

#include "model/architecture.h"

namespace gptq {

Architecture qwen2_row();
Architecture qwen3_row();
Architecture qwen3_vl_row();
std::vector<Architecture> expert_architectures();
std::vector<Architecture> hybrid_architectures();
std::vector<Architecture> state_space_architectures();

}  // namespace gptq
