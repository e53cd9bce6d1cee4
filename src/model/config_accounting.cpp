#include "model/config_accounting.h"

#include <algorithm>
#include <iterator>
#include <string_view>

#include "model/architecture.h"

namespace gptq {
namespace {

// Keys that no forward pass of transformers depends on, given text and no dropout: training, generation, tokens, files,
// what is derived from other keys, and heads of multi-token prediction. sliding_window and max_window_layers count only
// for rows that read them.
constexpr std::string_view kNoEffect[] = {"block_dim",
                                          "block_norm_eps",
                                          "block_use_swiglu",
                                          "conv_dim",
                                          "conv_dim_out",
                                          "use_pos_enc",
                                          "_attn_implementation",
                                          "_attn_implementation_autoset",
                                          "_attn_implementation_internal",
                                          "_commit_hash",
                                          "_experts_implementation",
                                          "_flash_attn_2_enabled",
                                          "_from_model_config",
                                          "_name_or_path",
                                          "_pre_quantization_dtype",
                                          "_sliding_window_pattern",
                                          "add_bos_token",
                                          "add_classification_head",
                                          "add_eos_token",
                                          "architectures",
                                          "attention_softmax_in_fp32",
                                          "attn_impl",
                                          "attn_implementation",
                                          "auto_map",
                                          "aux_loss_alpha",
                                          "bad_words_ids",
                                          "begin_suppress_tokens",
                                          "bias_dropout_fusion",
                                          "bos_token",
                                          "cache_implementation",
                                          "capacity_factor",
                                          "chat_template",
                                          "chunk_size_feed_forward",
                                          "cla_share_factor",
                                          "class_num",
                                          "diversity_penalty",
                                          "do_sample",
                                          "dtype",
                                          "early_stopping",
                                          "embedding_dropout",
                                          "embedding_initializer_range",
                                          "enable_moe_fp32_combine",
                                          "encoder_no_repeat_ngram_size",
                                          "eos_token",
                                          "ep_size",
                                          "exponential_decay_length_penalty",
                                          "finetuning_task",
                                          "activation_function",
                                          "hidden_act",
                                          "hidden_activation",
                                          "for_llm_compressor",
                                          "gradient_checkpointing",
                                          "id2label",
                                          "inference_runner",
                                          "init_device",
                                          "initial_context_length",
                                          "input_jitter_noise",
                                          "is_decoder",
                                          "label2id",
                                          "layerdrop",
                                          "learned_pos_emb",
                                          "length_penalty",
                                          "license",
                                          "masked_softmax_fusion",
                                          "max_batch_size",
                                          "max_length",
                                          "max_model_len",
                                          "max_seq_len",
                                          "max_seq_length",
                                          "max_sequence_length",
                                          "max_window_layers",
                                          "min_length",
                                          "mm_tokens_per_image",
                                          "model_max_length",
                                          "moe_capacity",
                                          "moe_drop_tokens",
                                          "moe_random_routing_dropped_token",
                                          "n_ctx",
                                          "n_special",
                                          "name",
                                          "no_repeat_ngram_size",
                                          "num_beam_groups",
                                          "num_beams",
                                          "num_labels",
                                          "num_mtp_layers",
                                          "num_mtp_modules",
                                          "num_nextn_predict_layers",
                                          "num_return_sequences",
                                          "offset_alibi",
                                          "org_vocab_size",
                                          "output_attentions",
                                          "output_hidden_states",
                                          "output_past",
                                          "output_router_logits",
                                          "output_scores",
                                          "pad_key_length",
                                          "pad_token",
                                          "pool_type",
                                          "pre_allocate_kv_cache",
                                          "predict_special_tokens",
                                          "prefix",
                                          "pretraining_tp",
                                          "problem_type",
                                          "qk_head_dim",
                                          "q_head_dim",
                                          "quantization_config",
                                          "remove_invalid_values",
                                          "renormalize_logits",
                                          "reorder_and_upcast_attn",
                                          "repetition_penalty",
                                          "return_dict",
                                          "return_dict_in_generate",
                                          "rope_percent",
                                          "rotary_percent",
                                          "runner_max_sequence_length",
                                          "scale_attention_softmax_in_fp32",
                                          "seq_aux",
                                          "seq_length",
                                          "skip_bias_add",
                                          "skip_bias_add_qkv",
                                          "sliding_window",
                                          "sliding_window_size",
                                          "slow_but_exact",
                                          "suppress_tokens",
                                          "task_specific_params",
                                          "temperature",
                                          "text_end_id",
                                          "text_start_id",
                                          "tf_legacy_loss",
                                          "tie_encoder_decoder",
                                          "tokenizer_class",
                                          "tokens_per_second",
                                          "top_k",
                                          "top_p",
                                          "torch_dtype",
                                          "torchscript",
                                          "transformers_version",
                                          "typical_p",
                                          "unk_token",
                                          "use_bfloat16",
                                          "use_cache",
                                          "use_embedding_sharing",
                                          "use_flash_attention",
                                          "use_flash_attn",
                                          "use_mixed_mlp_moe",
                                          "use_mtp",
                                          "use_pad_tok_in_ffn",
                                          "use_parallel_embedding",
                                          "validate_runner_input",
                                          "verbose",
                                          "calc_logits_for_entire_prompt",
                                          "moe_shared_expert_overlap",
                                          "num_logits_to_keep",
                                          "rescale_prenorm_residual",
                                          "residual_in_fp32",
                                          "use_associative_scan",
                                          "use_mamba_kernels",
                                          "use_mambapy",
                                          "z_loss_coefficient"};
// Beginnings and ends of such keys.
constexpr std::string_view kNoEffectStarts[] = {"initializer_",
                                                "init_",
                                                "summary_",
                                                "vision_",
                                                "audio_",
                                                "image_",
                                                "video_",
                                                "vit_",
                                                "block_out_init_",
                                                "block_mlp_init_",
                                                "block_use_xavier_",
                                                "conv_use_xavier_",
                                                "mtp_",
                                                "unsloth_",
                                                "im_",
                                                "anyres_",
                                                "runner_",
                                                "tokenizer_",
                                                "mamba_",
                                                "time_step_"};
constexpr std::string_view kNoEffectEnds[] = {"_token_id", "_token_ids", "_token_index", "_loss_coef",
                                              "_pdrop",    "_id",        "_ids",         "_loss_alpha"};

// Keys of a rope dictionary that its type does not use, or that only say what text does not need.
constexpr std::string_view kRopeNoEffect[] = {
    "attention_factor",      "beta_fast",     "beta_slow",    "factor",          "finetuned",
    "high_freq_factor",      "long_factor",   "long_mscale",  "low_freq_factor", "max_position_embeddings",
    "mrope_interleaved",     "mrope_section", "mscale",       "mscale_all_dim",  "original_max_position_embeddings",
    "partial_rotary_factor", "short_factor",  "short_mscale", "truncate",        "type"};

bool has_no_effect(std::string_view key) {
  const auto is = [&](std::string_view name) { return key == name; };
  const auto starts = [&](std::string_view part) { return key.starts_with(part); };
  const auto ends = [&](std::string_view part) { return key.ends_with(part); };
  return std::any_of(std::begin(kNoEffect), std::end(kNoEffect), is) ||
         std::any_of(std::begin(kNoEffectStarts), std::end(kNoEffectStarts), starts) ||
         std::any_of(std::begin(kNoEffectEnds), std::end(kNoEffectEnds), ends) ||
         key.find("dropout") != std::string_view::npos;
}

// A key that says what is computed anyway, and the values with which it does.
struct Agreement {
  std::string_view key;
  bool (*agrees)(const Json& value, const ModelConfig& config);
};

bool is_one(const Json& value, const ModelConfig& /*config*/) { return value.is_number() && value == 1; }
bool has_all_biases(const Json& /*value*/, const ModelConfig& config) { return config.q_bias && config.kv_bias; }
bool has_mlp_bias(const Json& /*value*/, const ModelConfig& config) { return config.mlp_bias; }
bool has_qk_norm(const Json& value, const ModelConfig& config) { return value == true && config.qk_norm; }
bool is_parallel(const Json& value, const ModelConfig& config) { return value == true && config.parallel; }
bool is_gated(const Json& value, const ModelConfig& config) {
  return value == true && !(config.architecture->gate.empty() && config.architecture->gate_up.empty());
}
// Falcon's new_decoder_architecture counts them, whatever multi_query says.
bool has_key_heads(const Json& value, const ModelConfig& config) {
  return value == true && config.model_type == "falcon" && config.architecture->has_key_heads;
}
bool has_choice_bias(const Json& value, const ModelConfig& config) {
  return value == true && !config.expert_row.choice_bias.empty();
}
bool has_gated_heads(const Json& value, const ModelConfig& config) {
  return value == true && config.architecture->gated_heads;
}
bool is_rope(const Json& value, const ModelConfig& config) {
  const Positions positions = config.architecture->positions;
  if (value == true || value == "rope" || value == "rope_gptj" || value == "rotary")
    return positions == Positions::rope;
  return value == "alibi" ? positions == Positions::alibi : value == "absolute" && positions == Positions::learned;
}
bool is_norm_kind(const Json& value, const ModelConfig& config) {
  if (!value.is_string()) return false;
  const bool is_rms = value.get<std::string>().find("rms") != std::string::npos;
  return is_rms == (config.architecture->norm == NormKind::rms);
}
// Blocks with windows and chunks have been read by then.
bool are_read_layers(const Json& value, const ModelConfig& config) {
  const bool chunks =
      std::any_of(config.kinds.begin(), config.kinds.end(), [](const BlockKind& k) { return k.chunk > 0; });
  return value.is_array() && std::all_of(value.begin(), value.end(), [&](const Json& type) {
           return type == "full_attention" || (chunks && type == "chunked_attention");
         });
}
bool are_ones(const Json& value, const ModelConfig& /*config*/) {
  return value.is_array() && std::all_of(value.begin(), value.end(), [](const Json& one) { return one == 1; });
}
template <const char* word>
bool is_word(const Json& value, const ModelConfig& /*config*/) {
  return value == word;
}
bool is_true(const Json& value, const ModelConfig& /*config*/) { return value == true; }
bool is_eight(const Json& value, const ModelConfig& /*config*/) { return value == 8; }
bool is_zero(const Json& value, const ModelConfig& /*config*/) { return value == 0; }
bool is_standard_rope(const Json& /*value*/, const ModelConfig& config) {
  return config.ropes.empty() || config.ropes[0].kind == RopeKind::standard;
}
constexpr char kDefault[] = "default", kLocalFirst[] = "local_attn_first", kTopK[] = "topk", kPerLayer[] = "per_layer";

constexpr Agreement kAgreements[] = {{"attention_bias", has_all_biases},
                                     {"qkv_bias", has_all_biases},
                                     {"mlp_bias", has_mlp_bias},
                                     {"use_qk_norm", has_qk_norm},
                                     {"qk_norm", has_qk_norm},
                                     {"qk_norm_type", is_word<kPerLayer>},
                                     {"attn_output_gate", has_gated_heads},
                                     {"use_parallel_block", is_parallel},
                                     {"use_gated_activation", is_gated},
                                     {"use_routing_bias", has_choice_bias},
                                     {"moe_use_aux_free", has_choice_bias},
                                     {"moe_gate", is_word<kTopK>},
                                     {"mlp_type", is_word<kDefault>},
                                     {"order_of_interleaved_layers", is_word<kLocalFirst>},
                                     {"norm_type", is_norm_kind},
                                     {"position_embedding_type", is_rope},
                                     {"rotary", is_rope},
                                     {"use_rotary_pos_emb", is_rope},
                                     {"layer_types", are_read_layers},
                                     {"attn_type_list", are_ones},
                                     {"embedding_fraction", is_one},
                                     {"compression_ratio", is_one},
                                     {"rotary_scaling_factor", is_one},
                                     {"full_attn_mod", is_one},
                                     {"interpolate_factor", is_one},
                                     {"rotary_pct", is_one},
                                     {"alibi_bias_max", is_eight},
                                     {"no_bias", is_true},
                                     {"multi_query", has_key_heads},
                                     {"scale_attn_weights", is_true},
                                     {"num_experts", is_zero},
                                     {"num_local_experts", is_zero},
                                     {"moe_layer_num_skipped", is_zero},
                                     {"shared_intermediate_size", is_zero},
                                     {"original_max_position_embeddings", is_standard_rope}};

bool agrees(const std::string& key, const Json& value, const ModelConfig& config) {
  return std::any_of(std::begin(kAgreements), std::end(kAgreements),
                     [&](const Agreement& a) { return a.key == key && a.agrees(value, config); });
}

bool is_rope_leftover(const std::string& path, const std::string& key) {
  return path.starts_with("rope_") &&
         std::find(std::begin(kRopeNoEffect), std::end(kRopeNoEffect), key) != std::end(kRopeNoEffect);
}

// Whether nothing is switched on by it.
bool is_blank(const Json& value) {
  return value.is_null() || value == false || value == "" || (value.is_structured() && value.empty());
}

void collect(const Json& object, const std::string& path, const ModelConfig& config, const KeyLog& log,
             std::vector<std::string>& unread) {
  const auto noted = log.find(&object);
  for (const auto& [key, value] : object.items()) {
    if (noted->second.count(key) != 0) {
      if (value.is_object() && log.count(&value) != 0) collect(value, path + key + ".", config, log, unread);
    } else if (!has_no_effect(key) && !is_blank(value) && !agrees(key, value, config) && !is_rope_leftover(path, key)) {
      unread.push_back(cat(path, key, ": ", shown(value)));
    }
  }
}

}  // namespace

std::vector<std::string> unread_keys(const Keys& keys, const ModelConfig& config, const KeyLog& log) {
  std::vector<std::string> unread;
  collect(keys.all(), "", config, log, unread);
  return unread;
}

void refuse_unread(const ModelConfig& config, const std::string& ignored, const std::string& where) {
  std::string found, names;
  for (const std::string& entry : config.unread) {
    const std::string key = entry.substr(0, entry.find(": "));
    if (cat(",", ignored, ",").find(cat(",", key, ",")) != std::string::npos) continue;
    found += cat(found.empty() ? "" : "; ", entry);
    names += cat(names.empty() ? "" : ",", key);
  }
  if (found.empty()) return;
  throw UnsupportedError(cat(where, ": nothing here reads ", found,
                             ", which may change what the model computes; if it ",
                             "does not, pass `ignore_config_keys` ", names));
}

}  // namespace gptq
