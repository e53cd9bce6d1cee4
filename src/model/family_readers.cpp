// Readers of single families since 2025; config_readers.cpp has those before, and those that several share.
#include <algorithm>
#include <string>
#include <vector>

#include "model/config_keys.h"
#include "model/config_readers.h"

namespace gptq {

void read_clova_multipliers(const Keys& keys, ModelConfig& config) {
  config.embedding_scale = static_cast<float>(keys.number("embedding_multiplier", 1));
  config.residual_scale = static_cast<float>(keys.number("residual_multiplier", 1));
  config.logit_scale = static_cast<float>(keys.number("logits_scaling", 1));
  if (keys.find("attention_multiplier") == nullptr) return;
  for (BlockKind& kind : config.kinds) kind.score_scale = static_cast<float>(keys.number("attention_multiplier", 1));
}

void read_block_thetas(const Keys& keys, ModelConfig& config) {
  const Json* thetas = keys.list("layer_rope_theta", config.blocks);
  if (thetas == nullptr) return;
  const Rope common = config.ropes[0];
  for (int64_t block = 0; block < config.blocks; ++block) {
    const Json& value = (*thetas)[block];
    if (!value.is_number() || (value != 0 && (value.get<double>() <= 1 || value.get<double>() > kLargestNumber)))
      throw keys.wrong("layer_rope_theta", "needs a number above 1 for each block, or 0 for a block without rope");
    int64_t& rope = config.kinds[static_cast<size_t>(block)].rope;
    rope = -1;
    if (value == 0) continue;
    const auto has_theta = [&](const Rope& other) { return other.theta == value.get<double>(); };
    auto found = std::find_if(config.ropes.begin(), config.ropes.end(), has_theta);
    if (found == config.ropes.end()) {
      found = config.ropes.insert(found, common);
      found->theta = value.get<double>();
    }
    rope = found - config.ropes.begin();
  }
}

void read_reversed_rope(const Keys& /*keys*/, ModelConfig& config) { config.ropes[0].reversed = true; }

void read_logit_cap(const Keys& keys, ModelConfig& config) {
  if (keys.find("final_logit_softcapping") != nullptr)
    config.logit_cap = static_cast<float>(keys.positive("final_logit_softcapping", 15));
}

void read_switched_embedding_scale(const Keys& keys, ModelConfig& config) {
  if (keys.flag("scale_embedding", true)) read_root_embedding_scale(keys, config);
}

void read_mup_embedding_scale(const Keys& keys, ModelConfig& config) {
  if (keys.flag("mup_enabled", false)) read_root_embedding_scale(keys, config);
}

void read_indexed_attention(const Keys& keys, ModelConfig& config) {
  config.dense_tokens = keys.size("index_topk", 2048, kMostTokens);
  for (const char* key : {"index_head_dim", "index_n_heads", "indexer_types", "index_topk_pattern", "index_topk_freq",
                          "index_skip_topk_offset"})
    keys.find(key);  // of the choice, which is not made
  const Json* types = keys.list("layer_types", config.blocks);
  if (types == nullptr) return;
  for (const Json& type : *types) {
    if (type != "indexed_attention")
      throw UnsupportedError(cat(keys.where(), ": layer_types has ", type.dump(), "; supported is indexed_attention"));
  }
}

void read_laguna_attention(const Keys& keys, ModelConfig& config) {
  const Json* gating = keys.find("gating");
  if (gating != nullptr && *gating != true && !gating->is_string())
    throw UnsupportedError(cat(keys.where(), ": gating is ", gating->dump(), "; supported are true and strings"));
  config.gate_per_head = gating == nullptr || *gating == true || *gating == "per-head";
  if (keys.flag("moe_apply_router_weight_on_input", false))
    throw UnsupportedError(cat(keys.where(), ": moe_apply_router_weight_on_input is true; only false is supported"));
  if (keys.number("moe_router_logit_softcapping", 0) > 0)
    throw UnsupportedError(cat(keys.where(), ": moe_router_logit_softcapping is not 0, which is not supported"));
  if (keys.find("rope_parameters") == nullptr) config.ropes[0].rotary_dim = config.head_dim / 4 * 2;  // half a head
  const Json* heads = keys.list("num_attention_heads_per_layer", config.blocks);
  if (heads == nullptr) return;
  for (int64_t block = 0; block < config.blocks; ++block) {
    const Json& count = (*heads)[block];
    if (!is_whole(count, 1, kMostHeads) || count.get<int64_t>() % config.kv_heads != 0) {
      throw keys.wrong("num_attention_heads_per_layer",
                       cat("has ", count.dump(), ", where a multiple of num_key_value_heads is needed"));
    }
    config.kinds[static_cast<size_t>(block)].heads = count.get<int64_t>();
  }
}

void read_apertus(const Keys& keys, ModelConfig& config) {
  const std::string activation = keys.word("hidden_act", "xielu");
  if (activation != "xielu")
    throw UnsupportedError(cat(keys.where(), ": hidden_act is '", activation, "'; supported for this family is xielu"));
  if (keys.find("output_vocab_size") != nullptr &&
      keys.size("output_vocab_size", config.vocabulary, kMostTokens) != config.vocabulary)
    throw UnsupportedError(cat(keys.where(), ": output_vocab_size differs from vocab_size, which is not supported"));
  if (keys.find("rope_parameters") != nullptr || keys.find("rope_scaling") != nullptr) return;
  Rope& rope = config.ropes[0];
  rope.kind = RopeKind::llama3;
  rope.factor = 8;
  rope.original_positions = 8192;
}

void read_mimo(const Keys& keys, ModelConfig& config) {
  const int64_t value_dim = keys.size("v_head_dim", 128);
  if (value_dim > config.head_dim)
    throw UnsupportedError(cat(keys.where(), ": v_head_dim is larger than a query head, which is not supported"));
  config.value_scale = static_cast<float>(keys.number("attention_value_scale", 0.707));
  if (keys.find("sliding_window_size") != nullptr) {
    const int64_t window = keys.size("sliding_window_size", 0, kMostTokens) + 1;
    for (BlockKind& kind : config.kinds) kind.window = kind.window > 0 ? window : 0;
  }
  for (int64_t block = 0; block < config.blocks; ++block) {
    BlockKind& kind = config.kinds[static_cast<size_t>(block)];
    if (keys.find("layer_types") == nullptr && block == 0) kind.window = 0;
    kind.value_dim = value_dim;
    kind.has_sinks = kind.window > 0;
    if (kind.window > 0) kind.kv_heads = 2 * config.kv_heads;
    if (kind.window > 0 && config.heads % kind.kv_heads != 0)
      throw keys.wrong("num_key_value_heads", "does not divide the heads of blocks with a window");
  }
  Rope local{.theta = 10000, .rotary_dim = config.ropes[0].rotary_dim};
  if (keys.find("rope_parameters") != nullptr)
    local = parse_rope(keys, *config.architecture, config.head_dim, config.max_positions, "sliding_attention");
  give_windowed_blocks(local, config);
}

void read_minimax_m3(const Keys& keys, ModelConfig& config) {
  read_clamped_swiglu(keys, config);
  config.intermediate = keys.size("dense_intermediate_size", 12288);
  const Json* own = keys.find("sparse_attention_config");
  const Keys sparse = own == nullptr ? keys : keys.object("sparse_attention_config");
  const int64_t size = sparse.size(sparse.spelled({"index_block_size", "sparse_block_size"}), 128, kMostTokens),
                blocks = sparse.size(sparse.spelled({"index_topk_blocks", "sparse_topk_blocks"}), 16, kMostTokens);
  bool chooses = false;
  if (const Json* types = keys.list("layer_types", config.blocks)) {
    for (const Json& type : *types) {
      if (type != "full_attention" && type != "minimax_m3_sparse")
        throw UnsupportedError(cat(keys.where(), ": layer_types has ", type.dump(),
                                   "; supported are full_attention and minimax_m3_sparse"));
      chooses = chooses || type == "minimax_m3_sparse";
    }
  }
  for (const char* key : {"index_n_heads", "index_head_dim", "index_local_blocks", "sparse_num_index_heads",
                          "sparse_index_dim", "sparse_local_block", "sparse_init_block", "sparse_score_type"})
    sparse.find(key);  // of the choice, which is not made
  if (const Json* sparse_blocks = sparse.find("sparse_attention_freq"); sparse_blocks != nullptr) chooses = true;
  if (chooses) config.dense_tokens = size > kMostTokens / blocks ? 0 : size * blocks;
}

void read_cross_attention(const Keys& keys, ModelConfig& config) {
  std::vector<bool> crosses(static_cast<size_t>(config.blocks));
  const Json* list = keys.find("cross_attention_layers");
  const Json missing = {3, 8, 13, 18, 23, 28, 33, 38};
  for (const Json& block : list == nullptr || !list->is_array() ? missing : *list) {
    if (!is_whole(block, 0, config.blocks - 1))
      throw keys.wrong("cross_attention_layers", "names blocks that the model does not have");
    crosses[block.get<size_t>()] = true;
  }
  for (int64_t block = 0; block < config.blocks; ++block) {
    if (!crosses[static_cast<size_t>(block)]) config.places.push_back(block);
  }
  if (config.places.empty()) throw keys.wrong("cross_attention_layers", "names all blocks");
  config.blocks = static_cast<int64_t>(config.places.size());
  config.kinds.resize(config.places.size());
}

void read_compass(const Keys& keys, ModelConfig& config) {
  config.logit_scale = static_cast<float>(keys.number("logit_scale", 1));
  if (keys.find("rope_parameters") == nullptr) return;
  const Keys ropes = keys.object("rope_parameters");
  Rope local = parse_rope(keys, *config.architecture, config.head_dim, config.max_positions, "sliding_attention");
  give_windowed_blocks(local, config);
  const auto is_null = [&](const char* type) { return ropes.all().contains(type) && ropes.find(type) == nullptr; };
  for (BlockKind& kind : config.kinds) {
    if (is_null(kind.window > 0 ? "sliding_attention" : "full_attention")) kind.rope = -1;
  }
}

void read_multiple_size(const Keys& keys, ModelConfig& config) {
  config.intermediate = config.hidden * keys.size("intermediate_multiple_size", 4, 1024);
}

void read_modernbert(const Keys& keys, ModelConfig& config) {
  if (keys.word("classifier_activation", "gelu") != "gelu" || keys.flag("classifier_bias", false)) {
    throw UnsupportedError(
        cat(keys.where(), ": classifier_activation and classifier_bias; supported are gelu and false"));
  }
  const int64_t window = std::max<int64_t>(keys.size("local_attention", 128, kMostTokens) / 2, 1),
                every = keys.size("global_attn_every_n_layers", 3);
  const Json* types = keys.list("layer_types", config.blocks);
  for (int64_t block = 0; block < config.blocks; ++block) {
    const bool sees_all = types == nullptr ? block % every == 0 : (*types)[block] == "full_attention";
    config.kinds[static_cast<size_t>(block)].window = sees_all ? 0 : window;
  }
  Rope local{.theta = keys.above(1, "local_rope_theta", 10000), .rotary_dim = config.head_dim};
  config.ropes[0] = {.theta = keys.above(1, "global_rope_theta", 160000), .rotary_dim = config.head_dim};
  if (keys.find("rope_parameters") != nullptr) {
    config.ropes[0] = parse_rope(keys, *config.architecture, config.head_dim, config.max_positions);
    local = parse_rope(keys, *config.architecture, config.head_dim, config.max_positions, "sliding_attention");
  }
  give_windowed_blocks(local, config);
}

void read_flint_blocks(const Keys& keys, ModelConfig& config) {
  const bool has_types = keys.find("layer_types") != nullptr, has_dense = keys.find("mlp_only_layers") != nullptr;
  for (int64_t block = 0; block < config.blocks; ++block) {
    BlockKind& kind = config.kinds[static_cast<size_t>(block)];
    if (!has_dense) kind.has_experts = block >= 2;
    const bool sees_all = block < 2 || block % 4 == 1 || block == config.blocks - 1;
    if (!has_types && sees_all) kind.window = 0;
    if (kind.window == 0) kind.rope = -1;
  }
}

void read_cohere2_moe(const Keys& keys, ModelConfig& config) {
  config.norm = keys.find("rms_norm_eps") == nullptr ? NormKind::layer : NormKind::rms;
  const std::string function = keys.word("expert_selection_fn", "softmax");
  if (function != "softmax" && function != "sigmoid") {
    throw UnsupportedError(
        cat(keys.where(), ": expert_selection_fn is '", function, "'; supported are softmax and sigmoid"));
  }
  if (function == "sigmoid") config.expert_row.kind = RouterKind::sigmoid;
  if (function == "softmax") config.experts.renormalized = true;
  const std::string way = keys.word("shared_expert_combination_strategy", "average");
  if (way != "sum" && way != "average") {
    throw UnsupportedError(
        cat(keys.where(), ": shared_expert_combination_strategy is '", way, "'; supported are sum and average"));
  }
  if (way == "average" && config.experts.shared_intermediate > 0) {
    config.experts.scale *= 0.5F;
    config.experts.shared_scale = 0.5F;
  }
  const int64_t every = keys.size("prefix_dense_sliding_window_pattern", 1);
  const bool has_types = keys.find("layer_types") != nullptr;
  const int64_t first = keys.whole("first_k_dense_replace", 0),
                window = config.kinds.empty() ? 0 : keys.size("sliding_window", 4096, kMostTokens),
                later = keys.size("sliding_window_pattern", 4);
  for (int64_t block = 0; block < config.blocks; ++block) {
    BlockKind& kind = config.kinds[static_cast<size_t>(block)];
    if (!has_types) {
      const bool sees_all = block < first ? (block + 1) % every == 0 : (block - first + 1) % later == 0;
      kind.window = sees_all ? 0 : window;
      kind.rope = sees_all ? -1 : 0;
    }
    if (kind.has_experts) continue;
    if (every == 1) kind.rope = 0;
    kind.intermediate = keys.size("prefix_dense_intermediate_size", config.intermediate);
  }
}

}  // namespace gptq
