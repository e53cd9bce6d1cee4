// The pre-tokenizers, one class per type. Words are passed on as they are found, so a text is never copied whole.
#include "data/tokenizer/pre_tokenizer.h"

#include <array>
#include <optional>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/message.h"
#include "data/tokenizer/regex.h"
#include "data/tokenizer/unicode.h"
#include "data/tokenizer/values.h"

namespace gptq {
namespace {

using nlohmann::json;

// How the matches of a pattern, and the text between them, become words.
enum class Behavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

Behavior behavior_from(const std::string& name) {
  static constexpr std::array<std::pair<std::string_view, Behavior>, 5> kNames = {{
      {"Removed", Behavior::kRemoved},
      {"Isolated", Behavior::kIsolated},
      {"MergedWithPrevious", Behavior::kMergedWithPrevious},
      {"MergedWithNext", Behavior::kMergedWithNext},
      {"Contiguous", Behavior::kContiguous},
  }};
  for (auto [known, behavior] : kNames)
    if (name == known) return behavior;
  throw UnsupportedError(cat("the split behavior \"", excerpt(name), "\" is not supported"));
}

// Receives a piece's matches from left to right and passes on words according to the behavior.
class Splitter {
 public:
  Splitter(Piece piece, Behavior behavior, bool invert, const PieceSink& sink)
      : piece_(piece), behavior_(behavior), invert_(invert), sink_(sink) {}

  void match(size_t start, size_t end) {
    if (start > covered_) add({covered_, start, invert_});
    add({start, end, !invert_});
    covered_ = end;
  }

  // After the last match.
  void finish() {
    if (covered_ < piece_.text.size()) add({covered_, piece_.text.size(), invert_});
    if (has_waiting_) emit(waiting_);
  }

 private:
  struct Range {
    size_t start, end;
    bool is_match;
  };

  void add(Range next) {
    if (behavior_ == Behavior::kIsolated) return emit(next);
    if (behavior_ == Behavior::kRemoved) {
      if (!next.is_match) emit(next);
      return;
    }
    if (has_waiting_ && joins(next)) {
      waiting_.end = next.end;
      // The pair is complete: no further match and no further text between matches joins it.
      if (behavior_ != Behavior::kContiguous) waiting_.is_match = next.is_match;
      return;
    }
    if (has_waiting_) emit(waiting_);
    waiting_ = next, has_waiting_ = true;
  }

  bool joins(Range next) const {
    if (behavior_ == Behavior::kContiguous) return waiting_.is_match == next.is_match;
    bool match_comes_second = behavior_ == Behavior::kMergedWithPrevious;
    return waiting_.is_match != next.is_match && next.is_match == match_comes_second;
  }

  void emit(Range range) const {
    if (range.start == range.end) return;
    sink_({piece_.text.substr(range.start, range.end - range.start), piece_.starts_input && range.start == 0});
  }

  Piece piece_;
  Behavior behavior_;
  bool invert_;
  const PieceSink& sink_;
  size_t covered_ = 0;
  Range waiting_{};  // the next range may still join it
  bool has_waiting_ = false;
};

class Identity : public PreTokenizer {
 public:
  void split(Piece piece, Budget&, const PieceSink& sink) const override {
    if (!piece.text.empty()) sink(piece);
  }
};

class Sequence : public PreTokenizer {
 public:
  explicit Sequence(const json& description) {
    for (const json& part : description.at("pretokenizers")) parts_.push_back(make_pre_tokenizer(part));
  }
  void split(Piece piece, Budget& budget, const PieceSink& sink) const override { split_from(0, piece, budget, sink); }

 private:
  void split_from(size_t first, Piece piece, Budget& budget, const PieceSink& sink) const {
    if (first == parts_.size()) return Identity().split(piece, budget, sink);
    parts_[first]->split(piece, budget, [&](Piece word) { split_from(first + 1, word, budget, sink); });
  }
  std::vector<std::unique_ptr<PreTokenizer>> parts_;
};

class Split : public PreTokenizer {
 public:
  explicit Split(const json& description)
      : pattern_(description.at("pattern")),
        behavior_(behavior_from(description.at("behavior").get<std::string>())),
        invert_(description.value("invert", false)) {}

  void split(Piece piece, Budget& budget, const PieceSink& sink) const override {
    Splitter splitter(piece, behavior_, invert_, sink);
    pattern_.for_each_match(piece.text, budget, [&](size_t start, size_t end) { splitter.match(start, end); });
    splitter.finish();
  }

 private:
  TextPattern pattern_;
  Behavior behavior_;
  bool invert_;
};

// Every character of a class is a match: Digits, Punctuation, WhitespaceSplit.
class CharacterSplit : public PreTokenizer {
 public:
  CharacterSplit(bool (*matches)(char32_t), Behavior behavior) : matches_(matches), behavior_(behavior) {}

  void split(Piece piece, Budget&, const PieceSink& sink) const override {
    Splitter splitter(piece, behavior_, false, sink);
    for (size_t end = 0; end < piece.text.size();) {
      size_t start = end;
      if (matches_(next_character(piece.text, end))) splitter.match(start, end);
    }
    splitter.finish();
  }

 private:
  bool (*matches_)(char32_t);
  Behavior behavior_;
};

// Runs of word characters, and runs of other characters; white space is dropped.
class Whitespace : public PreTokenizer {
 public:
  void split(Piece piece, Budget&, const PieceSink& sink) const override {
    auto kind = [](char32_t c) { return is_word(c) ? 1 : is_whitespace(c) ? 0 : 2; };
    size_t word_start = 0;
    int word_kind = 0;
    for (size_t at = 0; at < piece.text.size();) {
      size_t start = at;
      int next_kind = kind(next_character(piece.text, at));
      if (next_kind == word_kind) continue;
      emit(piece, word_start, start, word_kind, sink);
      word_start = start, word_kind = next_kind;
    }
    emit(piece, word_start, piece.text.size(), word_kind, sink);
  }

