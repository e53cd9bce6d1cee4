#include "data/tokenizer/older_files.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>
#include <sstream>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/message.h"
#include "data/tokenizer/config_tokens.h"
#include "data/tokenizer/unicode.h"
#include "data/tokenizer/values.h"
#include "io/file.h"
#include "io/json.h"

namespace gptq {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr std::string_view kSpace = "\u2581";

// A field of a protobuf message (protobuf.dev/programming-guides/encoding): a number, or length-delimited bytes.
struct Field {
  uint64_t number = 0, value = 0;
  std::string_view text;
};

class Message {
 public:
  explicit Message(std::string_view bytes) : bytes_(bytes) {}

  // Reads the next field; false at the end.
  bool next(Field& field) {
    if (at_ == bytes_.size()) return false;
    const uint64_t key = varint();
    field = {.number = key >> 3};
    switch (key & 7) {
      case 0:
        field.value = varint();
        break;
      case 1:
        take(8);
        break;
      case 2:
        field.text = take(varint());
        break;
      case 5: {
        const std::string_view word = take(4);
        uint32_t bits = 0;
        std::memcpy(&bits, word.data(), sizeof bits);
        field.value = bits;
        break;
      }
      default:
        throw InputError("it is not a SentencePiece model: a field of an unknown kind");
    }
    return true;
  }

 private:
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    throw InputError("it is not a SentencePiece model: a number without an end");
  }

  std::string_view take(uint64_t count) {
    if (count > bytes_.size() - at_) throw InputError("it ends in the middle: download it again");
    const std::string_view taken = bytes_.substr(at_, count);
    at_ += count;
    return taken;
  }

  std::string_view bytes_;
  size_t at_ = 0;
};

struct Piece {
  enum Type : uint64_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };
  std::string text;
  uint64_t type = normal;
};

struct SentencePiece {
  std::vector<Piece> pieces;
  uint64_t model_type = 1;  // 1: unigram, 2: bpe
  bool byte_fallback = false, dummy_prefix = true, has_character_map = false;
};

SentencePiece parse_sentencepiece(std::string_view bytes) {
  SentencePiece model;
  Message proto(bytes);
  for (Field field; proto.next(field);) {
    Message inner(field.text);
    Field part;
    if (field.number == 1) {
      Piece& piece = model.pieces.emplace_back();
      while (inner.next(part)) {
        if (part.number == 1) piece.text = part.text;
        if (part.number == 3) piece.type = part.value;
      }
      if (invalid_utf8_offset(piece.text) >= 0)
        throw InputError(cat("its piece ", model.pieces.size() - 1, " is not valid UTF-8"));
    } else if (field.number == 2) {
      while (inner.next(part)) {
        if (part.number == 3) model.model_type = part.value;
        if (part.number == 35) model.byte_fallback = part.value != 0;
      }
    } else if (field.number == 3) {
      while (inner.next(part)) {
        if (part.number == 2) model.has_character_map = !part.text.empty();
        if (part.number == 3) model.dummy_prefix = part.value != 0;
      }
    }
  }
  if (model.pieces.empty()) throw InputError("it is not a SentencePiece model: it has no pieces");
  return model;
}

// All ways to build a piece from two others, in the order of pieces: the merges of the training, and others that never
// take precedence (transformers' generate_merges).
json merges_of(const std::vector<Piece>& pieces) {
  std::unordered_map<std::string_view, size_t> ids;
  for (size_t id = 0; id < pieces.size(); ++id) ids[pieces[id].text] = id;
  json merges = json::array();
  std::vector<std::tuple<size_t, size_t, size_t>> splits;  // length of the left part, ids of both
  for (const auto& [text, type] : pieces) {
    constexpr size_t kLongest = 1000;  // bytes: real pieces are far shorter, and the work is quadratic
    if (text.size() > kLongest) continue;
    splits.clear();
    for (size_t at = 1; at < text.size(); ++at) {
      const std::string_view left = std::string_view(text).substr(0, at), right = std::string_view(text).substr(at);
      const auto first = ids.find(left), second = ids.find(right);
      if (first == ids.end() || second == ids.end()) continue;
      const auto characters = std::count_if(left.begin(), left.end(),
                                            [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; });
      splits.emplace_back(static_cast<size_t>(characters), first->second, second->second);
    }
    std::sort(splits.begin(), splits.end());
    for (const auto& [length, left, right] : splits) merges.push_back({pieces[left].text, pieces[right].text});
  }
  return merges;
}

