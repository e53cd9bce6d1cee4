// --device-map and --max-memory. Parts of an input: both texts.
#include "fuzz/fuzz.h"
#include "plan/device_map_text.h"

using namespace gptq;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parts = fuzz::parts_of(data, size, 2);
  ModuleTree tree;
  tree.units = {{"model.embed_tokens", 100},
                {"model.layers.0", 100},
                {"model.layers.1", 100},
                {"model.norm", 4},
                {"lm_head", 100}};
  for (const ModelUnit& unit : tree.units) tree.modules.push_back(unit.module);
  tree.modules.push_back("model.layers.0.self_attn.q_proj");
  Machine machine{
      .accelerators = {}, .cpu = {"cpu", "a CPU", int64_t{1} << 34, int64_t{1} << 33}, .why_no_gpu = "none"};
  MaxMemory max_memory;
  fuzz::may_refuse([&] { max_memory = parse_max_memory(parts[1], machine); });
  fuzz::may_refuse([&] {
    const DeviceMap map = parse_device_map(parts[0], machine, tree, max_memory);
    for (const ModelUnit& unit : tree.units)
      if (map.find(unit.module) == nullptr) abort();  // a map covers every unit
  });
  return 0;
}
