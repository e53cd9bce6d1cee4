// tokenizer.json: reading, encoding and decoding. Parts of an input: the file, a text.
#include "fuzz/tokenizers.h"

using namespace gptq;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parts = fuzz::parts_of(data, size, 2);
  fuzz::folder().write("tokenizer.json", parts[0]);
  fuzz::use_tokenizer(parts[1]);
  return 0;
}
