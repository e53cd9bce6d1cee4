// Valid and invalid --device-map and --max-memory, and automatic maps, compared with accelerate's
// (tests/golden/device_maps/make_device_maps.py).
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/checkpoint.h"
#include "plan/device_map_text.h"
#include "temporary_folder.h"

namespace gptq {
namespace {

constexpr int64_t kGB = 1'000'000'000;

DeviceInfo device(const std::string& name, const std::string& description, int64_t bytes) {
  return {.name = name, .description = description, .total_bytes = bytes, .free_bytes = bytes};
}

Machine machine_of(const std::vector<std::string>& accelerators) {
  Machine machine{.cpu = device("cpu", "AMD EPYC", 25 * kGB)};
  for (const std::string& name : accelerators) machine.accelerators.push_back(device(name, "NVIDIA H100", 80 * kGB));
  return machine;
}

ModuleTree tree_of(int64_t blocks, int64_t embedding, int64_t block, int64_t norm, int64_t head,
                   const std::vector<std::string>& block_modules) {
  ModuleTree tree;
  tree.units.push_back({"model.embed_tokens", embedding});
  for (int64_t i = 0; i < blocks; ++i) tree.units.push_back({cat("model.layers.", i), block});
  tree.units.push_back({"model.norm", norm});
  tree.units.push_back({"lm_head", head});
  for (const ModelUnit& unit : tree.units) {
    tree.modules.push_back(unit.module);
    if (!unit.module.starts_with("model.layers.")) continue;
    for (const std::string& module : block_modules) tree.modules.push_back(cat(unit.module, ".", module));
  }
  return tree;
}

ModuleTree twelve_blocks() {
  return tree_of(12, 100, 50, 1, 100, {"self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"});
}

const Machine kTwoGpus = machine_of({"cuda:0", "cuda:1"});
const Machine kNoGpu = machine_of({});

DeviceMap parse(const std::string& text, const Machine& machine = kTwoGpus, const MaxMemory& max_memory = {}) {
  return parse_device_map(text, machine, twelve_blocks(), max_memory);
}

template <typename Function>
std::string error_of(const Function& function) {
  try {
    function();
  } catch (const InputError& error) {
    return error.what();
  }
  return "no InputError";
}

std::string refusal(const std::string& text, const Machine& machine = kTwoGpus, const MaxMemory& max_memory = {}) {
  return error_of([&] { parse(text, machine, max_memory); });
}

std::string memory_refusal(const std::string& text, Machine machine = kTwoGpus) {
  return error_of([&] { parse_max_memory(text, machine); });
}

#define EXPECT_SAYS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST(DeviceMapTest, AJsonObjectKeepsItsOrder) {
  const DeviceMap map = parse(R"( {"": "cuda:1", "model.norm": "cpu", "lm_head": 0} )");
  EXPECT_EQ(map.to_json(), R"({"": "cuda:1", "model.norm": "cpu", "lm_head": "cuda:0"})");
}

TEST(DeviceMapTest, WhatItWritesItReads) {
  const std::string text = R"({"": "cuda:1", "model.layers.3": "disk", "lm_head": "cuda:0"})";
  EXPECT_EQ(parse(parse(text).to_json()).to_json(), text);
}

TEST(DeviceMapTest, AFileHoldsTheSameObject) {
  const TemporaryFolder folder;
  const std::string path = folder.write("map.json", "\n{\"\": 1,\n \"model.layers.0\": \"cpu\"}\n");
  EXPECT_EQ(parse(path).to_json(), R"({"": "cuda:1", "model.layers.0": "cpu"})");
}

TEST(DeviceMapTest, OneDeviceStandsForAllModules) {
  EXPECT_EQ(parse("cpu").to_json(), R"({"": "cpu"})");
  EXPECT_EQ(parse(" disk ").to_json(), R"({"": "disk"})");
  EXPECT_EQ(parse("cuda:1").to_json(), R"({"": "cuda:1"})");
  EXPECT_EQ(parse("1").to_json(), R"({"": "cuda:1"})");
}

TEST(DeviceMapTest, TheBareKindIsItsFirstDevice) {
  EXPECT_EQ(parse("cuda").to_json(), R"({"": "cuda:0"})");
  EXPECT_EQ(parse("xpu", machine_of({"xpu:0"})).to_json(), R"({"": "xpu:0"})");
  EXPECT_EQ(parse("sim").to_json(), R"({"": "sim:0"})");
}

TEST(DeviceMapTest, ANumberIsTheAcceleratorOfThatNumberOfAnyKind) {
  EXPECT_EQ(parse(R"({"": 1})", machine_of({"xpu:0", "xpu:1"})).to_json(), R"({"": "xpu:1"})");
  EXPECT_EQ(parse(R"({"": 2})", machine_of({"sim:1", "sim:2"})).to_json(), R"({"": "sim:2"})");
  EXPECT_EQ(parse(R"({"": "1"})").to_json(), R"({"": "cuda:1"})");
}

TEST(DeviceMapTest, ASimulatedAcceleratorIsThereOnEveryMachine) {
  EXPECT_EQ(parse(R"({"": "sim:63"})", kNoGpu).to_json(), R"({"": "sim:63"})");
  EXPECT_SAYS(refusal(R"({"": "sim:64"})"), "sim:0 to sim:63");
}

TEST(DeviceMapTest, WhereMaxMemoryNamesSimulatedAcceleratorsThereAreNoOthers) {
  Machine machine = kTwoGpus;
  const MaxMemory limits = parse_max_memory(R"({"sim:0": "1GB", "sim:1": "2GB"})", machine);
  EXPECT_EQ(parse("sim:1", machine, limits).to_json(), R"({"": "sim:1"})");
  EXPECT_SAYS(refusal("sim:2", machine, limits), "sim:2 is none of them");
  EXPECT_SAYS(refusal("sim:2", machine, limits), "sim:0 (simulated, 1 GB), sim:1 (simulated, 2 GB), cpu");
  EXPECT_SAYS(refusal("cuda:0", machine, limits), "there is no device 'cuda:0'");
}

TEST(DeviceMapTest, TheLongestEntryWins) {
  const DeviceMap map{{{"model.layers.1", "cuda:1"}, {"", "cuda:0"}, {"model", "cpu"}}};
  EXPECT_EQ(*map.find("model.layers.1.mlp.up_proj"), "cuda:1");
  EXPECT_EQ(*map.find("model.layers.2"), "cpu");
  EXPECT_EQ(*map.find("lm_head"), "cuda:0");
}

TEST(DeviceMapTest, APrefixEndsAtADot) {
  const DeviceMap map{{{"model.layers.1", "cuda:0"}, {"model.layers.10", "cuda:1"}}};
  EXPECT_EQ(*map.find("model.layers.1"), "cuda:0");
  EXPECT_EQ(*map.find("model.layers.10.mlp"), "cuda:1");
  EXPECT_EQ(map.find("model.layers.11"), nullptr);
  EXPECT_EQ(map.find("model.layers"), nullptr);
}

TEST(DeviceMapTest, ItKnowsWhichDevicesItUses) {
  const DeviceMap map = parse(R"({"": "cuda:1", "lm_head": "disk"})");
  EXPECT_TRUE(map.uses("disk"));
  EXPECT_TRUE(map.uses("cuda:1"));
  EXPECT_FALSE(map.uses("cuda:0"));
  EXPECT_FALSE(map.uses("cpu"));
}

TEST(DeviceMapTest, AFolderOfModulesMayBeNamed) {
  const std::string text = R"({"model.layers": "cuda:0", "model": "cuda:1", "lm_head": "cpu"})";
  EXPECT_EQ(parse(text).to_json(), text);
}

TEST(DeviceMapTest, ModulesThatHoldNoWeightsMayBeNamed) {
  const std::string text = R"({"": "cuda:0", "model.rotary_emb": "cuda:1", "transformer.wpe": "cuda:1"})";
  EXPECT_EQ(parse(text).to_json(), text);
}

TEST(DeviceMapTest, PartsOfABlockThatAgreeCoverTheBlock) {
  const DeviceMap map =
      parse(R"({"model.layers.0.self_attn": 1, "model.layers.0.mlp": "cuda:1", "model.layers": 0, "model": 0,)"
            R"( "lm_head": 0})");
  EXPECT_EQ(*map.find("model.layers.0"), "cuda:1");
  EXPECT_EQ(*map.find("model.layers.1"), "cuda:0");
  const ModuleTree one = tree_of(1, 1, 1, 1, 1, {"self_attn.q_proj", "mlp.up_proj"});
  const DeviceMap parts = parse_device_map(R"({"model.layers.0.self_attn": 1, "model.layers.0.mlp": "cuda:1",)"
                                           R"( "model.embed_tokens": 0, "model.norm": 0, "lm_head": 0})",
                                           kTwoGpus, one, {});
  ASSERT_NE(parts.find("model.layers.0"), nullptr);
  EXPECT_EQ(*parts.find("model.layers.0"), "cuda:1");
}

TEST(DeviceMapTest, WhatIsNeitherJsonNorWordNorDeviceNorFileIsRefused) {
  const std::string said = refusal("balance");
  EXPECT_SAYS(said, "'balance' is neither JSON");
  EXPECT_SAYS(said, "auto, balanced, balanced_low_0, sequential");
  EXPECT_SAYS(said, "nor a file that exists");
  EXPECT_SAYS(said, "cuda, cuda:N, N, xpu, xpu:N, sim:N, cpu or disk");
  EXPECT_SAYS(refusal(""), "'' is neither JSON");
  EXPECT_SAYS(refusal("mps"), "'mps' is neither JSON");
  EXPECT_SAYS(refusal("maps/no-such.json"), "'maps/no-such.json' is neither JSON");
}

TEST(DeviceMapTest, BrokenJsonIsRefusedWithItsPlace) {
  EXPECT_SAYS(refusal(R"({"": "cuda:0")"), "`device_map`: not valid JSON at line 1, column 13");
  EXPECT_SAYS(refusal(R"({"": "cuda:0"} x)"), "not valid JSON at line 1, column 16");
  EXPECT_SAYS(refusal("{\"\": 1e999}"), "not valid JSON");
  EXPECT_SAYS(refusal("{"), "not valid JSON");
}

TEST(DeviceMapTest, ABrokenFileIsNamed) {
  const TemporaryFolder folder;
  const std::string broken = folder.write("broken.json", "{\n  \"\": \"cuda:0\",\n}");
  EXPECT_SAYS(refusal(broken), cat("`device_map` ", broken, ": not valid JSON at line 3, column 1"));
  const std::string list = folder.write("list.json", "[\"cuda:0\"]");
  EXPECT_SAYS(refusal(list), cat(list, ": not a JSON object"));
  const std::string word = folder.write("word.json", "\"auto\"");
  EXPECT_SAYS(refusal(word), cat(word, ": not a JSON object"));
  const std::string empty = folder.write("empty.json", "");
  EXPECT_SAYS(refusal(empty), cat(empty, ": not valid JSON"));
  const std::string lacking = folder.write("lacking.json", "{\"\": \"xpu:0\"}");
  EXPECT_SAYS(refusal(lacking), cat(lacking, ": entry '': there is no device 'xpu:0'"));
  EXPECT_SAYS(refusal(folder.path().string()), cat(folder.path().string(), ": not a regular file"));
}

TEST(DeviceMapTest, AnEmptyObjectIsRefused) { EXPECT_SAYS(refusal("{ }"), "the object is empty"); }

TEST(DeviceMapTest, DuplicateKeysAreRefused) {
  EXPECT_SAYS(refusal(R"({"lm_head": "cpu", "": 0, "lm_head": "cpu"})"), "the entry 'lm_head' appears twice");
}

TEST(DeviceMapTest, NestedObjectsAndListsAreRefused) {
  EXPECT_SAYS(refusal(R"({"model": {"norm": 0}})"), "the entry 'model' holds an object or a list");
  EXPECT_SAYS(refusal(R"({"model": [0]})"), "the entry 'model' holds an object or a list");
}

TEST(DeviceMapTest, NegativeIndicesAreRefused) {
  for (const char* text : {R"({"lm_head": -1})", R"({"lm_head": "-1"})", R"({"lm_head": "cuda:-1"})"}) {
    const std::string said = refusal(text);
    EXPECT_SAYS(said, "entry 'lm_head': '");
    EXPECT_SAYS(said, "is negative, and devices are counted from 0");
  }
  EXPECT_SAYS(refusal("-1"), "'-1' is negative");
}

TEST(DeviceMapTest, ValuesThatAreNoDeviceAreRefused) {
  for (const char* value : {"true", "0.0", "1.5", "null"}) {
    const std::string said = refusal(cat(R"({"lm_head": )", value, "}"));
    EXPECT_SAYS(said, cat("entry 'lm_head' is ", value, ": a device is cuda"));
    EXPECT_SAYS(said, "cuda:1 (NVIDIA H100, 80 GB), cpu (AMD EPYC, 25 GB)");
  }
  for (const char* value : {"gpu", "", "cuda:", "cuda:x", "cuda:1x", "cuda:+1", "cuda:1:1", "CPU", "mps", "auto"}) {
    EXPECT_SAYS(refusal(cat(R"({"lm_head": ")", value, "\"}")), cat("'", value, "' is not a device: a device is cuda"));
  }
}

