#include "data/tokenizer/post_processor.h"

#include <string>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/message.h"
#include "data/tokenizer/values.h"

namespace gptq {
namespace {

using nlohmann::json;

// Real post-processors add one or two tokens to every text.
constexpr size_t kMostTokens = 1000;

void add(const json& id, std::vector<int32_t>& ids) {
  if (ids.size() == kMostTokens)
    throw InputError(cat("the post-processor adds more than ", kMostTokens, " special tokens to a text"));
  ids.push_back(token_id_of(id, "a special token of the post-processor"));
}

// {"single": [{"SpecialToken": {"id": name}}, {"Sequence": ...}, ...], "special_tokens": {name: {"ids": [...]}}}
SpecialTokens read_template(const json& description) {
  SpecialTokens special;
  int sequences = 0;
  for (const json& piece : description.at("single")) {
    if (piece.contains("Sequence")) {
      ++sequences;
      continue;
    }
    std::string name = piece.at("SpecialToken").at("id").get<std::string>();
    auto& side = sequences == 0 ? special.before : special.after;
    for (const json& id : description.at("special_tokens").at(name).at("ids")) add(id, side);
  }
  if (sequences != 1)
    throw UnsupportedError(
        cat("a post-processor \"TemplateProcessing\" that has the text ", sequences, " times is not supported"));
  return special;
}

}  // namespace

SpecialTokens read_post_processor(const json& description) {
  if (description.is_null()) return {};
  std::string type = description.at("type").get<std::string>();
  if (type == "ByteLevel") return {};  // changes offsets only
  if (type == "TemplateProcessing") return read_template(description);
  if (type == "BertProcessing" || type == "RobertaProcessing")
    return {{token_id_of(description.at("cls").at(1), "\"cls\" of the post-processor")},
            {token_id_of(description.at("sep").at(1), "\"sep\" of the post-processor")}};
  if (type == "Sequence") {
    SpecialTokens all;
    for (const json& part : description.at("processors")) {
      SpecialTokens outer = read_post_processor(part);
      all.before.insert(all.before.begin(), outer.before.begin(), outer.before.end());
      all.after.insert(all.after.end(), outer.after.begin(), outer.after.end());
    }
    return all;
  }
  throw UnsupportedError(cat("the post-processor \"", excerpt(type), "\" is not supported"));
}

}  // namespace gptq
