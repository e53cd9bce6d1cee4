// The normalizers, one class per type.
#include "data/tokenizer/normalizers.h"

#include <vector>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/message.h"
#include "data/tokenizer/character_map.h"
#include "data/tokenizer/regex.h"
#include "data/tokenizer/unicode.h"

namespace gptq {
namespace {

using nlohmann::json;

class Identity : public Normalizer {
 public:
  std::string apply(std::string text, Budget&) const override { return text; }
};

class Sequence : public Normalizer {
 public:
  explicit Sequence(const json& description) {
    for (const json& part : description.at("normalizers")) parts_.push_back(make_normalizer(part));
  }
  std::string apply(std::string text, Budget& budget) const override {
    for (const auto& part : parts_) text = part->apply(std::move(text), budget);
    return text;
  }

 private:
  std::vector<std::unique_ptr<Normalizer>> parts_;
};

class UnicodeForm : public Normalizer {
 public:
  explicit UnicodeForm(NormalForm form) : form_(form) {}
  std::string apply(std::string text, Budget& budget) const override {
    std::string normal = normalize(text, form_);
    budget.grow(text.size(), normal.size(), "a normalizer of Unicode's normal forms");
    return normal;
  }

 private:
  NormalForm form_;
};

class Prepend : public Normalizer {
 public:
  explicit Prepend(const json& description) : prefix_(description.at("prepend").get<std::string>()) {}
  std::string apply(std::string text, Budget& budget) const override {
    if (text.empty()) return text;
    budget.grow(prefix_.size(), "the normalizer Prepend");
    return prefix_ + text;
  }

 private:
  std::string prefix_;
};

class Replace : public Normalizer {
 public:
  explicit Replace(const json& description)
      : pattern_(description.at("pattern")), content_(description.at("content").get<std::string>()) {}

  std::string apply(std::string text, Budget& budget) const override {
    std::string replaced;
    replaced.reserve(text.size());
    size_t copied = 0;
    pattern_.for_each_match(text, budget, [&](size_t start, size_t end) {
      budget.grow(end - start, content_.size(), "the normalizer Replace");
      replaced.append(text, copied, start - copied).append(content_);
      copied = end;
    });
    return replaced.append(text, copied);
  }

 private:
  TextPattern pattern_;
  std::string content_;
};

class Lowercase : public Normalizer {
 public:
  std::string apply(std::string text, Budget& budget) const override {
    std::string lower;
    lower.reserve(text.size());
    for (size_t at = 0; at < text.size();) append_lower_case(lower, next_character(text, at));
    budget.grow(text.size(), lower.size(), "the normalizer Lowercase");
    return lower;
  }
};

class Strip : public Normalizer {
 public:
  explicit Strip(const json& description)
      : left_(description.at("strip_left").get<bool>()), right_(description.at("strip_right").get<bool>()) {}

  std::string apply(std::string text, Budget&) const override {
    size_t start = 0, end = text.size();
    for (size_t at = 0; left_ && start < end && is_whitespace(next_character(text, at));) start = at;
    for (size_t at = end; right_ && end > start && is_whitespace(previous_character(text, at));) end = at;
    return text.substr(start, end - start);
  }

 private:
  bool left_, right_;
};

}  // namespace

std::unique_ptr<Normalizer> make_normalizer(const json& description) {
  if (description.is_null()) return std::make_unique<Identity>();
  std::string type = description.at("type").get<std::string>();
  if (type == "Sequence") return std::make_unique<Sequence>(description);
  if (type == "NFC") return std::make_unique<UnicodeForm>(NormalForm::kNfc);
  if (type == "NFD") return std::make_unique<UnicodeForm>(NormalForm::kNfd);
  if (type == "NFKC") return std::make_unique<UnicodeForm>(NormalForm::kNfkc);
  if (type == "NFKD") return std::make_unique<UnicodeForm>(NormalForm::kNfkd);
  if (type == "Prepend") return std::make_unique<Prepend>(description);
  if (type == "Replace") return std::make_unique<Replace>(description);
  if (type == "Lowercase") return std::make_unique<Lowercase>();
  if (type == "Precompiled") return make_character_map(description);
  if (type == "Strip") return std::make_unique<Strip>(description);
  throw UnsupportedError(cat("the normalizer \"", excerpt(type), "\" is not supported"));
}

}  // namespace gptq