TEST(DeviceMapTest, ADeviceThatTheMachineLacksIsRefusedAndWhatThereIsListed) {
  const std::string list =
      "this machine has: cuda:0 (NVIDIA H100, 80 GB), cuda:1 (NVIDIA H100, 80 GB), "
      "cpu (AMD EPYC, 25 GB); sim:N simulates an accelerator";
  EXPECT_SAYS(refusal("cuda:2"), "there is no device 'cuda:2'; " + list);
  EXPECT_SAYS(refusal("xpu:0"), "there is no device 'xpu:0'; " + list);
  EXPECT_SAYS(refusal(R"({"": 2})"), "there is no device '2'; " + list);
}

TEST(DeviceMapTest, ABareKindThatTheMachineLacksIsRefused) {
  EXPECT_SAYS(refusal("cuda", kNoGpu), "there is no device 'cuda'; this machine has: cpu (AMD EPYC, 25 GB)");
  EXPECT_SAYS(refusal("0", kNoGpu), "there is no device '0'; this machine has: cpu");
}

TEST(DeviceMapTest, WhyThereIsNoGpuIsSaid) {
  Machine machine = kNoGpu;
  machine.why_no_gpu = "cuda:0: the NVIDIA driver is for CUDA 11.8";
  EXPECT_SAYS(refusal("cuda:0", machine), "simulates an accelerator; cuda:0: the NVIDIA driver is for CUDA 11.8");
  EXPECT_SAYS(refusal("0", machine), "the NVIDIA driver is for CUDA 11.8");
}

