#include "data/tokenizer/tiktoken.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/message.h"
#include "data/tokenizer/config_tokens.h"
#include "data/tokenizer/pre_tokenizer.h"
#include "data/tokenizer/values.h"
#include "io/file.h"
#include "io/json.h"

namespace gptq {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

// The pattern of cl100k_base, which TikTokenConverter takes too.
constexpr const char* kCl100k =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// As o200k_base, with Chinese characters apart.
constexpr const char* kKimi =
    R"([\p{Han}]+)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// How a class of tokenizers uses its vocabulary.
struct Rules {
  std::string_view tokenizer_class;  // of tokenizer_config.json
  const char* pattern;
  bool composes = false;    // texts are brought to NFC first
  int reserved = 0;         // special tokens after the vocabulary, named <|reserved_token_ID|> where none is given
  const char* first = "";   // special tokens after the vocabulary, with blanks
  int extras = 0;           // and then <|extra_0|> and so on
  const char* before = "";  // special tokens that begin a text, with blanks
};
constexpr Rules kRules[] = {
    {.tokenizer_class = "TikTokenTokenizer", .pattern = kKimi, .reserved = 256},
    {.tokenizer_class = "QWenTokenizer",
     .pattern = kQwen,
     .composes = true,
     .first = "<|endoftext|> <|im_start|> <|im_end|>",
     .extras = 205},
    {.tokenizer_class = "ChatGLM4Tokenizer", .pattern = kCl100k, .before = "[gMASK] <sop>"},
};
constexpr Rules kConverter = {.tokenizer_class = "", .pattern = kCl100k};

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(' ', at), text.size());
    words.emplace_back(text.substr(at, end - at));
    at = end + 1;
  }
  return words;
}

// Bytes of a text in base64 (RFC 4648), with or without its padding; none for another text.
std::optional<std::string> from_base64(std::string_view text) {
  while (text.ends_with('=')) text.remove_suffix(1);
  std::string bytes;
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const size_t value = kAlphabet.find(c);
    if (value == kAlphabet.npos) return std::nullopt;
    bits = bits << 6 | static_cast<uint32_t>(value);
    count += 6;
    if (count < 8) continue;
    count -= 8;
    bytes += static_cast<char>(bits >> count & 0xff);
  }
  return bytes;
}

// The vocabulary of a model whose merges follow from it: texts in the alphabet of byte-level BPE -> ids.
class RankedVocabulary {
 public:
  // what: the token, for messages.
  void add(std::string_view base64, int64_t id, const std::string& what) {
    constexpr size_t kLongest = 512;  // bytes: real tokens have at most 128 or so
    const std::optional<std::string> bytes = from_base64(base64);
    if (!bytes || bytes->empty()) throw InputError(cat(what, " is not a text in base64: \"", excerpt(base64), '"'));
    if (bytes->size() > kLongest) throw InputError(cat(what, " has more than ", kLongest, " bytes"));
    std::string text;
    append_byte_characters(text, *bytes);
    if (bytes->size() == 1) ++single_bytes_;
    if (!vocabulary_.emplace(std::move(text), id).second) throw InputError(cat(what, " is there twice"));
    largest_ = std::max(largest_, id);
  }

  // The "model" of tokenizer.json, for BytePairEncoding.
  json model() {
    if (single_bytes_ != 256)
      throw UnsupportedError(
          cat("it is a vocabulary of tiktoken, not of SentencePiece, which needs a token for each of the 256 ",
              "bytes, and it has ", single_bytes_, " of them"));
    json model = {{"type", "BPE"}, {"ignore_merges", true}, {"merges_follow_ids", true}};
    model["vocab"] = std::move(vocabulary_);
    return model;
  }
  int64_t end() const { return largest_ + 1; }

 private:
  json vocabulary_ = json::object();
  int single_bytes_ = 0;
  int64_t largest_ = -1;
};

json byte_level_tokenizer(json model, const std::string& pattern, bool composes) {
  json tokenizer = {{"model", std::move(model)}, {"added_tokens", json::array()}, {"decoder", {{"type", "ByteLevel"}}}};
  if (composes) tokenizer["normalizer"] = {{"type", "NFC"}};
  tokenizer["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}},
        {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}};
  return tokenizer;
}

json special_token(const std::string& content, int64_t id) {
  return {{"id", id}, {"content", content}, {"special", true}, {"keeps_id", true}};
}

