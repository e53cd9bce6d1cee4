#include "data/tokenizer/post_processor.h"

#include <string>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace gptq {
namespace {

using nlohmann::json;

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
    for (const json& id : description.at("special_tokens").at(name).at("ids")) side.push_back(id.get<int32_t>());
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
    return {{description.at("cls").at(1).get<int32_t>()}, {description.at("sep").at(1).get<int32_t>()}};
  if (type == "Sequence") {
    SpecialTokens all;
    for (const json& part : description.at("processors")) {
      SpecialTokens outer = read_post_processor(part);
      all.before.insert(all.before.begin(), outer.before.begin(), outer.before.end());
      all.after.insert(all.after.end(), outer.after.begin(), outer.after.end());
    }
    return all;
  }
  throw UnsupportedError(cat("the post-processor \"", type, "\" is not supported"));
}

}  // namespace gptq
