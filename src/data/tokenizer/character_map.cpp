#include "data/tokenizer/character_map.h"

#include <array>
#include <cstring>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include <utf8proc.h>

#include "base/error.h"
#include "data/tokenizer/unicode.h"

namespace gptq {
namespace {

std::string from_base64(std::string_view text) {
  constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::array<int8_t, 256> values{};
  values.fill(-1);
  for (size_t i = 0; i < kAlphabet.size(); ++i)
    values[static_cast<unsigned char>(kAlphabet[i])] = static_cast<int8_t>(i);
  std::string bytes;
  uint32_t held = 0;
  int bits = 0;
  for (const char c : text) {
    if (c == '=') break;
    const int8_t value = values[static_cast<unsigned char>(c)];
    if (value < 0) throw InputError("the precompiled_charsmap of normalizer Precompiled is not base64");
    held = held << 6 | static_cast<uint32_t>(value);
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    bytes += static_cast<char>(held >> bits & 0xff);
  }
  return bytes;
}

class CharacterMap final : public Normalizer {
 public:
  explicit CharacterMap(const nlohmann::json& description) {
    const auto found = description.find("precompiled_charsmap");
    if (found == description.end() || found->is_null()) return;
    const std::string bytes = from_base64(found->get<std::string>());
    if (bytes.empty()) return;
    uint32_t size = 0;
    if (bytes.size() < sizeof size) throw InputError("the precompiled_charsmap of normalizer Precompiled is truncated");
    std::memcpy(&size, bytes.data(), sizeof size);
    if (size > bytes.size() - sizeof size || size % sizeof(uint32_t) != 0)
      throw InputError("the precompiled_charsmap of normalizer Precompiled is truncated");
    units_.resize(size / sizeof(uint32_t));
    std::memcpy(units_.data(), bytes.data() + sizeof size, size);
    texts_ = bytes.substr(sizeof size + size);
  }

  // Replaces whole grapheme clusters, or else single characters.
  std::string apply(std::string text, Budget& budget) const override {
    constexpr size_t kLongestCluster = 6;  // bytes
    std::string result;
    result.reserve(text.size());
    for (size_t start = 0; start < text.size();) {
      const size_t end = cluster_end(text, start);
      const std::string_view cluster = std::string_view(text).substr(start, end - start);
      if (cluster.size() < kLongestCluster && replace(cluster, result, budget)) {
        start = end;
        continue;
      }
      for (size_t at = start; at < end;) {
        const size_t first = at;
        next_character(text, at);
        const std::string_view character = std::string_view(text).substr(first, at - first);
        if (!replace(character, result, budget)) result += character;
      }
      start = end;
    }
    if (!units_.empty() && invalid_utf8_offset(result) >= 0)
      throw InputError("the precompiled_charsmap of normalizer Precompiled gives bytes that are not valid UTF-8");
    return result;
  }

 private:
  static size_t cluster_end(const std::string& text, size_t start) {
    utf8proc_int32_t state = 0;
    size_t end = start;
    auto before = static_cast<utf8proc_int32_t>(next_character(text, end));
    while (end < text.size()) {
      size_t next = end;
      const auto character = static_cast<utf8proc_int32_t>(next_character(text, next));
      if (utf8proc_grapheme_break_stateful(before, character, &state)) break;
      before = character;
      end = next;
    }
    return end;
  }

  // Appends the replacement of the shortest prefix of a text in the trie, as the library does.
  bool replace(std::string_view text, std::string& result, Budget& budget) const {
    const auto offset = [](uint32_t unit) { return (unit >> 10) << ((unit & (1U << 9)) >> 6); };
    if (units_.empty()) return false;
    uint32_t node = offset(units_[0]);
    for (const char c : text) {
      const auto byte = static_cast<unsigned char>(c);
      if (byte == 0) return false;
      node ^= byte;
      if (node >= units_.size()) return false;
      const uint32_t unit = units_[node];
      if ((unit & ((1U << 31) | 0xff)) != byte) return false;
      node ^= offset(unit);
      if ((unit >> 8 & 1) == 0) continue;
      if (node >= units_.size()) return false;
      const uint32_t first = units_[node] & ~(1U << 31);
      if (first > texts_.size()) return false;
      const std::string_view replacement = std::string_view(texts_).substr(first, texts_.find('\0', first) - first);
      budget.grow(text.size(), replacement.size(), "the normalizer Precompiled");
      result += replacement;
      return true;
    }
    return false;
  }

  std::vector<uint32_t> units_;
  std::string texts_;
};

}  // namespace

std::unique_ptr<Normalizer> make_character_map(const nlohmann::json& description) {
  return std::make_unique<CharacterMap>(description);
}

}  // namespace gptq