TEST(DeviceMapTest, AModuleThatTheModelLacksIsRefusedWithItsNeighbours) {
  EXPECT_SAYS(refusal(R"({"": 0, "model.layer.3": 1})"),
              "this model has no module 'model.layer.3'; the nearest are 'model.layers.3'");
  EXPECT_SAYS(refusal(R"({"": 0, "lm_head.weight": 1})"), "no module 'lm_head.weight'");
  EXPECT_SAYS(refusal(R"({"": 0, "model.norm.": 1})"), "no module 'model.norm.'; the nearest are 'model.norm'");
  EXPECT_SAYS(refusal(R"({"": 0, "model.layers.12": 1})"), "no module 'model.layers.12'");
}

TEST(DeviceMapTest, AModuleThatNoEntryCoversIsListed) {
  EXPECT_SAYS(refusal(R"({"model.embed_tokens": 0, "model.layers": 0, "model.norm": 0})"),
              "no entry covers 1 of the model's 15 modules: lm_head; add them");
  EXPECT_SAYS(refusal(R"({"model.layers.1": 0, "lm_head": 0})"),
              "no entry covers 13 of the model's 15 modules: model.embed_tokens, model.layers.0, model.layers.2, "
              "model.layers.3, and 9 more");
  EXPECT_SAYS(refusal(R"({"model.embed_tokens": 0, "model.norm": 0, "lm_head": 0, "model.layers.0.mlp": 0})"),
              "no entry covers 12 of the model's 15 modules: model.layers.0, ");
}

