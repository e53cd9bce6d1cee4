// The table of model families is in several files, by kind; these are the rows that one needs from another.
#pragma once

#include <string_view>
#include <vector>

#include "model/architecture.h"

namespace gptq {

Architecture qwen2_row();
Architecture qwen3_row();
Architecture qwen3_vl_row();
Architecture deepseek_v3_row();

// Experts named mlp.experts.#, as in most families.
ExpertRow split_experts();
void add_shared_expert(ExpertRow& experts, std::string_view gate, std::string_view up, std::string_view down);

std::vector<Architecture> gemma_architectures();
std::vector<Architecture> gpt_architectures();
std::vector<Architecture> expert_architectures();
std::vector<Architecture> latent_architectures();
std::vector<Architecture> hybrid_architectures();
std::vector<Architecture> state_space_architectures();
std::vector<Architecture> varied_architectures();

}  // namespace gptq
