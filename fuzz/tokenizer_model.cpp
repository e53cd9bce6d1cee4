// tokenizer.model of SentencePiece: reading, encoding and decoding. The input is the file.
#include "fuzz/tokenizers.h"

using namespace gptq;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::folder().write("tokenizer_config.json", R"({"add_bos_token":true,"bos_token":"<s>","unk_token":"<unk>"})");
  fuzz::folder().write("tokenizer.model", {reinterpret_cast<const char*>(data), size});
  fuzz::use_tokenizer({});
  return 0;
}