TEST(DeviceMapTest, EntriesThatSplitABlockAreRefused) {
  const std::string halves = refusal(R"({"": 0, "model.layers.0.self_attn": 0, "model.layers.0.mlp": 1})");
  EXPECT_SAYS(halves, "'model.layers.0.mlp' on cuda:1 would split model.layers.0");
  EXPECT_SAYS(halves, "computes on one device");
  EXPECT_SAYS(refusal(R"({"": 0, "model.layers.4": "cuda:0", "model.layers.4.mlp.up_proj": "cpu"})"),
              "'model.layers.4' on cuda:0 and 'model.layers.4.mlp.up_proj' on cpu would split model.layers.4");
}

TEST(MaxMemoryTest, SizesAreTextOrBytes) {
  Machine machine = kTwoGpus;
  const MaxMemory limits = parse_max_memory(R"({"cpu": "64GiB", "1": "800MB", "cuda": 123})", machine);
  EXPECT_EQ(limits, (MaxMemory{{"cpu", int64_t{64} << 30}, {"cuda:1", 800'000'000}, {"cuda:0", 123}}));
  EXPECT_EQ(list_of(machine), list_of(kTwoGpus));
}

TEST(MaxMemoryTest, SimulatedAcceleratorsTakeThePlaceOfTheMachinesOwn) {
  Machine machine = kTwoGpus;
  const MaxMemory limits = parse_max_memory(R"({"sim:10": "3GB", "sim:2": "2GB", "cpu": "8GB"})", machine);
  EXPECT_EQ(limits, (MaxMemory{{"sim:10", 3 * kGB}, {"sim:2", 2 * kGB}, {"cpu", 8 * kGB}}));
  EXPECT_EQ(list_of(machine), "sim:2 (simulated, 2 GB), sim:10 (simulated, 3 GB), cpu (AMD EPYC, 25 GB)");
  EXPECT_EQ(machine.accelerators[0].free_bytes, 2 * kGB);
}

