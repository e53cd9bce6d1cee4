// tokenizer.json, part by part: added tokens -> normalizer -> added tokens -> pre-tokenizer -> model -> post-processor.
#include "data/tokenizer.h"

#include <system_error>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/tokenizer/added_tokens.h"
#include "data/tokenizer/bpe.h"
#include "data/tokenizer/decoder.h"
#include "data/tokenizer/normalizers.h"
#include "data/tokenizer/older_files.h"
#include "data/tokenizer/post_processor.h"
#include "data/tokenizer/pre_tokenizer.h"
#include "data/tokenizer/unicode.h"
#include "data/tokenizer/unigram.h"
#include "io/file.h"
#include "io/json.h"

namespace gptq {
namespace {

using nlohmann::json;

constexpr std::string_view kWayOut = "ready input_ids work without a tokenizer";

// A folder's tokenizer file.
std::filesystem::path tokenizer_file(const std::filesystem::path& folder) {
  for (const char* name : {"tokenizer.json", "tokenizer.model", "merges.txt"}) {
    std::error_code error;
    const bool has_vocabulary = std::filesystem::is_regular_file(folder / "vocab.json", error);
    if (std::string_view(name) == "merges.txt" && !has_vocabulary) continue;
    if (std::filesystem::is_regular_file(folder / name, error)) return folder / name;
  }
  throw InputError(cat((folder / "tokenizer.json").string(),
                       " is missing, and so are tokenizer.model, and vocab.json with ",
                       "merges.txt, so text cannot be tokenized (", kWayOut, ")"));
}

// A part of tokenizer.json; null if absent.
json part(const json& tokenizer, const char* name) { return tokenizer.contains(name) ? tokenizer.at(name) : json(); }

}  // namespace

std::unique_ptr<TokenizerModel> make_tokenizer_model(const json& description) {
  if (description.value("type", "") == "Unigram") return std::make_unique<Unigram>(description);
  return std::make_unique<BytePairEncoding>(description);
}

struct Tokenizer::Impl {
  Impl(const std::filesystem::path& from, const json& tokenizer)
      : folder(from),
        normalizer(make_normalizer(part(tokenizer, "normalizer"))),
        pre_tokenizer(make_pre_tokenizer(part(tokenizer, "pre_tokenizer"))),
        model(make_tokenizer_model(tokenizer.at("model"))),
        added(part(tokenizer, "added_tokens"), *model, *normalizer),
        special(read_post_processor(part(tokenizer, "post_processor"))),
        decoder(make_decoder(part(tokenizer, "decoder"))) {}

  std::filesystem::path folder;
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
    impl_ = std::make_unique<Impl>(folder, file.ends_with("tokenizer.json")
                                               ? parse_json<json>(read_text(file, kMaxTokenizerBytes), file)
                                               : tokenizer_from_older_files(folder));
  } catch (const UnsupportedError& error) {
    throw UnsupportedError(cat("the tokenizer ", file, " cannot be used: ", error.what(), " (", kWayOut, ")"));
  } catch (const InputError& error) {
    if (!error.subject().file.empty()) throw InputError(cat(error.what(), " (", kWayOut, ")"), error.subject());
    throw InputError(cat("the tokenizer ", file, " is broken: ", error.what(), " (", kWayOut, ")"));
  } catch (const json::exception& error) {
    throw InputError(cat("the tokenizer ", file, " is broken: ", error.what(), " (", kWayOut, ")"));
  }
}

Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  if (int64_t offset = invalid_utf8_offset(text); offset >= 0)
    throw InputError(cat("the text is not valid UTF-8 at byte ", offset, "; convert it to UTF-8 first"));
  const Impl& impl = *impl_;
  std::vector<int32_t> ids;
  WordCache cache;
  if (add_special_tokens) ids = impl.special.before;

  auto encode_word = [&](Piece word) { impl.model->encode(word.text, cache, ids); };
  auto encode_part = [&](std::string_view part, size_t start, int32_t id) {
    if (id >= 0) return ids.push_back(id);
    std::string normal = impl.normalizer->apply(std::string(part));
    impl.added.split(normal, true, [&](std::string_view words, size_t offset, int32_t normalized_id) {
      if (normalized_id >= 0) return ids.push_back(normalized_id);
      impl.pre_tokenizer->split({words, start == 0 && offset == 0}, encode_word);
    });
  };
  impl.added.split(text, false, encode_part);

  if (add_special_tokens) ids.insert(ids.end(), impl.special.after.begin(), impl.special.after.end());
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (int32_t id : ids) {
    const AddedToken* added = impl_->added.find(id);
    const std::string* token = added ? &added->text : impl_->model->token(id);
    if (!token) continue;
    const AddedToken* named = impl_->added.find(*token);
    if (!(skip_special_tokens && named && named->special)) tokens.push_back(*token);
  }
  std::string text;
  for (const std::string& token : impl_->decoder->apply(std::move(tokens))) text += token;
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
