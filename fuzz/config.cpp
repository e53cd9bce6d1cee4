// config.json, and what follows from it: the linears and float parts of each block. The input is the file.
#include <nlohmann/json.hpp>

#include "fuzz/fuzz.h"
#include "io/json.h"
#include "model/specs.h"

using namespace gptq;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const fuzz::Folder& folder = fuzz::folder();
  folder.write("config.json", {reinterpret_cast<const char*>(data), size});
  fuzz::may_refuse([&] {
    const ModelConfig config = parse_model_config(read_json(folder / "config.json"), folder.path());
    // Counts are compared with a checkpoint's tensors before lists are made; here there is none.
    if (config.blocks <= 16 && config.experts.count <= 64) all_steps(config);
    head_spec(config);
  });
  return 0;
}
