// The modules of a model. Units, which a device map must cover and never splits, are the embedding, each block, the
// final norm and the head.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "io/checkpoint.h"
#include "model/specs.h"

namespace gptq {

// A unit and the bytes of its weights, in the order of the model.
struct ModelUnit {
  std::string module;  // "model.embed_tokens", "model.layers.0", ..., "model.norm", "lm_head"
  int64_t bytes = 0;
};

// The modules that a map may name, and the units that it must cover.
struct ModuleTree {
  std::vector<ModelUnit> units;
  std::vector<std::string> modules;  // all modules, also inside units: "model.layers.0.self_attn.q_proj"
};

// The modules of a model, from the names of its tensors.
ModuleTree module_tree(const Checkpoint& checkpoint, const ModelConfig& config);

// Modules that contain modules: "model", "model.layers", "model.layers.0", ...
std::unordered_set<std::string_view> parents_of(const std::vector<std::string>& modules);

}  // namespace gptq
