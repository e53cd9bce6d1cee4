#include "model/config_readers.h"

#include "model/config_keys.h"

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

void give_windowed_blocks(Rope rope, ModelConfig& config) {
  config.ropes.push_back(std::move(rope));
  for (BlockKind& kind : config.kinds) {
    if (kind.window > 0) kind.rope = static_cast<int64_t>(config.ropes.size()) - 1;
  }
}

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

namespace {

// attention_types, [[["global", "local"], 12]], as one kind for each block.
std::vector<std::string> repeated_kinds(const Keys& keys, const Json& types, int64_t blocks) {
  const InputError wrong = keys.wrong("attention_types", cat("is not a list of kinds for ", blocks, " blocks"));
  std::vector<std::string> kinds;
  if (!types.is_array()) throw wrong;
  for (const Json& type : types) {
    const bool is_pair = type.is_array() && type.size() == 2 && type[0].is_array() && type[1].is_number_integer();
    if (!is_pair || type[0].empty()) throw wrong;
    const auto times = type[1].get<double>();  // of any size
    if (times < 0 || times > static_cast<double>(blocks)) throw wrong;
    for (int64_t i = 0; i < type[1].get<int64_t>(); ++i) {
      for (const Json& kind : type[0]) {
        if (!kind.is_string() || static_cast<int64_t>(kinds.size()) == blocks) throw wrong;
        kinds.push_back(kind.get<std::string>());
      }
    }
  }
  if (static_cast<int64_t>(kinds.size()) != blocks) throw wrong;
  return kinds;
}

}  // namespace

void read_local_blocks(const Keys& keys, ModelConfig& config) {
  const int64_t window = keys.size("window_size", 256, kMostTokens);
  std::vector<std::string> kinds;
  keys.find("attention_types");  // what attention_layers repeats
  if (const Json* list = keys.list("attention_layers", config.blocks)) {
    for (const Json& kind : *list) kinds.push_back(kind.is_string() ? kind.get<std::string>() : kind.dump());
  } else if (const Json* types = keys.find("attention_types")) {
    kinds = repeated_kinds(keys, *types, config.blocks);
  } else {
    for (int64_t block = 0; block < config.blocks; ++block) kinds.emplace_back(block % 2 == 0 ? "global" : "local");
  }
  for (size_t block = 0; block < kinds.size(); ++block) {
    if (kinds[block] != "global" && kinds[block] != "local")
      throw keys.wrong("attention_layers", cat("has '", kinds[block], "'; supported are global and local"));
    if (kinds[block] == "local") config.kinds[block].window = window;
  }
}

void read_first_window(const Keys& keys, ModelConfig& config) {
  if (keys.find("layer_types") != nullptr) return;
  const int64_t first = keys.whole("max_window_layers", 28);
  for (int64_t block = 0; block < std::min(first, config.blocks); ++block) config.kinds[block].window = 0;
}

void read_first_of_four(const Keys& keys, ModelConfig& config) {
  if (keys.find("layer_types") != nullptr) return;
  for (size_t block = 0; block < config.kinds.size(); block += 4) config.kinds[block].window = 0;
}

void read_typed_ropes(const Keys& keys, ModelConfig& config) {
  if (keys.find("layer_types") == nullptr) {
    for (BlockKind& kind : config.kinds) kind.window = 0;
  }
  Rope rope{.theta = 10000, .rotary_dim = config.head_dim};
  if (keys.find("rope_parameters") != nullptr)
    rope = parse_rope(keys, *config.architecture, config.head_dim, config.max_positions, "sliding_attention");
  give_windowed_blocks(rope, config);
}

void read_unrotated_blocks(const Keys& keys, ModelConfig& config) {
  const int64_t interval = keys.size("no_rope_layer_interval", 4);
  const Json* rotated = keys.find("no_rope_layers");  // 1 for a block with rope
  if (rotated != nullptr && rotated->empty()) rotated = nullptr;
  if (rotated != nullptr) rotated = keys.list("no_rope_layers", config.blocks);
  for (int64_t block = 0; block < config.blocks; ++block) {
    const bool has_rope = rotated == nullptr ? (block + 1) % interval != 0 : (*rotated)[block] != 0;
    if (!has_rope) config.kinds[block].rope = -1;
  }
}

