// What the targets of tokenizers do with a folder.
#pragma once

#include <limits>
#include <string_view>
#include <vector>

#include "data/tokenizer.h"
#include "fuzz/fuzz.h"

namespace gptq::fuzz {

// White space, letters with marks, digits, a ligature, an emoji, and what is often a special token.
constexpr std::string_view kText =
    "Hello  w\xC3\xB6rld <s>it's 12 \xE2\x96\x81 \n\n\xF0\x9F\x98\x80 don't  e\xCC\x81 \xEF\xAC\x81 </s> AB";

// A token for each byte, in base64 and with its rank, as a vocabulary of tiktoken needs them: before BASE64 between
// RANK after.
inline std::string byte_tokens(std::string_view before, std::string_view between, std::string_view after) {
  constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (size_t byte = 0; byte < 256; ++byte) {
    text.append(before).append({kAlphabet[byte >> 2], kAlphabet[(byte & 3) << 4], '=', '='});
    text.append(between).append(std::to_string(byte)).append(after);
  }
  return text;
}

// Opens the folder's tokenizer, encodes the text, or kText for none, and decodes the ids and some that no token has.
inline void use_tokenizer(std::string_view text) {
  may_refuse([&] {
    const Tokenizer tokenizer(folder().path());
    std::vector<int32_t> ids;
    may_refuse([&] { ids = tokenizer.encode(text.empty() ? kText : text); });
    for (const int32_t id : {-1, 0, 1, 2, 1 << 30, std::numeric_limits<int32_t>::max()}) ids.push_back(id);
    may_refuse([&] { tokenizer.decode(ids); });
    may_refuse([&] { tokenizer.decode(ids, false); });
    tokenizer.token_id("<s>");
  });
}

}  // namespace gptq::fuzz