// A post-processor that puts some of the special tokens before a text.
json beginning_with(const std::vector<std::string>& names, const std::map<int64_t, json>& tokens) {
  json single = json::array(), ids = json::object();
  for (const std::string& name : names) {
    const auto found = std::find_if(tokens.begin(), tokens.end(),
                                    [&](const auto& token) { return token.second.at("content") == name; });
    if (found == tokens.end())
      throw InputError(cat("it has no token \"", name, "\", which begins the texts of this kind"));
    single.push_back({{"SpecialToken", {{"id", name}, {"type_id", 0}}}});
    ids[name] = {{"id", name}, {"ids", {found->first}}, {"tokens", {name}}};
  }
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  return {{"type", "TemplateProcessing"}, {"single", single}, {"special_tokens", ids}};
}

RankedVocabulary read_lines(std::string_view text) {
  RankedVocabulary vocabulary;
  int64_t number = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = text.substr(at, end - at);
    at = end + 1;
    ++number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    const size_t space = line.find(' ');
    const std::string_view rank = space == line.npos ? "" : line.substr(space + 1);
    constexpr int64_t kMost = int64_t{1} << 30;
    int64_t id = -1;
    const auto read = std::from_chars(rank.data(), rank.data() + rank.size(), id);
    if (read.ec != std::errc() || read.ptr != rank.data() + rank.size() || id < 0 || id > kMost)
      throw InputError(cat("line ", number, " is \"", excerpt(line),
                           "\" where a token in base64, a space and its rank were expected"));
    vocabulary.add(line.substr(0, space), id, cat("the token of line ", number));
  }
  return vocabulary;
}

json config_of(const fs::path& folder) {
  const fs::path file = folder / "tokenizer_config.json";
  if (!is_there(file)) return json::object();
  json config = parse_json<json>(read_text(file, kMaxTokenizerBytes), file);
  return config.is_object() ? config : json::object();
}

const Rules& rules_of(const json& config) {
  const auto found = config.find("tokenizer_class");
  const std::string name = found != config.end() && found->is_string() ? found->get<std::string>() : "";
  for (const Rules& rules : kRules)
    if (rules.tokenizer_class == name) return rules;
  if (config.contains("auto_map")) {
    std::string known;
    for (const Rules& rules : kRules) known += cat(known.empty() ? "" : ", ", rules.tokenizer_class);
    throw UnsupportedError(cat("it is a vocabulary in the text format of tiktoken, and how the class \"", excerpt(name),
                               "\" splits texts for it is not known (known are ", known,
                               "); take a tokenizer.json of this model"));
  }
  return kConverter;
}

// The special tokens by their ids: those of the class, with the names that added_tokens_decoder gives them.
std::map<int64_t, json> special_tokens_of(const Rules& rules, const json& config, int64_t end) {
  std::map<int64_t, json> tokens;
  int64_t next = end;
  for (const std::string& name : words_of(rules.first)) tokens[next] = special_token(name, next), ++next;
  for (int i = 0; i < rules.extras; ++i) tokens[next] = special_token(cat("<|extra_", i, "|>"), next), ++next;
  int64_t last = end + rules.reserved - 1;
  const auto decoder = config.find("added_tokens_decoder");
  if (decoder != config.end() && decoder->is_object()) {
    for (const auto& [key, token] : decoder->items()) {
      json full = added_token_of(key, token);
      const int64_t id = token_id_of(full.at("id"), "the added token", full.at("content").get<std::string>());
      full["keeps_id"] = true;
      tokens[id] = std::move(full);
      if (rules.extras == 0) last = std::max(last, id);
    }
  }
  constexpr int64_t kMostReserved = 1 << 16;
  if (last - end > kMostReserved) throw InputError(cat("an added token has the id ", last, " far behind the others"));
  std::set<std::string> names;
  for (const auto& [id, token] : tokens) names.insert(token.at("content").get<std::string>());
  for (int64_t id = end; id <= last; ++id) {
    const std::string name = cat("<|reserved_token_", id, "|>");
    if (!tokens.contains(id) && names.insert(name).second) tokens[id] = special_token(name, id);
  }
  return tokens;
}

}  // namespace

bool is_tiktoken(std::string_view bytes) {
  const std::string_view line = bytes.substr(0, std::min(bytes.find('\n'), size_t{4096}));
  const size_t space = line.find(' ');
  if (space == 0 || space == line.npos || space + 1 == line.size()) return false;
  const auto in_base64 = [](unsigned char c) { return std::isalnum(c) != 0 || c == '+' || c == '/' || c == '='; };
  const auto is_digit = [](unsigned char c) { return std::isdigit(c) != 0 || c == '\r'; };
  return std::all_of(line.begin(), line.begin() + static_cast<int64_t>(space), in_base64) &&
         std::all_of(line.begin() + static_cast<int64_t>(space) + 1, line.end(), is_digit);
}

