// The files of GPT-2's tokenizers. Parts of an input: vocab.json, merges.txt, tokenizer_config.json,
// special_tokens_map.json, added_tokens.json, a text.
#include "fuzz/tokenizers.h"

using namespace gptq;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parts = fuzz::parts_of(data, size, 6);
  const char* const names[] = {"vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json",
                               "added_tokens.json"};
  for (size_t i = 0; i < std::size(names); ++i) fuzz::folder().write(names[i], parts[i]);
  fuzz::use_tokenizer(parts[5]);
  return 0;
}
