// Vocabularies of tiktoken. Parts of an input: lines after those of the 256 bytes, tokenizer_config.json, a text.
#include "fuzz/tokenizers.h"

using namespace gptq;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parts = fuzz::parts_of(data, size, 3);
  fuzz::folder().write("tokenizer.model", fuzz::byte_tokens("", " ", "\n") + parts[0]);
  fuzz::folder().write("tokenizer_config.json", parts[1]);
  fuzz::use_tokenizer(parts[2]);
  return 0;
}