json read_beside(const fs::path& file) {
  if (!is_there(file)) return json::object();
  const json value = parse_json<json>(read_text(file, kMaxTokenizerBytes), file);
  if (!value.is_object()) throw InputError(cat(file.filename().string(), " next to it is not a JSON object"));
  return value;
}

// The contents of tokenizer_config.json and related files.
class Settings {
 public:
  explicit Settings(const fs::path& folder)
      : config_(read_beside(folder / "tokenizer_config.json")),
        map_(read_beside(folder / "special_tokens_map.json")),
        added_(read_beside(folder / "added_tokens.json")) {}

  bool flag(const char* name, bool missing) const {
    const auto found = config_.find(name);
    return found != config_.end() && found->is_boolean() ? found->get<bool>() : missing;
  }

  std::string word(const char* name) const {
    const auto found = config_.find(name);
    return found != config_.end() && found->is_string() ? found->get<std::string>() : "";
  }

  // The text of "bos_token" or a similar key, or empty.
  std::string special(const char* name) const {
    for (const json* from : {&config_, &map_}) {
      const auto found = from->find(name);
      if (found == from->end()) continue;
      if (found->is_string()) return found->get<std::string>();
      if (found->is_object()) return found->value("content", "");
    }
    return "";
  }

  // Adds to tokenizer.json's "added_tokens" those of added_tokens_decoder and added_tokens.json, and the special tokens
  // of the vocabulary.
  void add_tokens(const std::map<std::string, int64_t>& vocabulary, json& tokens) const {
    std::map<int64_t, json> by_id;
    for (const json& token : tokens) by_id[token.at("id").get<int64_t>()] = token;
    for (const char* name : {"bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token"}) {
      const auto found = vocabulary.find(special(name));
      if (found != vocabulary.end()) by_id[found->second] = token_of(found->second, found->first, true);
    }
    for (const auto& [text, id] : added_.items()) {
      if (id.is_number_integer()) by_id.try_emplace(id.get<int64_t>(), token_of(id.get<int64_t>(), text, false));
    }
    const auto decoder = config_.find("added_tokens_decoder");
    if (decoder != config_.end() && decoder->is_object()) {
      for (const auto& [id, token] : decoder->items()) {
        json full = added_token_of(id, token);
        const auto number = full.at("id").get<int64_t>();
        by_id[number] = std::move(full);
      }
    }
    tokens = json::array();
    for (auto& [id, token] : by_id) tokens.push_back(std::move(token));
  }

  // The special tokens before and after each text.
  json post_processor(bool adds_bos, const std::map<std::string, int64_t>& vocabulary) const {
    json before = json::array(), after = json::array(), ids = json::object();
    const auto add = [&](const char* flag, bool missing, const char* name, json& side) {
      const std::string text = special(name);
      const auto found = vocabulary.find(text);
      if (!flag_or(flag, missing) || found == vocabulary.end()) return;
      side.push_back({{"SpecialToken", {{"id", text}, {"type_id", 0}}}});
      ids[text] = {{"id", text}, {"ids", {found->second}}, {"tokens", {text}}};
    };
    add("add_bos_token", adds_bos, "bos_token", before);
    add("add_eos_token", false, "eos_token", after);
    json single = before;
    single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
    single.insert(single.end(), after.begin(), after.end());
    return {{"type", "TemplateProcessing"}, {"single", single}, {"special_tokens", ids}};
  }

  static json token_of(int64_t id, const std::string& text, bool special) {
    return {{"id", id},        {"content", text},     {"single_word", false}, {"lstrip", false},
            {"rstrip", false}, {"normalized", false}, {"special", special}};
  }

 private:
  bool flag_or(const char* name, bool missing) const { return flag(name, missing); }

  const json config_, map_, added_;
};

std::map<std::string, int64_t> vocabulary_of(const json& tokenizer) {
  std::map<std::string, int64_t> vocabulary;
  for (const auto& [text, id] : tokenizer.at("model").at("vocab").items())
    vocabulary[text] = token_id_of(id, "the token", text);
  return vocabulary;
}

