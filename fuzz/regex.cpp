// Regular expressions: translation and matching. Parts of an input: a pattern, a text.
#include "data/tokenizer/regex.h"

#include "data/tokenizer/unicode.h"
#include "fuzz/tokenizers.h"

using namespace gptq;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parts = fuzz::parts_of(data, size, 2);
  const std::string_view text = parts[1].empty() ? fuzz::kText : parts[1];
  if (invalid_utf8_offset(parts[0]) >= 0 || invalid_utf8_offset(text) >= 0) return 0;
  fuzz::may_refuse([&] {
    const Regex regex(parts[0]);
    size_t done = 0;
    regex.for_each_match(text, [&](size_t start, size_t end) {
      if (start < done || end < start || end > text.size()) abort();
      if (invalid_utf8_offset(text.substr(start, end - start)) >= 0) abort();  // half a character
      done = end;
    });
  });
  return 0;
}