json tokenizer_from_tiktoken(const fs::path& folder, const std::string& file) {
  const json config = config_of(folder);
  RankedVocabulary vocabulary = read_lines(read_text(folder / file, kMaxTokenizerBytes));
  const Rules& rules = rules_of(config);
  const int64_t end = vocabulary.end();
  json tokenizer = byte_level_tokenizer(vocabulary.model(), rules.pattern, rules.composes);
  const std::map<int64_t, json> special = special_tokens_of(rules, config, end);
  for (const auto& [id, token] : special) tokenizer["added_tokens"].push_back(token);
  tokenizer["post_processor"] = beginning_with(words_of(rules.before), special);
  add_config_tokens(folder, tokenizer);
  return tokenizer;
}

namespace {

// The special tokens of versions up to 7, whose files have none.
constexpr const char* kOldTekkenTokens =
    "<unk> <s> </s> [INST] [/INST] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_RESULTS] [/TOOL_RESULTS] [TOOL_CALLS] "
    "[IMG] <pad> [IMG_BREAK] [IMG_END] [PREFIX] [MIDDLE] [SUFFIX] [SYSTEM_PROMPT] [/SYSTEM_PROMPT] [TOOL_CONTENT]";

const json& part_of(const json& object, const char* key) {
  if (!object.is_object() || !object.contains(key)) throw InputError(cat("it has no \"", key, '"'));
  return object.at(key);
}

int64_t size_in(const json& config, const char* key) {
  constexpr int64_t kMost = int64_t{1} << 24;
  const int64_t size = count_of(part_of(config, key), kMost);
  if (size < 0) throw InputError(cat("its \"", key, "\" is not a number of tokens"));
  return size;
}

std::string text_in(const json& object, const char* key) {
  const json& value = part_of(object, key);
  if (!value.is_string())
    throw InputError(cat("its \"", key, "\" is ", excerpt_of(value), " where a text was expected"));
  return value.get<std::string>();
}

// All special tokens, fillers included, by their ids.
std::map<int64_t, json> tekken_special_tokens(const json& tekken, int64_t count) {
  constexpr int64_t kMost = 1 << 16;
  if (count > kMost) throw InputError(cat("it has ", count, " special tokens where at most ", kMost, " were expected"));
  std::map<int64_t, json> tokens;
  const auto given = tekken.find("special_tokens");
  if (given == tekken.end() || given->is_null()) {
    for (const std::string& name : words_of(kOldTekkenTokens)) {
      const auto id = static_cast<int64_t>(tokens.size());
      tokens[id] = special_token(name, id);
    }
  } else {
    for (const json& token : *given) {
      const std::string name = text_in(token, "token_str");
      const int64_t id = token_id_of(part_of(token, "rank"), "the special token", name);
      tokens[id] = special_token(name, id);
    }
  }
  for (auto id = static_cast<int64_t>(tokens.size()); id < count; ++id)
    tokens.try_emplace(id, special_token(cat("<SPECIAL_", id, ">"), id));
  if (!tokens.empty() && tokens.rbegin()->first >= count)
    throw InputError(cat("a special token has the id ", tokens.rbegin()->first, " of ", count));
  return tokens;
}

}  // namespace

json tokenizer_from_tekken(const fs::path& folder) {
  const fs::path file = folder / "tekken.json";
  const json tekken = parse_json<json>(read_text(file, kMaxTokenizerBytes), file);
  const json& config = part_of(tekken, "config");
  const int64_t special = size_in(config, "default_num_special_tokens"), size = size_in(config, "default_vocab_size");
  if (size < special) throw InputError(cat("its vocabulary of ", size, " tokens has ", special, " special ones"));
  RankedVocabulary vocabulary;
  for (const json& token : part_of(tekken, "vocab")) {
    const int64_t rank = token_id_of(part_of(token, "rank"), "a token");
    if (rank < size - special) vocabulary.add(text_in(token, "token_bytes"), rank + special, cat("the token ", rank));
  }
  json tokenizer = byte_level_tokenizer(vocabulary.model(), text_in(config, "pattern"), false);
  const std::map<int64_t, json> tokens = tekken_special_tokens(tekken, special);
  for (const auto& [id, token] : tokens) tokenizer["added_tokens"].push_back(token);
  tokenizer["post_processor"] = beginning_with({"<s>"}, tokens);
  return tokenizer;
}

}  // namespace gptq
