// model.safetensors.index.json beside two shards. The input is the file.
#include "fuzz/fuzz.h"
#include "io/checkpoint.h"

using namespace gptq;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const fuzz::Folder& folder = fuzz::folder();
  static const bool written = [&] {
    folder.write("config.json", "{}");
    folder.write("model-00001-of-00002.safetensors",
                 fuzz::safetensors_of(R"({"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}})", "x"));
    folder.write("model-00002-of-00002.safetensors",
                 fuzz::safetensors_of(R"({"b":{"dtype":"BF16","shape":[4],"data_offsets":[0,8]}})", "x"));
    return true;
  }();
  (void)written;
  folder.write("model.safetensors.index.json", {reinterpret_cast<const char*>(data), size});
  fuzz::may_refuse([&] {
    const Checkpoint checkpoint(folder.path());
    for (const StoredTensor* tensor : checkpoint.tensors()) checkpoint.load(*tensor);
    checkpoint.side_files();
  });
  return 0;
}
