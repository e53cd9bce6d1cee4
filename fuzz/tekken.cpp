// tekken.json. Parts of an input: its "config", elements of its "vocab" after those of the 256 bytes (with a comma in
// front), its "special_tokens", a text.
#include "fuzz/tokenizers.h"

using namespace gptq;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parts = fuzz::parts_of(data, size, 4);
  std::string bytes = fuzz::byte_tokens("{\"token_bytes\":\"", "\",\"rank\":", "},");
  bytes.pop_back();
  fuzz::folder().write("tekken.json", "{\"config\":" + parts[0] + ",\"vocab\":[" + bytes + parts[1] +
                                          "],\"special_tokens\":" + parts[2] + "}");
  fuzz::use_tokenizer(parts[3]);
  return 0;
}
