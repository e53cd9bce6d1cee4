// rope_scaling, rope_parameters and related keys -> Rope.
#include "model/config_keys.h"
#include "model/config_readers.h"

namespace gptq {
namespace {

RopeKind rope_kind(const Keys& keys, const std::string& name) {
  // "su" is the first name of Phi-3's longrope; for text, the axes of Qwen-VL's mrope are one.
  constexpr std::pair<std::string_view, RopeKind> kKinds[] = {
      {"default", RopeKind::standard},   {"linear", RopeKind::linear},
      {"dynamic", RopeKind::dynamic},    {"yarn", RopeKind::yarn},
      {"llama3", RopeKind::llama3},      {"longrope", RopeKind::longrope},
      {"su", RopeKind::longrope},        {"mrope", RopeKind::standard},
      {"deepseek_yarn", RopeKind::yarn}, {"proportional", RopeKind::proportional}};
  std::string known;
  for (const auto& [word, kind] : kKinds) {
    if (word == name) return kind;
    known += cat(known.empty() ? "" : ", ", word);
  }
  throw UnsupportedError(cat(keys.where(), ": rope type '", name, "' is not supported; supported are ", known));
}

void read_kind(const Keys& config, const Keys& keys, Rope& rope) {
  const bool factor_needed =
      rope.kind == RopeKind::linear || rope.kind == RopeKind::dynamic || rope.kind == RopeKind::llama3;
  if (factor_needed && keys.find("factor") == nullptr) throw keys.wrong("factor", "is missing");
  if (rope.kind == RopeKind::proportional) {
    rope.factor = keys.positive("factor", 1);
    rope.rotated = keys.number("partial_rotary_factor", 1);
    if (rope.rotated < 0 || rope.rotated > 1) throw keys.wrong("partial_rotary_factor", "is not a share from 0 to 1");
    return;
  }
  const double extension = static_cast<double>(rope.max_positions) / static_cast<double>(rope.original_positions);
  rope.factor = keys.positive("factor", extension);
  rope.attention_factor = keys.find("attention_factor") == nullptr ? 0 : keys.positive("attention_factor", 1);
  if (rope.kind == RopeKind::yarn) {
    rope.beta_fast = keys.positive("beta_fast", 32);
    rope.beta_slow = keys.positive("beta_slow", 1);
    rope.mscale = keys.number("mscale", 0);
    rope.mscale_all_dim = keys.number("mscale_all_dim", 0);
    rope.truncate = keys.flag("truncate", true);
  } else if (rope.kind == RopeKind::llama3) {
    rope.low_freq_factor = keys.positive("low_freq_factor", 1);
    rope.high_freq_factor = keys.positive("high_freq_factor", 4);
    if (rope.low_freq_factor == rope.high_freq_factor)
      throw keys.wrong("high_freq_factor", "must differ from low_freq_factor");
  } else if (rope.kind == RopeKind::longrope) {
    if (rope.original_positions == 1) {
      throw keys.wrong("original_max_position_embeddings", "is 1, whose logarithm cannot scale anything");
    }
    rope.short_factor = keys.numbers("short_factor", rope.rotary_dim / 2);
    rope.long_factor = keys.numbers("long_factor", rope.rotary_dim / 2);
  } else if (rope.kind == RopeKind::dynamic && rope.rotary_dim <= 2) {
    throw config.wrong("head_dim", cat("is ", rope.rotary_dim, ", but dynamic rope needs more than 2"));
  }
}

// The number of rotated elements of a head.
int64_t rotary_dim(const Keys& config, const Keys* keys, const Architecture& row, RopeKind kind, int64_t head_dim) {
  const std::string share = config.spelled({"partial_rotary_factor", "rotary_pct"});
  double rotated = config.number(share, row.partial_rotary == 0 ? 1 : row.partial_rotary);
  if (keys != nullptr) rotated = keys->number("partial_rotary_factor", rotated);
  const bool is_part = !row.latent.kv_a.empty();  // what is rotated of a head of latent attention
  if (kind == RopeKind::proportional || is_part) return head_dim;
  if (row.partial_rotary == 0) {
    if (kind == RopeKind::standard || rotated == 1) return head_dim;  // the standard rope ignores partial_rotary_factor
    throw UnsupportedError(cat(keys->where(), ": partial_rotary_factor is ", rotated,
                               "; only 1 is supported with a rope type other than default"));
  }
  if (rotated <= 0 || rotated > 1)
    throw config.wrong(share, cat("is ", rotated, ", where a share above 0 and up to 1 is needed"));
  const int64_t dim = config.find("rotary_dim") != nullptr
                          ? config.size("rotary_dim")
                          : static_cast<int64_t>(static_cast<double>(head_dim) * rotated);
  if (dim < 2 || dim % 2 != 0 || dim > head_dim)
    throw config.wrong(share, cat("rotates ", dim, " of a head's ", head_dim, " elements: an even number is needed"));
  return dim;
}

Rope make_rope(const Keys& config, const Keys* keys, const Architecture& row, int64_t head_dim, int64_t max_positions) {
  Rope rope{.theta = config.above(1, config.spelled({"rope_theta", "rotary_emb_base"}), row.rope_theta),
            .original_positions = max_positions,
            .max_positions = max_positions};
  if (keys != nullptr) {
    rope.kind = rope_kind(*keys, keys->word("rope_type", keys->word("type", "default")));
    rope.theta = keys->above(1, "rope_theta", rope.theta);
    const std::string original = "original_max_position_embeddings";
    rope.original_positions = config.size(original, keys->size(original, max_positions, kMostTokens), kMostTokens);
  }
  rope.rotary_dim = rotary_dim(config, keys, row, rope.kind, head_dim);
  if (keys != nullptr) read_kind(config, *keys, rope);
  return rope;
}

}  // namespace

Rope parse_rope(const Keys& config, const Architecture& row, int64_t head_dim, int64_t max_positions,
                const std::string& blocks) {
  std::string key = "rope_scaling";  // before transformers 5; takes precedence
  if (config.find(key) == nullptr || config.find(key)->empty()) key = "rope_parameters";
  const Json* parameters = config.find(key);
  if (parameters == nullptr || parameters->empty()) return make_rope(config, nullptr, row, head_dim, max_positions);
  const Keys keys = config.object(key);
  if (!parameters->contains(blocks)) return make_rope(config, &keys, row, head_dim, max_positions);
  if (keys.find(blocks) == nullptr) return make_rope(config, nullptr, row, head_dim, max_positions);  // null: no rope
  const Keys of_blocks = keys.object(blocks);
  return make_rope(config, &of_blocks, row, head_dim, max_positions);
}

}  // namespace gptq