TEST(MaxMemoryTest, SimulatedAndRealAcceleratorsDoNotMix) {
  EXPECT_SAYS(memory_refusal(R"({"cuda:0": "1GB", "sim:0": "1GB"})"),
              "there is no device 'cuda:0'; this machine has: sim:0 (simulated, 1 GB), cpu");
}

TEST(MaxMemoryTest, ARefusalLeavesTheMachineAsItWas) {
  Machine machine = kTwoGpus;
  EXPECT_THROW(parse_max_memory(R"({"sim:0": "1GB", "cuda:0": "1GB"})", machine), InputError);
  EXPECT_EQ(list_of(machine), list_of(kTwoGpus));
}

TEST(MaxMemoryTest, SizesThatDoNotParseAreRefused) {
  for (const char* size : {"\"20 apples\"", "\"\"", "\"GiB\"", "\"-1GB\"", "\"0\"", "\"0.1\"", "\"nan\"", "0"}) {
    const std::string said = memory_refusal(cat(R"({"cuda:0": )", size, "}"));
    EXPECT_SAYS(said, cat("`max_memory`: the size of 'cuda:0' is ", size, ", which is not a positive size"));
    EXPECT_SAYS(said, "write it as \"20GiB\", \"800MB\" or a number of bytes");
  }
  for (const char* size : {"-5", "1.5", "true", "null", "18446744073709551615"}) {
    EXPECT_SAYS(memory_refusal(cat(R"({"cpu": )", size, "}")), cat("the size of 'cpu' is ", size, "; write it"));
  }
}

TEST(MaxMemoryTest, DuplicateDevicesAreRefused) {
  EXPECT_SAYS(memory_refusal(R"({"cpu": 1, "cpu": 2})"), "`max_memory`: the entry 'cpu' appears twice");
  EXPECT_SAYS(memory_refusal(R"({"cuda": 1, "0": 2})"), "'0' names cuda:0 twice");
  EXPECT_SAYS(memory_refusal(R"({"sim": 1, "sim:0": 2})"), "'sim:0' names sim:0 twice");
}

TEST(MaxMemoryTest, DevicesThatTheMachineLacksAreRefused) {
  EXPECT_SAYS(memory_refusal(R"({"cuda:2": 1})"), "there is no device 'cuda:2'; this machine has: cuda:0");
  EXPECT_SAYS(memory_refusal(R"({"2": 1})"), "there is no device '2'");
  EXPECT_SAYS(memory_refusal(R"({"cuda:-1": 1})"), "'cuda:-1' is negative");
  EXPECT_SAYS(memory_refusal(R"({"sim:64": 1})"), "sim:0 to sim:63");
  EXPECT_SAYS(memory_refusal(R"({"gpu": 1})"), "'gpu' is not a device");
  EXPECT_SAYS(memory_refusal(R"({"disk": "1TB"})"), "'disk' takes no size");
}

TEST(MaxMemoryTest, WhatIsNoObjectOfSizesIsRefused) {
  EXPECT_SAYS(memory_refusal("20GiB"), R"(is not a JSON object; write it as {"cuda:0": "20GiB", "cpu": "64GiB"})");
  EXPECT_SAYS(memory_refusal("[1]"), "is not a JSON object");
  EXPECT_SAYS(memory_refusal("{}"), "the object is empty");
  EXPECT_SAYS(memory_refusal(R"({"cpu": 1)"), "`max_memory`: not valid JSON");
  EXPECT_SAYS(memory_refusal(R"({"cpu": {"bytes": 1}})"), "the entry 'cpu' holds an object or a list");
}

const char* const kMapWords[] = {"auto", "balanced", "balanced_low_0", "sequential"};

TEST(DeviceMapWordTest, WithoutAnAcceleratorAllIsOnTheCpu) {
  for (const char* word : kMapWords) EXPECT_EQ(parse(word, kNoGpu, {{"cpu", 10}}).to_json(), R"({"": "cpu"})");
}

