#include "run/text_model.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "io/file.h"
#include "io/json.h"

namespace gptq {
namespace {

constexpr std::string_view kRecurrent =
    "for each token the recurrent mixers pass all tokens before it again: long texts are slow";

Evaluation evaluation_of(const Generation& generation) {
  return {.model = generation.model,
          .device_map = generation.device_map,
          .precision = generation.precision,
          .ignore_config_keys = generation.ignore_config_keys,
          .stop = generation.stop};
}

// Adds what an object says under "eos_token_id": an id or a list of them.
void add_end_tokens(const Json& object, std::vector<int32_t>& tokens) {
  const auto found = object.find("eos_token_id");
  if (found == object.end()) return;
  const auto add = [&](const Json& id) {
    if (id.is_number_integer()) tokens.push_back(id.get<int32_t>());
  };
  if (!found->is_array()) return add(*found);
  for (const Json& id : *found) add(id);
}

std::vector<int32_t> end_tokens_of(const Checkpoint& checkpoint) {
  std::vector<int32_t> tokens;
  add_end_tokens(checkpoint.config(), tokens);
  if (const auto text = checkpoint.config().find("text_config"); text != checkpoint.config().end() && text->is_object())
    add_end_tokens(*text, tokens);
  if (const auto file = checkpoint.folder() / "generation_config.json"; is_there(file)) {
    if (const Json json = read_json(file); json.is_object()) add_end_tokens(json, tokens);
  }
  return tokens;
}

bool ropes_differ(const ModelConfig& config, int64_t a, int64_t b) {
  return std::any_of(config.ropes.begin(), config.ropes.end(),
                     [&](const Rope& rope) { return differ_by_length(rope, a, b); });
}

bool is_recurrent(const ModelConfig& config) {
  return std::any_of(config.kinds.begin(), config.kinds.end(),
                     [](const BlockKind& kind) { return kind.mixer != Mixer::attention; });
}

}  // namespace

TextModel::TextModel(const Generation& generation, const Listener& listener)
    : resources_(find_resources(generation.max_memory)),
      devices_(resources_, generation.threads),
      opened_(generation.model, evaluation_of(generation), resources_, devices_, notices_, ModelUse::texts),
      cache_(opened_.blocks()),
      end_tokens_(end_tokens_of(opened_.checkpoint())) {
  if (is_recurrent(opened_.model().config())) notices_.emplace_back().text = kRecurrent;
  for (const Notice& notice : notices_) {
    if (listener.on_message) listener.on_message(notice.level, notice.text);
  }
}

int64_t TextModel::positions() {
  const ModelConfig& config = opened_.model().config();
  return config.dense_tokens > 0 ? std::min(config.max_positions, config.dense_tokens) : config.max_positions;
}

std::vector<float> TextModel::next_logits(const TokenSequence& tokens) {
  const auto same = std::mismatch(tokens.begin(), tokens.end() - 1, cached_.begin(), cached_.end()).first;
  int64_t kept = same - tokens.begin();
  // Keys that were rotated for another length are of no use.
  if (ropes_differ(opened_.model().config(), cache_.tokens, static_cast<int64_t>(tokens.size()))) kept = 0;
  cache_.tokens = kept;
  cached_.clear();  // until the pass is whole
  const TokenSequence next(tokens.begin() + kept, tokens.end());
  const auto states = opened_.forward(next, cache_);
  cached_ = tokens;
  computed_ = static_cast<int64_t>(next.size());
  const Batch& batch = states->at(0, opened_.head());
  return to_host<float>(opened_.head(), opened_.model().output_head().logits(batch, batch.tokens() - 1, 1));
}

}  // namespace gptq