 private:
  static void emit(Piece piece, size_t start, size_t end, int kind, const PieceSink& sink) {
    if (kind != 0 && end > start) sink({piece.text.substr(start, end - start), piece.starts_input && start == 0});
  }
};

class ByteLevel : public PreTokenizer {
 public:
  explicit ByteLevel(const json& description) : add_prefix_space_(description.at("add_prefix_space").get<bool>()) {
    if (description.value("use_regex", true)) regex_.emplace(kGpt2Pattern);
  }

  void split(Piece piece, Budget& budget, const PieceSink& sink) const override {
    std::string prefixed;
    if (add_prefix_space_ && !piece.text.starts_with(' ')) {
      budget.grow(1, "the pre-tokenizer ByteLevel");
      prefixed = cat(" ", piece.text);
      piece.text = prefixed;
    }
    std::string characters;
    PieceSink emit = [&](Piece word) {
      characters.clear();
      append_byte_characters(characters, word.text);
      budget.grow(word.text.size(), characters.size(), "the pre-tokenizer ByteLevel");
      sink({characters, word.starts_input});
    };
    if (!regex_) return Identity().split(piece, budget, emit);
    Splitter splitter(piece, Behavior::kIsolated, false, emit);
    regex_->for_each_match(piece.text, budget, [&](size_t start, size_t end) { splitter.match(start, end); });
    splitter.finish();
  }

 private:
  static constexpr std::string_view kGpt2Pattern =
      R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
  bool add_prefix_space_;
  std::optional<Regex> regex_;
};

class Metaspace : public PreTokenizer {
 public:
  explicit Metaspace(const json& description)
      : replacement_(character_of(description.at("replacement"), "the replacement of the pre-tokenizer Metaspace")),
        split_(description.value("split", true)) {
    std::string scheme = description.value("prepend_scheme", "always");
    if (scheme != "always" && scheme != "first" && scheme != "never")
      throw UnsupportedError(
          cat("the prepend_scheme \"", excerpt(scheme), "\" of pre-tokenizer Metaspace is not supported"));
    bool never = scheme == "never" || !description.value("add_prefix_space", true);
    always_ = scheme == "always" && !never;
    first_ = scheme == "first" && !never;
  }

  void split(Piece piece, Budget& budget, const PieceSink& sink) const override {
    std::string text;
    text.reserve(piece.text.size() + replacement_.size());
    for (char c : piece.text) c == ' ' ? text += replacement_ : text += c;
    if ((always_ || (first_ && piece.starts_input)) && !text.starts_with(replacement_)) text.insert(0, replacement_);
    budget.grow(piece.text.size(), text.size(), "the pre-tokenizer Metaspace");
    piece.text = text;
    if (!split_) return Identity().split(piece, budget, sink);
    Splitter splitter(piece, Behavior::kMergedWithNext, false, sink);
    for (size_t at = text.find(replacement_); at != text.npos; at = text.find(replacement_, at + replacement_.size()))
      splitter.match(at, at + replacement_.size());
    splitter.finish();
  }

 private:
  std::string replacement_;
  bool split_, always_ = false, first_ = false;
};

// Bytes that are printable in Latin-1 map to themselves, the 68 others to U+0100 and following.
constexpr std::array<char32_t, 256> byte_alphabet() {
  std::array<char32_t, 256> characters{};
  char32_t next = 256;
  for (char32_t byte = 0; byte < 256; ++byte) {
    bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    characters[byte] = printable ? byte : next++;
  }
  return characters;
}
constexpr std::array<char32_t, 256> kByteAlphabet = byte_alphabet();

constexpr std::array<int16_t, 512> byte_alphabet_inverse() {
  std::array<int16_t, 512> bytes{};
  for (auto& byte : bytes) byte = -1;
  for (int16_t byte = 0; byte < 256; ++byte) bytes[kByteAlphabet[static_cast<size_t>(byte)]] = byte;
  return bytes;
}
constexpr std::array<int16_t, 512> kByteOfCharacter = byte_alphabet_inverse();

}  // namespace

void append_byte_characters(std::string& text, std::string_view bytes) {
  for (char byte : bytes) append_utf8(text, kByteAlphabet[static_cast<uint8_t>(byte)]);
}

int byte_of_character(char32_t character) {
  return character < kByteOfCharacter.size() ? kByteOfCharacter[character] : -1;
}

std::unique_ptr<PreTokenizer> make_pre_tokenizer(const json& description) {
  if (description.is_null()) return std::make_unique<Identity>();
  std::string type = description.at("type").get<std::string>();
  if (type == "Sequence") return std::make_unique<Sequence>(description);
  if (type == "Split") return std::make_unique<Split>(description);
  if (type == "ByteLevel") return std::make_unique<ByteLevel>(description);
  if (type == "Metaspace") return std::make_unique<Metaspace>(description);
  if (type == "Whitespace") return std::make_unique<Whitespace>();
  if (type == "WhitespaceSplit") return std::make_unique<CharacterSplit>(&is_whitespace, Behavior::kRemoved);
  if (type == "Digits") {
    bool individual = description.value("individual_digits", false);
    return std::make_unique<CharacterSplit>(&is_numeric, individual ? Behavior::kIsolated : Behavior::kContiguous);
  }
  if (type == "Punctuation")
    return std::make_unique<CharacterSplit>(&is_punctuation, behavior_from(description.value("behavior", "Isolated")));
  throw UnsupportedError(cat("the pre-tokenizer \"", excerpt(type), "\" is not supported"));
}

}  // namespace gptq
