// Safetensors: the header of a file, and the data of its tensors. The input is the file.
#include "io/safetensors.h"

#include "fuzz/fuzz.h"

using namespace gptq;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const fuzz::Folder& folder = fuzz::folder();
  folder.write("model.safetensors", {reinterpret_cast<const char*>(data), size});
  fuzz::may_refuse([&] {
    const SafetensorsFile file(folder / "model.safetensors");
    for (const StoredTensor& tensor : file.tensors()) {
      if (tensor.offset + tensor.bytes > size) abort();
      fuzz::may_refuse([&] { file.load(tensor); });
    }
  });
  return 0;
}
