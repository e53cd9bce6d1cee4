// Every key of a config.json is read, known to have no effect, or named.
#pragma once

#include <string>
#include <vector>

#include "model/config_keys.h"

namespace gptq {

struct ModelConfig;

// The keys of a language model's config that nobody looked for, with their values ("key: value"), without those that
// transformers does not compute with and those whose value is the one that is computed: null, false, an empty list, a
// default that every family shares.
std::vector<std::string> unread_keys(const Keys& keys, const ModelConfig& config, const KeyLog& log);

// Throws UnsupportedError for unread keys other than those in `ignored`, a list with commas, as `ignore_config_keys`
// has it; `where` names the model.
void refuse_unread(const ModelConfig& config, const std::string& ignored, const std::string& where);

}  // namespace gptq
