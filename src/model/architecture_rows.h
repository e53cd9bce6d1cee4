// Rows that the parts of the table of architectures share.
#pragma once

#include <vector>

#include "model/architecture.h"

namespace gptq {

Architecture qwen2_row();
Architecture qwen3_row();
std::vector<Architecture> expert_architectures();

}  // namespace gptq