TEST(DeviceMapWordTest, WhatFitsOnTheFirstDeviceIsThereSequentially) {
  EXPECT_EQ(parse("sequential").to_json(), R"({"": "cuda:0"})");
}

TEST(DeviceMapWordTest, AutoMeansBalanced) {
  EXPECT_EQ(parse("auto").to_json(), parse("balanced").to_json());
  EXPECT_TRUE(parse("auto").uses("cuda:0"));
  EXPECT_TRUE(parse("auto").uses("cuda:1"));
}

TEST(DeviceMapWordTest, BalancedLow0KeepsTheFirstDeviceFree) {
  const DeviceMap map = parse("balanced_low_0");
  EXPECT_FALSE(map.uses("cuda:0"));
  EXPECT_TRUE(map.uses("cuda:1"));
}

TEST(DeviceMapWordTest, EveryUnitHasAnEntryInTheOrderOfTheModel) {
  const ModuleTree tree = twelve_blocks();
  const DeviceMap map = parse("auto");
  ASSERT_EQ(map.entries.size(), tree.units.size());
  for (size_t i = 0; i < tree.units.size(); ++i) EXPECT_EQ(map.entries[i].module, tree.units[i].module);
}

TEST(DeviceMapWordTest, FreeMemoryIsTheBudgetOfADeviceWithoutALimit) {
  Machine machine = kTwoGpus;
  machine.accelerators[0].free_bytes = 250;  // of 801 bytes: enough for the embedding, one block and the head
  machine.accelerators[1].free_bytes = 300;
  machine.cpu.free_bytes = 100;
  EXPECT_EQ(*parse("sequential", machine).find("model.layers.0"), "cuda:0");
  EXPECT_EQ(*parse("sequential", machine).find("model.layers.1"), "cuda:1");
  EXPECT_EQ(*parse("sequential", machine).find("lm_head"), "disk");
  EXPECT_EQ(*parse("sequential", machine, {{"cuda:1", 651}}).find("lm_head"), "cuda:1");
}

TEST(DeviceMapWordTest, BalancedLeavesATenthOfTheOnlyDeviceFreeUnlessItsMemoryIsGiven) {
  Machine machine = machine_of({"cuda:0"});
  machine.accelerators[0].free_bytes = 801;  // exactly the model's bytes
  EXPECT_EQ(parse("sequential", machine).to_json(), R"({"": "cuda:0"})");
  EXPECT_TRUE(parse("balanced", machine).uses("cpu"));
  EXPECT_EQ(parse("balanced", machine, {{"cuda:0", 801}}).to_json(), R"({"": "cuda:0"})");
}

TEST(DeviceMapWordTest, BudgetsOfAnySizeAreAddedWithoutOverflow) {
  EXPECT_EQ(parse("balanced_low_0", kTwoGpus, {{"cuda:0", INT64_MAX}, {"cuda:1", INT64_MAX}}).to_json(),
            R"({"": "cuda:1"})");
}

TEST(DeviceMapWordTest, MapsAreThoseOfAccelerate) {
  const Json golden = read_json(std::string(GPTQ_GOLDEN) + "/device_maps/device_maps.json");
  ASSERT_GT(golden.at("cases").size(), 200u);
  for (const Json& facts : golden.at("cases")) {
    const Json& model = golden.at("models").at(facts.at("model").get<std::string>());
    const ModuleTree tree = tree_of(model.at("blocks"), model.at("embedding"), model.at("block"), model.at("norm"),
                                    model.at("head"), model.at("modules"));
    Machine machine = machine_of({});
    MaxMemory max_memory;
    for (const auto& [name, bytes] : facts.at("max_memory").items()) {
      max_memory.emplace_back(name, bytes.get<int64_t>());
      if (name != "cpu") machine.accelerators.push_back(device(name, "", kGB));
    }
    const DeviceMap map = parse_device_map(facts.at("word").get<std::string>(), machine, tree, max_memory);

    DeviceMap expected;
    for (const Json& run : facts.at("runs")) {
      for (int64_t i = 0; i < run.at(1); ++i) {
        expected.entries.push_back({tree.units[expected.entries.size()].module, run.at(0)});
      }
    }
    if (facts.at("runs").size() == 1) expected.entries = {{"", facts.at("runs")[0].at(0)}};
    EXPECT_EQ(map.to_json(), expected.to_json()) << facts;
  }
}

}  // namespace
}  // namespace gptq