json from_vocabulary_and_merges(const fs::path& folder, const Settings& settings) {
  // The rule that splits text into words: Qwen2's if tokenizer_config.json names its class, else GPT-2's.
  constexpr const char* kQwen =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  json tokenizer;
  json vocabulary = read_beside(folder / "vocab.json");
  json merges = json::array();
  std::istringstream lines(read_text(folder / "merges.txt", kMaxTokenizerBytes));
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (!line.empty() && !line.starts_with("#version")) merges.push_back(line);
  }
  tokenizer["model"] = {{"type", "BPE"}, {"vocab", std::move(vocabulary)}, {"merges", std::move(merges)}};
  const bool prefixed = settings.flag("add_prefix_space", false);
  tokenizer["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", prefixed}, {"use_regex", true}};
  if (settings.word("tokenizer_class").starts_with("Qwen2")) {
    tokenizer["normalizer"] = {{"type", "NFC"}};
    tokenizer["pre_tokenizer"] = {
        {"type", "Sequence"},
        {"pretokenizers",
         {{{"type", "Split"}, {"pattern", {{"Regex", kQwen}}}, {"behavior", "Isolated"}, {"invert", false}},
          {{"type", "ByteLevel"}, {"add_prefix_space", prefixed}, {"use_regex", false}}}}};
  }
  tokenizer["decoder"] = {{"type", "ByteLevel"}};
  tokenizer["added_tokens"] = json::array();
  const auto ids = vocabulary_of(tokenizer);
  settings.add_tokens(ids, tokenizer["added_tokens"]);
  tokenizer["post_processor"] = settings.post_processor(false, ids);
  return tokenizer;
}

}  // namespace

json read_sentencepiece(std::string_view bytes) {
  const SentencePiece model = parse_sentencepiece(bytes);
  if (model.model_type != 2) throw UnsupportedError("only SentencePiece models with byte pair encoding are supported");
  if (model.has_character_map)
    throw UnsupportedError("a SentencePiece model that replaces characters (precompiled_charsmap) is not supported");
  json vocabulary = json::object(), added = json::array();
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    const Piece& piece = model.pieces[id];
    vocabulary[piece.text] = id;
    if (piece.type == Piece::control || piece.type == Piece::user_defined || piece.type == Piece::unknown)
      added.push_back(Settings::token_of(static_cast<int64_t>(id), piece.text, piece.type != Piece::user_defined));
  }
  json tokenizer;
  tokenizer["model"] = {{"type", "BPE"},
                        {"vocab", std::move(vocabulary)},
                        {"merges", merges_of(model.pieces)},
                        {"fuse_unk", true},
                        {"byte_fallback", model.byte_fallback}};
  for (const Piece& piece : model.pieces) {
    if (piece.type == Piece::unknown) tokenizer["model"]["unk_token"] = piece.text;
  }
  tokenizer["pre_tokenizer"] = {{"type", "Metaspace"},
                                {"replacement", kSpace},
                                {"prepend_scheme", model.dummy_prefix ? "first" : "never"},
                                {"split", false}};
  json steps = {{{"type", "Replace"}, {"pattern", {{"String", kSpace}}}, {"content", " "}},
                {{"type", "ByteFallback"}},
                {{"type", "Fuse"}}};
  if (model.dummy_prefix) steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  tokenizer["decoder"] = {{"type", "Sequence"}, {"decoders", steps}};
  tokenizer["added_tokens"] = std::move(added);
  return tokenizer;
}

json tokenizer_from_older_files(const fs::path& folder) {
  const bool has_pieces = is_there(folder / "tokenizer.model"),
             has_vocabulary = is_there(folder / "vocab.json") && is_there(folder / "merges.txt");
  if (!has_pieces && !has_vocabulary) return {};
  const Settings settings(folder);
  if (!has_pieces) return from_vocabulary_and_merges(folder, settings);
  json tokenizer = read_sentencepiece(read_text(folder / "tokenizer.model", kMaxTokenizerBytes));
  const auto ids = vocabulary_of(tokenizer);
  settings.add_tokens(ids, tokenizer["added_tokens"]);
  tokenizer["post_processor"] = settings.post_processor(true, ids);
  return tokenizer;
}

}  // namespace gptq
