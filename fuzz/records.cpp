// Files of records in every container. Parts of an input: the file, tokenizer_config.json, which has the chat template,
// the key that is read.
#include "data/calibration.h"
#include "fuzz/fuzz.h"

using namespace gptq;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parts = fuzz::parts_of(data, size, 3);
  const fuzz::Folder& folder = fuzz::folder();
  folder.write("tokenizer.json", R"({"model":{"type":"BPE","vocab":{"a":0,"b":1,"<unk>":2,"ab":3},"merges":["a b"],)"
                                 R"("unk_token":"<unk>"},"added_tokens":[{"id":4,"content":"<s>"}]})");
  folder.write("tokenizer_config.json", parts[1]);
  for (const char* name : {"a.json", "a.csv", "a.tsv"}) {
    folder.write(name, parts[0]);
    const TextSource source{.file = folder / name, .tokenizer = tokenizer_of(folder.path()), .key = parts[2]};
    fuzz::may_refuse([&] { read_documents(source); });
    fuzz::may_refuse([&] { read_calibration(source, {.samples = 4, .sequence_length = 4, .seed = size % 3}); });
  }
  return 0;
}
