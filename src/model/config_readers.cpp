#include "model/config_readers.h"

namespace gptq {

void read_root_embedding_scale(const Keys& /*keys*/, ModelConfig& config) {
  config.embedding_scale = static_cast<float>(std::sqrt(static_cast<double>(config.hidden)));
}

void read_soft_caps(const Keys& keys, ModelConfig& config) {
  const double scalar = keys.positive("query_pre_attn_scalar", 256);
  for (BlockKind& kind : config.kinds) kind.score_scale = static_cast<float>(1 / std::sqrt(scalar));
  if (keys.find("attn_logit_softcapping") != nullptr)
    config.score_cap = static_cast<float>(keys.positive("attn_logit_softcapping", 50));
  if (keys.find("final_logit_softcapping") != nullptr)
    config.logit_cap = static_cast<float>(keys.positive("final_logit_softcapping", 30));
}

namespace {

void give_windowed_blocks(Rope rope, ModelConfig& config) {
  config.ropes.push_back(std::move(rope));
  for (BlockKind& kind : config.kinds) {
    if (kind.window > 0) kind.rope = static_cast<int64_t>(config.ropes.size()) - 1;
  }
}

}  // namespace

void read_local_rope(const Keys& keys, ModelConfig& config) {
  Rope rope = parse_rope(keys, *config.architecture, config.head_dim, config.max_positions, "sliding_attention");
  if (keys.find("rope_local_base_freq") != nullptr || keys.find("rope_parameters") == nullptr)
    rope = {.theta = keys.above(1, "rope_local_base_freq", 10000), .rotary_dim = config.head_dim};
  give_windowed_blocks(rope, config);
}

void read_unscaled_local_rope(const Keys& keys, ModelConfig& config) {
  const Rope& all = config.ropes[0];
  Rope rope{.theta = all.theta, .rotary_dim = all.rotary_dim};
  if (keys.find("rope_parameters") != nullptr && keys.find("rope_parameters")->contains("sliding_attention"))
    rope = parse_rope(keys, *config.architecture, config.head_dim, config.max_positions, "sliding_attention");
  give_windowed_blocks(rope, config);
}

void read_multipliers(const Keys& keys, ModelConfig& config) {
  config.embedding_scale = static_cast<float>(keys.number("embedding_multiplier", 1));
  config.residual_scale = static_cast<float>(keys.number("residual_multiplier", 1));
  config.logit_scale = static_cast<float>(1 / keys.positive("logits_scaling", 1));
  for (BlockKind& kind : config.kinds) kind.score_scale = static_cast<float>(keys.number("attention_multiplier", 1));
}

void read_logit_scale(const Keys& keys, ModelConfig& config) {
  config.logit_scale = static_cast<float>(keys.number("logit_scale", 0.0625));
}

void read_depth_scales(const Keys& keys, ModelConfig& config) {
  config.embedding_scale = static_cast<float>(keys.number("scale_emb", 1));
  config.residual_scale =
      static_cast<float>(keys.number("scale_depth", 1) / std::sqrt(static_cast<double>(config.blocks)));
  config.logit_scale = static_cast<float>(keys.positive("dim_model_base", static_cast<double>(config.hidden)) /
                                          static_cast<double>(config.hidden));
}

void read_clip_qkv(const Keys& keys, ModelConfig& config) {
  if (keys.find("clip_qkv") != nullptr) config.qkv_cap = static_cast<float>(keys.positive("clip_qkv", 1));
}

void read_score_scales(const Keys& keys, ModelConfig& config) {
  const bool scaled = keys.flag("scale_attn_weights", true),
             by_block = keys.flag("scale_attn_by_inverse_layer_idx", false);
  for (size_t block = 0; block < config.kinds.size(); ++block) {
    float& scale = config.kinds[block].score_scale;
    if (!scaled) scale = 1;
    if (by_block) scale /= static_cast<float>(block + 1);
  }
}

void read_local_blocks(const Keys& keys, ModelConfig& config) {
  const int64_t window = keys.size("window_size", 256);
  std::vector<std::string> layers;
  if (const Json* list = keys.list("attention_layers", config.blocks)) {
    layers = list->get<std::vector<std::string>>();
  } else if (const Json* types = keys.find("attention_types")) {  // [[["global", "local"], 12]]
    try {
      for (const Json& type : *types) {
        for (int64_t i = 0; i < type.at(1).get<int64_t>() && static_cast<int64_t>(layers.size()) < config.blocks; ++i) {
          for (const Json& name : type.at(0)) layers.push_back(name.get<std::string>());
        }
      }
    } catch (const Json::exception&) {
      layers.clear();
    }
  }
  if (layers.empty()) {
    for (int64_t block = 0; block < config.blocks; ++block) layers.emplace_back(block % 2 == 0 ? "global" : "local");
  }
  if (static_cast<int64_t>(layers.size()) != config.blocks)
    throw keys.wrong("attention_types", cat("is not a list of kinds for ", config.blocks, " blocks"));
  for (size_t block = 0; block < layers.size(); ++block) {
    if (layers[block] != "global" && layers[block] != "local")
      throw keys.wrong("attention_layers", cat("has '", layers[block], "'; known are global and local"));
    if (layers[block] == "local") config.kinds[block].window = window;
  }
}

void read_first_window(const Keys& keys, ModelConfig& config) {
  if (keys.find("layer_types") != nullptr) return;
  const int64_t first = keys.whole("max_window_layers", 28);
  for (int64_t block = 0; block < std::min(first, config.blocks); ++block) config.kinds[block].window = 0;
}

void read_unrotated_blocks(const Keys& keys, ModelConfig& config) {
  const int64_t interval = keys.size("no_rope_layer_interval", 4);
  const Json* rotated = keys.find("no_rope_layers");  // 1 for a block that has rope
  if (rotated != nullptr && rotated->empty()) rotated = nullptr;
  if (rotated != nullptr) rotated = keys.list("no_rope_layers", config.blocks);
  for (int64_t block = 0; block < config.blocks; ++block) {
    const bool has_rope = rotated == nullptr ? (block + 1) % interval != 0 : (*rotated)[block] != 0;
    if (!has_rope) config.kinds[block].rope = -1;
  }
}

void read_mpt_attention(const Keys& keys, ModelConfig& config) {
  if (keys.find("expansion_ratio") != nullptr)
    config.intermediate =
        static_cast<int64_t>(keys.positive("expansion_ratio", 4) * static_cast<double>(config.hidden));
  if (keys.find("attn_config") == nullptr) return;
  const Keys attention = keys.object("attn_config");
  if (!attention.flag("alibi", true))
    throw UnsupportedError(cat(attention.where(), ": alibi is false; only ALiBi is known for this family"));
  if (attention.flag("qk_ln", false))
    throw UnsupportedError(cat(attention.where(), ": qk_ln is not known for this family"));
  if (attention.word("attn_type", "multihead_attention") != "multihead_attention")
    throw UnsupportedError(
        cat(attention.where(), ": attn_type is not multihead_attention, the only one that is known"));
  if (attention.find("softmax_scale") != nullptr) {
    for (BlockKind& kind : config.kinds) kind.score_scale = static_cast<float>(attention.positive("softmax_scale", 1));
  }
  read_clip_qkv(attention, config);
}

void refuse_other_opt(const Keys& keys, ModelConfig& config) {
  if (!keys.flag("do_layer_norm_before", true))
    throw UnsupportedError(
        cat(keys.where(), ": do_layer_norm_before is false (OPT-350m); blocks that norm after they add are not known"));
  if (keys.find("word_embed_proj_dim") != nullptr && keys.size("word_embed_proj_dim") != config.hidden)
    throw UnsupportedError(
        cat(keys.where(), ": word_embed_proj_dim differs from hidden_size; projected embeddings are not known"));
}

void refuse_normed_residual(const Keys& keys, ModelConfig& /*config*/) {
  if (keys.flag("apply_residual_connection_post_layernorm", false))
    throw UnsupportedError(
        cat(keys.where(), ": apply_residual_connection_post_layernorm is true; only false is known"));
}

void read_rope_alpha(const Keys& keys, ModelConfig& config) {
  const std::string key = keys.spelled({"rope_scaling", "rope_parameters"});
  if (keys.find(key) == nullptr || keys.find(key)->empty()) return;
  const Keys rope = keys.object(key);
  if (rope.find("alpha") == nullptr || config.ropes[0].kind != RopeKind::dynamic) return;
  const auto dim = static_cast<double>(config.head_dim);
  const double alpha = rope.positive("alpha", 1);
  config.ropes[0] = {.theta = config.ropes[0].theta * std::pow(alpha, dim / (dim - 2)), .rotary_dim = config.head_dim};
}

void read_scaled_slopes(const Keys& /*keys*/, ModelConfig& config) {
  for (float& slope : config.slopes) slope *= config.kinds[0].score_scale;
}

}  // namespace gptq
