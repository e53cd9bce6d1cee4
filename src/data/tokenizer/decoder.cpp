// The decoders, one class per type.
#include "data/tokenizer/decoder.h"

#include <cstdlib>
#include <limits>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/message.h"
#include "data/tokenizer/pre_tokenizer.h"
#include "data/tokenizer/regex.h"
#include "data/tokenizer/unicode.h"
#include "data/tokenizer/values.h"

namespace gptq {
namespace {

using nlohmann::json;
using Tokens = std::vector<std::string>;

class Sequence : public Decoder {
 public:
  explicit Sequence(const json& description) {
    for (const json& part : description.at("decoders")) parts_.push_back(make_decoder(part));
  }
  Tokens apply(Tokens tokens, Budget& budget) const override {
    for (const auto& part : parts_) tokens = part->apply(std::move(tokens), budget);
    return tokens;
  }

 private:
  std::vector<std::unique_ptr<Decoder>> parts_;
};

class SpaceJoined : public Decoder {
 public:
  Tokens apply(Tokens tokens, Budget&) const override {
    for (size_t i = 1; i < tokens.size(); ++i) tokens[i] = cat(" ", tokens[i]);
    return tokens;
  }
};

// Characters of the byte alphabet become bytes; a token with any other character is unchanged.
class ByteLevel : public Decoder {
 public:
  Tokens apply(Tokens tokens, Budget&) const override {
    std::string bytes;
    for (const std::string& token : tokens) {
      size_t start = bytes.size();
      for (size_t at = 0; at < token.size();) {
        int byte = byte_of_character(next_character(token, at));
        if (byte < 0) {
          bytes.replace(start, bytes.npos, token);
          break;
        }
        bytes += static_cast<char>(byte);
      }
    }
    return {lossy_utf8(bytes)};
  }
};

// <0xXX> becomes a byte; each byte of a sequence that is not UTF-8 becomes U+FFFD.
class ByteFallback : public Decoder {
 public:
  Tokens apply(Tokens tokens, Budget&) const override {
    Tokens texts;
    std::string bytes;
    auto flush = [&] {
      if (bytes.empty()) return;
      if (invalid_utf8_offset(bytes) < 0) {
        texts.push_back(bytes);
      } else {
        texts.insert(texts.end(), bytes.size(), "\xef\xbf\xbd");
      }
      bytes.clear();
    };
    for (std::string& token : tokens) {
      if (int byte = byte_of(token); byte >= 0) {
        bytes += static_cast<char>(byte);
      } else {
        flush();
        texts.push_back(std::move(token));
      }
    }
    flush();
    return texts;
  }

 private:
  static int byte_of(const std::string& token) {
    if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
    if (token.find_first_not_of("0123456789abcdefABCDEF", 3) != 5) return -1;
    return static_cast<int>(std::strtol(token.substr(3, 2).c_str(), nullptr, 16));
  }
};

class Fuse : public Decoder {
 public:
  Tokens apply(Tokens tokens, Budget&) const override {
    std::string text;
    for (const std::string& token : tokens) text += token;
    return {text};
  }
};

// Removes the content from the ends of every token, at most `start` and `stop` times.
class Strip : public Decoder {
 public:
  explicit Strip(const json& description)
      : content_(character_of(description.at("content"), "the content of the decoder Strip")),
        start_(limit_of(description.at("start"))),
        stop_(limit_of(description.at("stop"))) {}

  Tokens apply(Tokens tokens, Budget&) const override {
    for (std::string& token : tokens) {
      std::string_view rest = token;
      for (int64_t i = 0; i < start_ && rest.starts_with(content_); ++i) rest.remove_prefix(content_.size());
      for (int64_t i = 0; i < stop_ && rest.ends_with(content_); ++i) rest.remove_suffix(content_.size());
      if (rest.size() < token.size()) token = std::string(rest);
    }
    return tokens;
  }

 private:
  static int64_t limit_of(const json& value) {
    const int64_t limit = count_of(value, std::numeric_limits<int64_t>::max());
    if (limit < 0)
      throw InputError(cat("the decoder Strip has ", excerpt_of(value), " where a count of characters was expected"));
    return limit;
  }

  std::string content_;
  int64_t start_, stop_;
};

class Replace : public Decoder {
 public:
  explicit Replace(const json& description)
      : pattern_(description.at("pattern")), content_(description.at("content").get<std::string>()) {}

  Tokens apply(Tokens tokens, Budget& budget) const override {
    for (std::string& token : tokens) {
      std::string replaced;
      size_t copied = 0;
      pattern_.for_each_match(token, budget, [&](size_t start, size_t end) {
        budget.grow(end - start, content_.size(), "the decoder Replace");
        replaced.append(token, copied, start - copied).append(content_);
        copied = end;
      });
      token = replaced.append(token, copied);
    }
    return tokens;
  }

 private:
  TextPattern pattern_;
  std::string content_;
};

// The replacement character becomes a space, except at the start of the text, where the pre-tokenizer may have added
// it.
class Metaspace : public Decoder {
 public:
  explicit Metaspace(const json& description)
      : replacement_(character_of(description.at("replacement"), "the replacement of the decoder Metaspace")),
        drops_first_(description.value("prepend_scheme", "always") != "never" &&
                     description.value("add_prefix_space", true)) {}

  Tokens apply(Tokens tokens, Budget&) const override {
    for (size_t i = 0; i < tokens.size(); ++i) {
      std::string text;
      for (size_t at = 0; at < tokens[i].size();) {
        if (tokens[i].compare(at, replacement_.size(), replacement_) == 0) {
          if (i > 0 || !drops_first_) text += ' ';
          at += replacement_.size();
        } else {
          text += tokens[i][at++];
        }
      }
      tokens[i] = text;
    }
    return tokens;
  }

 private:
  std::string replacement_;
  bool drops_first_;
};

}  // namespace

std::unique_ptr<Decoder> make_decoder(const json& description) {
  if (description.is_null()) return std::make_unique<SpaceJoined>();
  std::string type = description.at("type").get<std::string>();
  if (type == "Sequence") return std::make_unique<Sequence>(description);
  if (type == "ByteLevel") return std::make_unique<ByteLevel>();
  if (type == "ByteFallback") return std::make_unique<ByteFallback>();
  if (type == "Fuse") return std::make_unique<Fuse>();
  if (type == "Strip") return std::make_unique<Strip>(description);
  if (type == "Replace") return std::make_unique<Replace>(description);
  if (type == "Metaspace") return std::make_unique<Metaspace>(description);
  throw UnsupportedError(cat("the decoder \"", excerpt(type), "\" is not supported"));
}

}  // namespace gptq
