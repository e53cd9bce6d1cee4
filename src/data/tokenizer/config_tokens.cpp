#include "data/tokenizer/config_tokens.h"

#include <charconv>
#include <map>
#include <set>
#include <string>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/message.h"
#include "io/file.h"
#include "io/json.h"

namespace gptq {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

json object_of(const fs::path& file) {
  if (!is_there(file)) return json::object();
  json value = parse_json<json>(read_text(file, kMaxTokenizerBytes), file);
  return value.is_object() ? value : json::object();
}

// The tokens that are there, and those that are added.
class TokenList {
 public:
  explicit TokenList(json& tokens) : tokens_(tokens) {
    for (const json& token : tokens)
      if (token.is_object()) contents_.insert(token.value("content", ""));
  }

  void add(json token) {
    const std::string content = token.value("content", "");
    if (!content.empty() && contents_.insert(content).second) tokens_.push_back(std::move(token));
  }

  // A text, or an object that has one.
  void add_special(const json& value) {
    if (value.is_string()) add({{"content", value}, {"special", true}});
    if (!value.is_object() || !value.contains("content") || !value.at("content").is_string()) return;
    json token = value;
    token["special"] = true;
    add(std::move(token));
  }

 private:
  json& tokens_;
  std::set<std::string> contents_;
};

}  // namespace

json added_token_of(const std::string& id, const json& token) {
  int64_t number = 0;
  const auto read = std::from_chars(id.data(), id.data() + id.size(), number);
  if (read.ec != std::errc() || read.ptr != id.data() + id.size() || !token.is_object())
    throw InputError(cat("added_tokens_decoder has \"", excerpt(id), "\" with ", excerpt_of(token),
                         " where an id with an object was expected"));
  json full = {{"id", number}, {"content", token.value("content", "")}};
  for (const char* flag : {"single_word", "lstrip", "rstrip", "normalized", "special"})
    full[flag] = token.value(flag, false);
  return full;
}

void add_config_tokens(const fs::path& folder, json& tokenizer) {
  const json config = object_of(folder / "tokenizer_config.json");
  json& tokens = tokenizer["added_tokens"];
  if (tokens.is_null()) tokens = json::array();
  if (!tokens.is_array()) return;  // which is refused where it is read
  TokenList list(tokens);
  const auto decoder = config.find("added_tokens_decoder");
  const bool has_decoder = decoder != config.end() && decoder->is_object();
  std::map<int64_t, json> by_id;
  if (has_decoder) {
    for (const auto& [id, token] : decoder->items()) {
      json full = added_token_of(id, token);
      const auto number = full.at("id").get<int64_t>();
      by_id[number] = std::move(full);
    }
  }
  for (auto& [id, token] : by_id) list.add(std::move(token));

  const json map = has_decoder ? json::object() : object_of(folder / "special_tokens_map.json");
  for (const char* name :
       {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"}) {
    const json& from = config.contains(name) ? config : map;
    if (from.contains(name)) list.add_special(from.at(name));
  }
  for (const char* name : {"additional_special_tokens", "extra_special_tokens"}) {
    const auto extra = config.find(name);
    if (extra != config.end() && extra->is_structured())
      for (const json& token : *extra) list.add_special(token);
  }
}

}  // namespace gptq
