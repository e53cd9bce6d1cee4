// Calibration text. Parts of an input: the lines of a .jsonl, tokenizer_config.json, which has the chat template.
#include "data/calibration.h"
#include "fuzz/fuzz.h"

using namespace gptq;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parts = fuzz::parts_of(data, size, 2);
  const fuzz::Folder& folder = fuzz::folder();
  folder.write("tokenizer.json", R"({"model":{"type":"BPE","vocab":{"a":0,"b":1,"<unk>":2,"ab":3},"merges":["a b"],)"
                                 R"("unk_token":"<unk>"},"added_tokens":[{"id":4,"content":"<s>"}]})");
  folder.write("text.jsonl", parts[0]);
  folder.write("text.txt", parts[0]);
  folder.write("tokenizer_config.json", parts[1]);
  const auto tokenizer = tokenizer_of(folder.path());
  const TextSource lines{.file = folder / "text.jsonl", .tokenizer = tokenizer},
      text{.file = folder / "text.txt", .tokenizer = tokenizer};
  for (const TextSource* source : {&lines, &text}) {
    fuzz::may_refuse([&] { read_documents(*source); });
    fuzz::may_refuse([&] { read_calibration(*source, {.samples = 4, .sequence_length = 4, .seed = size % 3}); });
    fuzz::may_refuse([&] { read_windows(*source, 4, 0); });
  }
  return 0;
}
