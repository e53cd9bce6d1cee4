// Tokens that the files beside a tokenizer.json name. Parts of an input: tokenizer_config.json,
// special_tokens_map.json, a text.
#include "fuzz/tokenizers.h"

using namespace gptq;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parts = fuzz::parts_of(data, size, 3);
  fuzz::folder().write("tokenizer.json", R"({"model":{"type":"BPE","vocab":{"a":0,"b":1,"<unk>":2,"ab":3},)"
                                         R"("merges":["a b"],"unk_token":"<unk>"},)"
                                         R"("added_tokens":[{"id":4,"content":"<s>"}]})");
  fuzz::folder().write("tokenizer_config.json", parts[0]);
  fuzz::folder().write("special_tokens_map.json", parts[1]);
  fuzz::use_tokenizer(parts[2]);
  return 0;
}