void read_mpt_attention(const Keys& keys, ModelConfig& config) {
  if (keys.find("expansion_ratio") != nullptr) {
    const double width = keys.positive("expansion_ratio", 4) * static_cast<double>(config.hidden);
    if (width < 1 || width > static_cast<double>(kMostWidth)) {
      throw keys.wrong("expansion_ratio", cat("is ", keys.find("expansion_ratio")->dump(), ", which makes MLPs of ",
                                              width, " features, where 1 to ", kMostWidth, " are possible"));
    }
    config.intermediate = static_cast<int64_t>(width);
  }
  if (keys.find("attn_config") == nullptr) return;
  const Keys attention = keys.object("attn_config");
  if (!attention.flag("alibi", true))
    throw UnsupportedError(cat(attention.where(), ": alibi is false; only ALiBi is supported for this family"));
  if (attention.flag("qk_ln", false))
    throw UnsupportedError(cat(attention.where(), ": qk_ln is not supported for this family"));
  if (attention.word("attn_type", "multihead_attention") != "multihead_attention")
    throw UnsupportedError(cat(attention.where(), ": attn_type is not multihead_attention, the only supported one"));
  if (attention.find("softmax_scale") != nullptr) {
    for (BlockKind& kind : config.kinds) kind.score_scale = static_cast<float>(attention.positive("softmax_scale", 1));
  }
  read_clip_qkv(attention, config);
}

void read_opt(const Keys& keys, ModelConfig& config) {
  if (keys.flag("_remove_final_layer_norm", false))
    throw UnsupportedError(cat(keys.where(), ": _remove_final_layer_norm is true; the final norm cannot be left out"));
  if (!keys.flag("do_layer_norm_before", true))
    throw UnsupportedError(
        cat(keys.where(), ": do_layer_norm_before is false (OPT-350m); norms after the addition are not supported"));
  if (!keys.flag("layer_norm_elementwise_affine", true)) {
    config.norm_weight = NormWeight::none;
    config.norm_bias = false;
  }
  if (keys.find("word_embed_proj_dim") != nullptr && keys.size("word_embed_proj_dim") != config.hidden)
    throw UnsupportedError(
        cat(keys.where(), ": word_embed_proj_dim differs from hidden_size; projected embeddings are not supported"));
}

