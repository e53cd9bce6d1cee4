#include "model/config_checks.h"

#include <algorithm>
#include <charconv>
#include <set>
#include <utility>

#include "model/config_keys.h"
#include "model/specs.h"

namespace gptq {
namespace {

// Takes "12." from the start of a path; -1 if it does not begin with an index.
int64_t take_index(std::string_view& path) {
  int64_t index = 0;
  const auto [end, error] = std::from_chars(path.data(), path.data() + path.size(), index);
  const auto length = static_cast<size_t>(end - path.data());
  if (error != std::errc() || index < 0 || length == path.size() || path[length] != '.') return -1;
  path.remove_prefix(length + 1);
  return index;
}

// The blocks and experts that a checkpoint has tensors of.
struct Found {
  std::set<int64_t> blocks;
  std::set<std::pair<int64_t, int64_t>> experts;  // block, expert

  Found(const ModelConfig& config, const Checkpoint& checkpoint) {
    const std::string prefix = module_path(config, config.architecture->blocks) + ".";
    const std::string_view expert = config.expert_row.down;  // "mlp.experts.#.down_proj"
    const std::string_view before = expert.substr(0, std::min(expert.find('#'), expert.size()));
    for (const StoredTensor* tensor : checkpoint.tensors()) {
      if (!tensor->name.starts_with(prefix)) continue;
      std::string_view path = std::string_view(tensor->name).substr(prefix.size());
      const int64_t block = take_index(path);
      if (block < 0) continue;
      blocks.insert(block);
      if (before.empty() || !path.starts_with(before)) continue;
      path.remove_prefix(before.size());
      if (const int64_t index = take_index(path); index >= 0) experts.emplace(block, index);
    }
  }

  int64_t experts_of(int64_t block) const {
    return std::distance(experts.lower_bound({block, 0}), experts.lower_bound({block + 1, 0}));
  }
};

// Throws unless a matrix has these rows, of which `key` counts `count`, and hidden_size columns; or is the transpose.
void check_rows(const StoredTensor& tensor, int64_t rows, const Keys& keys, const std::string& key, int64_t count,
                int64_t hidden, bool transposed = false) {
  std::vector<int64_t> expected = {rows, hidden};
  if (transposed) std::swap(expected[0], expected[1]);
  if (tensor.shape == expected) return;
  const bool is_width = tensor.shape.size() == 2 && tensor.shape[transposed ? 1 : 0] == rows;
  throw keys.wrong(is_width ? SizeKeys(keys).hidden : key,
                   cat("is ", is_width ? hidden : count, ", but tensor '", tensor.name, "' has shape ",
                       shape_string(tensor.shape), ", where ", shape_string(expected), " is needed"));
}

void check_experts(const Keys& keys, const ModelConfig& config, const Checkpoint& checkpoint, const Found& found,
                   int64_t block) {
  const ExpertRow& row = config.expert_row;
  const std::string key = SizeKeys(keys).experts, module = block_module(config, block);
  const StoredTensor& router = checkpoint.tensor(cat(module, ".", row.router, ".weight"));
  check_rows(router, config.experts.count, keys, key, config.experts.count, config.hidden, row.turned_router);
  if (row.tensors != ExpertTensors::split) return;
  if (const int64_t count = found.experts_of(block_place(config, block)); count < config.experts.count)
    throw keys.wrong(key, cat("is ", config.experts.count, ", but ", module, " has tensors of ", count, " experts"));
}

}  // namespace

void check_numbers(const Keys& keys, const ModelConfig& config) {
  const SizeKeys names(keys);
  if (const int64_t size = std::max(config.head_dim, config.latent.value_dim); config.heads * size > kMostWidth) {
    throw keys.wrong(names.heads, cat("is ", config.heads, ", of heads with ", size,
                                      " features: together more than the ", kMostWidth, " that are possible"));
  }
  for (const Rope& rope : config.ropes) {
    if (is_finite(rope)) continue;
    throw InputError(cat(keys.where(), ": its rope (rope_theta ", rope.theta, ", factor ", rope.factor,
                         ") has frequencies or factors that are not finite"));
  }
  const auto check = [&](float value) {
    if (!std::isfinite(value))
      throw InputError(cat(keys.where(), ": its numbers lead to a scale of ", value, ", where finite ones are needed"));
  };
  for (const float value : {config.embedding_scale, config.residual_scale, config.logit_scale, config.score_cap,
                            config.logit_cap, config.qkv_cap, config.experts.scale})
    check(value);
  for (const BlockKind& kind : config.kinds) check(kind.score_scale);
  for (const float slope : config.slopes) check(slope);
}

void check_counts(const Keys& keys, const ModelConfig& config, const Checkpoint& checkpoint) {
  const Architecture& row = *config.architecture;
  const SizeKeys names(keys);
  check_rows(checkpoint.tensor(embedding_tensor(config)), config.vocabulary + row.embedding_extra, keys, "vocab_size",
             config.vocabulary, config.hidden);
  if (!row.position_embedding.empty()) {
    check_rows(checkpoint.tensor(tensor_name(config, row.position_embedding)),
               config.max_positions + row.position_offset, keys, names.positions, config.max_positions, config.hidden);
  }
  const Found found(config, checkpoint);
  for (int64_t block = 0; block < config.blocks; ++block) {
    if (found.blocks.count(block_place(config, block)) == 0) {
      throw keys.wrong(names.blocks, cat("is ", config.blocks, ", but ", checkpoint.folder().string(),
                                         " has no tensors of ", block_module(config, block)));
    }
    if (config.kinds[static_cast<size_t>(block)].has_experts) check_experts(keys, config, checkpoint, found, block);
  }
}

}  // namespace gptq
