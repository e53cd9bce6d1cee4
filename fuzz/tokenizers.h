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