void refuse_normed_residual(const Keys& keys, ModelConfig& /*config*/) {
  if (keys.flag("apply_residual_connection_post_layernorm", false))
    throw UnsupportedError(
        cat(keys.where(), ": apply_residual_connection_post_layernorm is true; only false is supported"));
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

void read_latent(const Keys& keys, ModelConfig& config) {
  Latent& latent = config.latent;
  if (keys.find("q_lora_rank") != nullptr) latent.q_rank = keys.size("q_lora_rank");
  latent.kv_rank = keys.size("kv_lora_rank");
  const bool interleaved = config.rotary_order == RotaryOrder::interleaved;
  config.rotary_order = keys.flag("rope_interleave", interleaved) ? RotaryOrder::interleaved : RotaryOrder::halves;
  latent.rope_dim = keys.size("qk_rope_head_dim");
  latent.value_dim = keys.size("v_head_dim");
  config.head_dim = keys.size("qk_nope_head_dim") + latent.rope_dim;
  config.kv_heads = config.heads;
  if (latent.value_dim > config.head_dim)
    throw UnsupportedError(cat(keys.where(), ": v_head_dim is larger than a query head, which is not supported"));
  if (latent.rope_dim % 2 != 0) throw keys.wrong("qk_rope_head_dim", "is odd, but rotary embeddings need an even one");
  config.ropes[0] = parse_rope(keys, *config.architecture, latent.rope_dim, config.max_positions);
  const Rope& rope = config.ropes[0];
  double scale = 1 / std::sqrt(static_cast<double>(config.head_dim));
  if (rope.kind != RopeKind::standard && rope.mscale_all_dim != 0 && rope.factor > 1) {
    const double mscale = 0.1 * rope.mscale_all_dim * std::log(rope.factor) + 1;
    scale *= mscale * mscale;
  }
  for (BlockKind& kind : config.kinds) kind.score_scale = static_cast<float>(scale);
}

namespace {

// Throws for a scoring_func that is not the family's; "noaux_tc" is what dots.llm1 calls its sigmoids.
void check_scoring(const Keys& keys, RouterKind kind) {
  const std::string function = keys.word("scoring_func", "");
  const bool is_sigmoid = function == "sigmoid" || function == "noaux_tc";
  if (function.empty() || (kind == RouterKind::sigmoid ? is_sigmoid : function == "softmax")) return;
  throw UnsupportedError(cat(keys.where(), ": scoring_func is '", function, "'; supported for this family is ",
                             kind == RouterKind::sigmoid ? "sigmoid" : "softmax"));
}

// Which blocks have experts.
void read_expert_blocks(const Keys& keys, ModelConfig& config) {
  const int64_t first = keys.whole(keys.spelled({"first_k_dense_replace", "moe_layer_start_index", "num_dense_layers"}),
                                   config.expert_row.first_dense),
                last = keys.whole("moe_layer_end_index", -1),
                every = keys.find("moe_layer_freq") != nullptr && keys.find("moe_layer_freq")->is_array()
                            ? 1
                            : std::max<int64_t>(
                                  keys.whole(keys.spelled({"moe_layer_freq", "decoder_sparse_step",
                                                           "moe_layer_interval", "interleave_moe_layer_step"}),
                                             1),
                                  1);
  // Qwen and ERNIE count blocks from 1, DeepSeek from 0.
  const bool from_one = keys.find("moe_layer_freq") == nullptr;
  for (int64_t block = 0; block < config.blocks; ++block)
    config.kinds[block].has_experts =
        block >= first && (last < 0 || block <= last) && (block + (from_one ? 1 : 0)) % every == 0;
  if (const Json* sparse = keys.find("moe_layer_freq"); sparse != nullptr && sparse->is_array()) {
    sparse = keys.list("moe_layer_freq", config.blocks);  // 1 for a block with experts
    for (int64_t block = 0; block < config.blocks; ++block) config.kinds[block].has_experts = (*sparse)[block] != 0;
  }
  for (const auto& [key, has_experts] : {std::pair("mlp_only_layers", false), std::pair("moe_layers", true)}) {
    const Json* list = keys.find(key);
    if (list == nullptr || !list->is_array()) continue;
    if (has_experts) {
      for (BlockKind& kind : config.kinds) kind.has_experts = false;
    }
    for (const Json& block : *list) {
      if (!is_whole(block, 0, config.blocks - 1)) throw keys.wrong(key, "names blocks that the model does not have");
      config.kinds[block.get<size_t>()].has_experts = has_experts;
    }
  }
  const Json* types = keys.list("mlp_layer_types", config.blocks);
  if (types == nullptr) return;
  for (int64_t block = 0; block < config.blocks; ++block) {
    const Json& type = (*types)[block];
    if (type != "dense" && type != "sparse")
      throw UnsupportedError(
          cat(keys.where(), ": mlp_layer_types has ", type.dump(), "; supported are dense and sparse"));
    config.kinds[block].has_experts = type == "sparse";
  }
}

}  // namespace

void read_experts(const Keys& keys, ModelConfig& config) {
  const ExpertRow& row = config.expert_row;
  Experts& experts = config.experts;
  const std::string chosen =
      keys.spelled({"num_experts_per_tok", "moe_k", "experts_per_token", "moe_topk", "top_k_experts"});
  experts.count = keys.size_of_all(SizeKeys(keys).experts, kMostExperts);
  experts.chosen = keys.size_of_all(chosen);
  if (experts.chosen > experts.count)
    throw keys.wrong(chosen, cat("is ", experts.chosen, ", more than the ", experts.count, " experts there are"));
  experts.intermediate = keys.size_of_all(keys.spelled({"moe_intermediate_size", "intermediate_size"}));
  if (keys.find("shared_expert_intermediate_size") != nullptr) {
    experts.shared_intermediate = keys.size("shared_expert_intermediate_size");
  } else if (keys.find("shared_intermediate_size") != nullptr) {
    experts.shared_intermediate = keys.whole("shared_intermediate_size", 0);
  } else {
    const std::string shared = keys.spelled({"n_shared_experts", "moe_num_shared_experts", "num_shared_experts"});
    experts.shared_intermediate = experts.intermediate * keys.whole(shared, 0);
  }
  if (row.shared_down.empty()) experts.shared_intermediate = 0;
  if (experts.shared_intermediate < 0 || experts.shared_intermediate > kMostWidth) {
    throw InputError(cat(keys.where(), ": its shared experts have ", experts.shared_intermediate,
                         " features, where 0 to ", kMostWidth, " are possible"));
  }
  experts.groups = std::max<int64_t>(keys.whole("n_group", 1), 1);
  experts.chosen_groups = std::max<int64_t>(keys.whole("topk_group", 1), 1);
  check_scoring(keys, row.kind);
  if (keys.word("topk_method", "") == "greedy") experts.groups = experts.chosen_groups = 1;
  if (experts.count % experts.groups != 0 || experts.chosen_groups > experts.groups)
    throw keys.wrong("n_group", cat("is ", experts.groups, ", which does not divide ", experts.count, " experts"));
  experts.renormalized = row.renormalized.key.empty()
                             ? row.renormalized.missing
                             : keys.flag(std::string(row.renormalized.key), row.renormalized.missing);
  experts.router_bias = row.router_bias.missing;
  experts.bias = row.bias.missing;
  experts.scale = static_cast<float>(keys.number(
      keys.spelled({"routed_scaling_factor", "route_scale", "router_scaling_factor", "moe_routed_scaling_factor"}), 1));
  experts.jitter = static_cast<float>(keys.number("router_jitter_noise", 0.01));
  experts.weight_floor = static_cast<float>(keys.number("moe_norm_min", 0));
  read_expert_blocks(keys, config);
}

void read_text_experts(const Keys& keys, ModelConfig& config) {
  Json text = keys.all();
  for (const auto& [key, missing] : {std::pair("moe_num_experts", 64), std::pair("moe_intermediate_size", 1536),
                                     std::pair("moe_k", 6), std::pair("moe_num_shared_experts", 2)})
    if (keys.find(key) == nullptr) text[key] = missing;
  for (const char* key : {"moe_num_experts", "moe_intermediate_size", "moe_layer_start_index", "moe_layer_end_index"}) {
    const Json* pair = keys.find(key);
    if (pair == nullptr || !pair->is_array()) continue;
    if (pair->size() != 2) throw keys.wrong(key, "needs two numbers, for text and for images");
    text[key] = Json(pair->front());
  }
  KeyLog log;
  read_experts(Keys(text, keys.where(), &log), config);
  for (const std::string& key : log[&text]) keys.find(key);
}

void read_one_shared_expert(const Keys& keys, ModelConfig& config) {
  const int64_t count = keys.find("num_shared_expert") == nullptr ? 1 : keys.size_of_all("num_shared_expert");
  if (count != 1) throw UnsupportedError(cat(keys.where(), ": num_shared_expert is ", count, "; supported is 1"));
  config.experts.shared_intermediate = config.experts.intermediate;
}

namespace {

// Queries at a position are multiplied by 1 + factor log(1 + floor((position + first) / positions)).
int64_t add_temperature(double factor, double positions, double first, ModelConfig& config) {
  config.ropes.push_back({.kind = RopeKind::temperature,
                          .rotary_dim = config.head_dim,
                          .temperature = factor,
                          .temperature_positions = positions,
                          .temperature_first = first});
  return static_cast<int64_t>(config.ropes.size()) - 1;
}

}  // namespace

void read_llama4(const Keys& keys, ModelConfig& config) {
  read_unrotated_blocks(keys, config);
  const int64_t chunk = keys.whole("attention_chunk_size", 8192);
  const bool is_tuned = keys.flag("attn_temperature_tuning", true);
  const int64_t temperature =
      is_tuned ? add_temperature(keys.number("attn_scale", 0.1), keys.positive("floor_scale", 8192), 1, config) : -1;
  for (BlockKind& kind : config.kinds) {
    if (kind.rope >= 0) kind.chunk = chunk;
    if (kind.rope < 0) kind.query_rope = temperature;
  }
  config.intermediate = keys.size("intermediate_size_mlp");
  config.experts.shared_intermediate = config.experts.intermediate;
}

void read_query_scaling(const Keys& keys, ModelConfig& config) {
  const std::string key = keys.spelled({"rope_parameters", "rope_scaling"});
  if (keys.find(key) == nullptr) return;
  const Keys rope = keys.object(key);
  if (rope.find("llama_4_scaling_beta") == nullptr) return;
  const int64_t scaling = add_temperature(rope.number("llama_4_scaling_beta", 0.1),
                                          static_cast<double>(config.ropes[0].original_positions), 0, config);
  for (BlockKind& kind : config.kinds) kind.query_rope = scaling;
}

void read_clamped_swiglu(const Keys& keys, ModelConfig& config) {
  config.activation = Activation::clamped_swiglu;
  const double limit = keys.number("swiglu_limit", 7), alpha = keys.number("swiglu_alpha", 1.702);
  if (limit != 7 || std::abs(alpha - 1.702) > 1e-6)
    throw UnsupportedError(
        cat(keys.where(), ": swiglu_limit ", limit, " and swiglu_alpha ", alpha, "; supported are 7 and 1.702"));
}

void read_unit_head(const Keys& keys, ModelConfig& config) { config.unit_head = keys.find("z_loss_weight") != nullptr; }

void read_old_gelu(const Keys& /*keys*/, ModelConfig& config) {
  if (config.activation == Activation::gelu) config.activation = Activation::gelu_tanh;
}

void read_mscales(const Keys& keys, ModelConfig& config) {
  if (config.ropes[0].kind != RopeKind::longrope) return;
  Rope& rope = config.ropes[0];
  const Keys scaling = keys.object(keys.spelled({"rope_scaling", "rope_parameters"}));
  rope.attention_factor = scaling.positive("short_mscale", 1);
  rope.long_attention_factor = scaling.positive("long_mscale", 1);
  rope.long_factor = rope.short_factor;  // as in transformers
}

void read_scaled_slopes(const Keys& /*keys*/, ModelConfig& config) {
  for (float& slope : config.slopes) slope *= config.kinds[0].score_scale;
}

}  // namespace gptq
