// tokenizer.json, or what others are converted to, part by part: added tokens -> normalizer -> added tokens ->
// pre-tokenizer -> model -> post-processor.
#include "data/tokenizer.h"

#include <set>
#include <system_error>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/message.h"
#include "data/tokenizer/added_tokens.h"
#include "data/tokenizer/bpe.h"
#include "data/tokenizer/config_tokens.h"
#include "data/tokenizer/decoder.h"
#include "data/tokenizer/normalizers.h"
#include "data/tokenizer/older_files.h"
#include "data/tokenizer/post_processor.h"
#include "data/tokenizer/pre_tokenizer.h"
#include "data/tokenizer/tiktoken.h"
#include "data/tokenizer/unicode.h"
#include "data/tokenizer/unigram.h"
#include "data/tokenizer/values.h"
#include "io/file.h"
#include "io/json.h"

namespace gptq {
namespace {

using nlohmann::json;

constexpr std::string_view kWayOut = "ready input_ids work without a tokenizer";

// A folder's tokenizer file.
std::filesystem::path tokenizer_file(const std::filesystem::path& folder) {
  std::vector<std::string> names = {"tokenizer.json", "tekken.json", "tokenizer.model", "tiktoken.model"};
  std::set<std::string> vocabularies;
  std::error_code ignored;  // where there is no folder, there is no file
  for (std::filesystem::directory_iterator entry(folder, ignored), end; !ignored && entry != end;
       entry.increment(ignored))
    if (entry->path().extension() == ".tiktoken") vocabularies.insert(entry->path().filename().string());
  names.insert(names.end(), vocabularies.begin(), vocabularies.end());
  names.emplace_back("merges.txt");
  for (const std::string& name : names) {
    std::error_code error;
    const bool has_vocabulary = std::filesystem::is_regular_file(folder / "vocab.json", error);
    if (name == "merges.txt" && !has_vocabulary) continue;
    if (std::filesystem::is_regular_file(folder / name, error)) return folder / name;
  }
  throw InputError(cat((folder / "tokenizer.json").string(),
                       " is missing, and so are tekken.json, tokenizer.model, a file of tiktoken, and ",
                       "vocab.json with merges.txt, so text cannot be tokenized (", kWayOut, ")"));
}

// A folder's tokenizer as a tokenizer.json.
json description_of(const std::filesystem::path& folder, const std::filesystem::path& file) {
  const std::string name = file.filename().string();
  if (name == "tokenizer.json") {
    json tokenizer = parse_json<json>(read_text(file, kMaxTokenizerBytes), file);
    if (tokenizer.is_object()) add_config_tokens(folder, tokenizer);
    return tokenizer;
  }
  if (name == "tekken.json") return tokenizer_from_tekken(folder);
  const bool is_vocabulary =
      name != "merges.txt" && (name != "tokenizer.model" || is_tiktoken(read_text(file, kMaxTokenizerBytes)));
  return is_vocabulary ? tokenizer_from_tiktoken(folder, name) : tokenizer_from_older_files(folder);
}

// What `make` makes of a part of tokenizer.json, which is null if absent. `list`: the key that a sequence
// has its steps under, if it has any.
template <typename Make>
auto made(const json& tokenizer, const char* name, const char* list, const Make& make) {
  const json none;
  const auto found = tokenizer.find(name);
  const json& part = found == tokenizer.end() ? none : *found;
  try {
    if (list != nullptr) require_few_steps(part, name, list);
    return make(part);
  } catch (const json::exception& error) {
    throw InputError(cat("its \"", name, "\": ", reason_of(error)));
  }
}

}  // namespace

std::unique_ptr<TokenizerModel> make_tokenizer_model(const json& description) {
  if (!description.is_object())
    throw InputError(cat("its \"model\" is ", excerpt_of(description), " where an object was expected"));
  if (description.value("type", "") == "Unigram") return std::make_unique<Unigram>(description);
  return std::make_unique<BytePairEncoding>(description);
}

struct Tokenizer::Impl {
  Impl(const std::filesystem::path& from, std::string from_file, const json& tokenizer)
      : folder(from),
        file(std::move(from_file)),
        normalizer(made(tokenizer, "normalizer", "normalizers", &make_normalizer)),
        pre_tokenizer(made(tokenizer, "pre_tokenizer", "pretokenizers", &make_pre_tokenizer)),
        model(made(tokenizer, "model", nullptr, &make_tokenizer_model)),
        added(made(tokenizer, "added_tokens", nullptr,
                   [this](const json& part) { return AddedTokens(part, *model, *normalizer); })),
        special(made(tokenizer, "post_processor", "processors", &read_post_processor)),
        decoder(made(tokenizer, "decoder", "decoders", &make_decoder)) {}

