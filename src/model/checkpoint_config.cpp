// A config with the module paths that a checkpoint has, and the tensors of its embedding and head.
#include "model/config_checks.h"
#include "model/config_keys.h"
#include "model/specs.h"

namespace gptq {
namespace {

// Prefixes that checkpoints put before the modules of a language model, or leave out.
std::vector<std::string> roots_of(const Architecture& row) {
  const std::string root(row.root);
  const size_t dot = root.find('.');
  const std::string below = dot == std::string::npos ? "" : root.substr(dot + 1);
  return {root,
          below,
          cat("model.", root),
          cat("language_model.", root),
          "model.language_model",
          cat("language_model.", root, ".", root),
          "model.text_model",
          cat("text_model.", root)};
}

std::string below(const std::string& root, std::string_view module) {
  return root.empty() ? std::string(module) : cat(root, ".", module);
}

void find_root(const Checkpoint& checkpoint, ModelConfig& config) {
  const Architecture& row = *config.architecture;
  const std::vector<std::string> roots = roots_of(row);
  for (const std::string& root : roots) {
    if (!checkpoint.has(below(root, row.embedding) + ".weight")) continue;
    config.root = root;
    return;
  }
  // Without an embedding of its own, where the blocks are.
  for (const StoredTensor* tensor : checkpoint.tensors()) {
    for (const std::string& root : roots) {
      if (!tensor->name.starts_with(cat(below(root, row.blocks), ".0."))) continue;
      config.root = root;
      return;
    }
  }
}

bool find_head(const Checkpoint& checkpoint, ModelConfig& config) {
  const Architecture& row = *config.architecture;
  for (const char* above : {"", "model.", "language_model.", "model.language_model.", "text_model."}) {
    const std::string module = cat(above, row.head);
    if (!checkpoint.has(module + ".weight")) continue;
    config.head = module;
    return true;
  }
  // In a quantized folder.
  const std::vector<const StoredTensor*> tensors = checkpoint.tensors();
  return std::any_of(tensors.begin(), tensors.end(), [&](const StoredTensor* tensor) {
    return tensor->name.starts_with(config.head + ".") && tensor->name != config.head + ".bias";
  });
}

// The first of these modules or tensors that a block has; the one of the row if it has none.
std::string_view present(const Checkpoint& checkpoint, const std::string& block, std::string_view of_row,
                         std::initializer_list<std::string_view> others, std::string_view suffix) {
  if (checkpoint.has(cat(block, of_row, suffix))) return of_row;
  for (const std::string_view other : others) {
    if (checkpoint.has(cat(block, other, suffix))) return other;
  }
  return of_row;
}

bool has_any(const Checkpoint& checkpoint, const std::string& prefix) {
  const std::vector<const StoredTensor*> tensors = checkpoint.tensors();
  return std::any_of(tensors.begin(), tensors.end(),
                     [&](const StoredTensor* tensor) { return tensor->name.starts_with(prefix); });
}

// The names that transformers 5 has for all families, in folders that it or this program wrote.
void take_common_names(const Checkpoint& checkpoint, const std::string& block, ExpertRow& row) {
  row.router = present(checkpoint, block, row.router,
                       {"mlp.gate", "mlp.router", "block_sparse_moe.router", "block_sparse_moe.gate"}, ".weight");
  if (!row.choice_bias.empty()) {
    row.choice_bias = present(checkpoint, block, row.choice_bias,
                              {"mlp.gate.e_score_correction_bias", "mlp.e_score_correction_bias",
                               "mlp.gate.moe_statics.e_score_correction_bias"},
                              "");
  }
  if (row.gate.empty() || row.gate.starts_with("mlp.") || !has_any(checkpoint, cat(block, "mlp.experts."))) return;
  row.gate = "mlp.experts.#.gate_proj";
  row.up = "mlp.experts.#.up_proj";
  row.down = "mlp.experts.#.down_proj";
}

// As transformers 5 holds experts: gate_up_proj [experts, 2 width, hidden] or [experts, hidden, 2 width], and
// down_proj.
void take_fused_layout(const Checkpoint& checkpoint, const std::string& block, std::string_view gate_up,
                       std::string_view down, ModelConfig& config) {
  ExpertRow& row = config.expert_row;
  row.stored_gate_up = gate_up;
  row.stored_down = down;
  const int64_t count = config.experts.count, width = config.experts.intermediate;
  const bool rows =
      checkpoint.tensor(cat(block, down)).shape == std::vector<int64_t>{count, config.hidden, width} &&
      checkpoint.tensor(cat(block, gate_up)).shape == std::vector<int64_t>{count, 2 * width, config.hidden};
  row.tensors = rows ? ExpertTensors::halves : ExpertTensors::turned_halves;
}

// Takes the layout of the experts from the tensors of the first block that has some: those of the row, a tensor each,
// or one of transformers 5.
void find_expert_layout(const Checkpoint& checkpoint, ModelConfig& config) {
  const auto first =
      std::find_if(config.kinds.begin(), config.kinds.end(), [](const BlockKind& kind) { return kind.has_experts; });
  if (first == config.kinds.end()) return;
  ExpertRow& row = config.expert_row;
  const std::string block = block_module(config, first - config.kinds.begin()) + ".";
  take_common_names(checkpoint, block, row);
  if (checkpoint.has(cat(block, of_expert(row.down, 0), ".weight"))) {
    row.tensors = ExpertTensors::split;
    return;
  }
  if (row.tensors == ExpertTensors::turned_pairs) return;  // gpt-oss has one fused layout
  constexpr std::pair<std::string_view, std::string_view> kFused[] = {
      {"mlp.experts.gate_up_proj", "mlp.experts.down_proj"},
      {"block_sparse_moe.experts.gate_up_proj", "block_sparse_moe.experts.down_proj"},
      {"feed_forward.experts.gate_up_proj", "feed_forward.experts.down_proj"}};
  for (const auto& [gate_up, fused_down] : kFused) {
    if (checkpoint.has(cat(block, gate_up))) return take_fused_layout(checkpoint, block, gate_up, fused_down, config);
  }
}

// Ties as transformers does: only tensors that are equal, or one that is there to one that is not.
void settle_head(const Checkpoint& checkpoint, bool inner_ties, ModelConfig& config) {
  const std::string embedding = embedding_tensor(config), head = config.head + ".weight";
  const bool has_embedding = checkpoint.has(embedding);
  const bool has_head = find_head(checkpoint, config) || checkpoint.is_phantom(head);
  if (!has_head && inner_ties) config.tied_embeddings = true;
  if (!config.tied_embeddings) {
    config.has_head = has_head;
    if (has_head) return;
    config.warnings.push_back(
        cat(checkpoint.folder().string(), ": no output head: there is no tensor '", head,
            "', and config.json has no tie_word_embeddings true that would make it the embedding"));
    return;
  }
  const std::string stored_head = config.head + ".weight";
  if (!checkpoint.has(stored_head)) return;
  if (!has_embedding) {
    config.embedding = config.head;
  } else if (!checkpoint.equal(checkpoint.tensor(embedding), checkpoint.tensor(stored_head))) {
    config.tied_embeddings = false;
    config.untied_by_head = embedding;
    config.warnings.push_back(cat(checkpoint.folder().string(), ": config.json says tie_word_embeddings, but '",
                                  stored_head, "' and '", embedding, "' are both stored and differ: '", stored_head,
                                  "' is the head, as in transformers"));
  }
}

}  // namespace

void dequantize(Checkpoint& checkpoint) {
  checkpoint.dequantize(parse_model_config(checkpoint.config(), checkpoint.folder()).architecture->transposed);
}

ModelConfig parse_model_config(const Checkpoint& checkpoint) {
  ModelConfig config = parse_model_config(checkpoint.config(), checkpoint.folder());
  const Levels levels(checkpoint.config(), (checkpoint.folder() / "config.json").string());
  const Keys keys = levels.text();
  find_root(checkpoint, config);
  settle_head(checkpoint, levels.nested() && keys.flag("tie_word_embeddings", false), config);
  find_expert_layout(checkpoint, config);
  check_counts(keys, config, checkpoint);
  return config;
}

}  // namespace gptq