  std::vector<int32_t> encode(std::string_view text, bool add_special_tokens) const;
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens) const;
  // Names the file in an error that comes of a text.
  InputError unusable(const InputError& error) const {
    return InputError(cat("the tokenizer ", file, " cannot be used for this text: ", error.what()));
  }

  std::filesystem::path folder;
  std::string file;
  std::unique_ptr<Normalizer> normalizer;
  std::unique_ptr<PreTokenizer> pre_tokenizer;
  std::unique_ptr<TokenizerModel> model;
  AddedTokens added;
  SpecialTokens special;
  std::unique_ptr<Decoder> decoder;
};

Tokenizer::Tokenizer(const std::filesystem::path& folder) {
  const std::string file = tokenizer_file(folder).string();
  try {
    const json tokenizer = description_of(folder, file);
    if (!tokenizer.is_object()) throw InputError(cat("it is ", excerpt_of(tokenizer), " where an object was expected"));
    impl_ = std::make_unique<Impl>(folder, file, tokenizer);
  } catch (const UnsupportedError& error) {
    throw UnsupportedError(cat("the tokenizer ", file, " cannot be used: ", error.what(), " (", kWayOut, ")"));
  } catch (const InputError& error) {
    if (!error.subject().file.empty()) throw InputError(cat(error.what(), " (", kWayOut, ")"), error.subject());
    throw InputError(cat("the tokenizer ", file, " is broken: ", error.what(), " (", kWayOut, ")"));
  } catch (const json::exception& error) {
    throw InputError(cat("the tokenizer ", file, " is broken: ", reason_of(error), " (", kWayOut, ")"));
  }
}

Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  if (int64_t offset = invalid_utf8_offset(text); offset >= 0)
    throw InputError(cat("the text is not valid UTF-8 at byte ", offset, "; convert it to UTF-8 first"));
  try {
    return impl_->encode(text, add_special_tokens);
  } catch (const InputError& error) {
    throw impl_->unusable(error);
  }
}

std::vector<int32_t> Tokenizer::Impl::encode(std::string_view text, bool add_special_tokens) const {
  std::vector<int32_t> ids;
  WordCache cache;
  Budget budget(text.size());
  if (add_special_tokens) ids = special.before;

  auto encode_word = [&](Piece word) { model->encode(word.text, cache, budget, ids); };
  auto encode_part = [&](std::string_view part, size_t start, int32_t id) {
    if (id >= 0) return ids.push_back(id);
    std::string normal = normalizer->apply(std::string(part), budget);
    added.split(normal, true, budget, [&](std::string_view words, size_t offset, int32_t normalized_id) {
      if (normalized_id >= 0) return ids.push_back(normalized_id);
      pre_tokenizer->split({words, start == 0 && offset == 0}, budget, encode_word);
    });
  };
  added.split(text, false, budget, encode_part);

  if (add_special_tokens) ids.insert(ids.end(), special.after.begin(), special.after.end());
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  try {
    return impl_->decode(ids, skip_special_tokens);
  } catch (const InputError& error) {
    throw impl_->unusable(error);
  }
}

std::string Tokenizer::Impl::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  size_t bytes = 0;
  for (int32_t id : ids) {
    const AddedToken* added_token = added.find(id);
    const std::string* token = added_token ? &added_token->text : model->token(id);
    if (!token) continue;
    const AddedToken* named = added.find(*token);
    if (skip_special_tokens && named && named->special) continue;
    tokens.push_back(*token);
    bytes += token->size();
  }
  Budget budget(bytes);
  std::string text;
  for (const std::string& token : decoder->apply(std::move(tokens), budget)) text += token;
  return text;
}

const std::filesystem::path& Tokenizer::folder() const { return impl_->folder; }

int32_t Tokenizer::token_id(std::string_view token) const {
  const AddedToken* added = impl_->added.find(token);
  return added ? added->id : impl_->model->token_id(token);
}

std::function<const Tokenizer&()> tokenizer_of(const std::filesystem::path& folder) {
  // Shared because std::function must be copyable.
  return [folder, tokenizer = std::make_shared<std::unique_ptr<Tokenizer>>()]() -> const Tokenizer& {
    if (!*tokenizer) *tokenizer = std::make_unique<Tokenizer>(folder);
    return **tokenizer;
  };
}

}  // namespace gptq
