// What generic code does with every op: fallback, counting, checking and timing.
#include <map>
#include <set>
#include <string>
#include <type_traits>

#include "backend/counting.h"
#include "backend/devices.h"
#include "backend/registry.h"
#include "backend/timing.h"
#include "backend/trial_operands.h"

namespace gptq {
namespace {

constexpr OpSizes kSizes = {16, 64, 8, 2};

// Calls body(op) with a trial of each op on `backend`.
template <typename Body>
void for_every_op(Backend& backend, const Body& body) {
  for (int index = 0; index < ops::AllOps::kCount; ++index) {
    ops::visit_type(index, [&](auto type) {
      using Op = typename decltype(type)::type;
      SCOPED_TRACE(Op::kName);
      DeviceOperands operands(backend);
      body(Op::trial(operands, kSizes, DType::f32));
    });
  }
}

TEST(Ops, HaveNamesOfTheirOwnByWhichTheyAreFound) {
  std::set<std::string> names;
  for (const ops::OpFacts& facts : ops::all_facts()) {
    names.insert(facts.name);
    EXPECT_STREQ(ops::facts_of(facts.name).name, facts.name);
  }
  EXPECT_EQ(names.size(), static_cast<size_t>(ops::AllOps::kCount));
}

TEST(Ops, KeysOfCallsSayWhatTheyCost) {
  const ConstMatrixView none;
  const auto view = [](int64_t rows, int64_t cols, DType dtype = DType::bf16) {
    return MatrixView(nullptr, dtype, rows, cols);
  };
  const std::vector<int64_t> offsets = {0, 10, 30};
  EXPECT_EQ(ops::call_of(ops::Linear{.x = view(5, 7), .w = view(3, 7), .y = view(5, 3, DType::f32)}),
            (OpCall{"linear", {5, 3, 7}, DType::bf16}));
  EXPECT_EQ(ops::call_of(ops::GatedLinear{.x = view(5, 7), .y = view(5, 3)}),
            (OpCall{"gated_linear", {5, 3, 7}, DType::bf16}));
  EXPECT_EQ(ops::call_of(ops::Attention{.q = view(30, 64), .offsets = offsets, .shape = {4, 2, 16}}),
            (OpCall{"attention", {30, 4, 16, 15}, DType::bf16}));
  EXPECT_EQ(ops::call_of(ops::Rope{.cos = view(9, 4, DType::f32), .x = view(5, 8)}),
            (OpCall{"rope", {5, 8}, DType::bf16}));
  EXPECT_EQ(ops::call_of(ops::Factor{.h = view(9, 9, DType::f32)}), (OpCall{"factor", {9}, DType::f32}));
  EXPECT_EQ(ops::call_of(ops::FindGrid{.w = view(5, 8, DType::f32),
                                       .group_size = 4,
                                       .search = {.symmetric = false, .candidates = 10, .search_zeros = true}}),
            (OpCall{"find_grid", {5, 8, 4, 30}, DType::f32}));
  EXPECT_EQ(ops::call_of(ops::Pack{.codes = view(5, 8, DType::u8), .bits = 3}), (OpCall{"pack", {5, 8, 3}, DType::u8}));
  EXPECT_EQ(ops::call_of(ops::Dequantize{.codes = view(5, 8, DType::u8), .w = view(5, 8)}),
            (OpCall{"dequantize", {5, 8}, DType::bf16}));
  EXPECT_EQ(ops::call_of(ops::GatherRows{.table = view(90, 8), .y = view(5, 8, DType::f32)}),
            (OpCall{"gather_rows", {5, 8}, DType::bf16}));
}

TEST(Ops, ATrialIsACallOfTheKeyThatItWasMadeFor) {
  const auto backend = open_backend("cpu", {.threads = 1});
  for_every_op(*backend, [&](const auto& op) {
    const OpCall call = ops::call_of(op);
    DeviceOperands operands(*backend);
    EXPECT_EQ(ops::call_of(op.trial(operands, call.sizes, call.dtype)), call);
    const ops::OpFacts& facts = ops::facts_of(call.op);
    EXPECT_GT(facts.work(call.sizes), 0);
    EXPECT_EQ(facts.trial_sizes(call.sizes, {1e9, 1e9}), call.sizes) << "small ones stay";
  });
}

TEST(Ops, TrialsOfLargeCallsAreSmall) {
  const ops::TrialLimits limits{4e8, 1 << 20};
  for (const ops::OpFacts& facts : ops::all_facts()) {
    const OpSizes large = {1 << 20, 512, 512, 512}, tried = facts.trial_sizes(large, limits);
    EXPECT_LE(facts.work(tried), 16 * std::max(limits.products, limits.elements)) << facts.name;
    EXPECT_LT(facts.work(tried), facts.work(large)) << facts.name;
  }
}

TEST(Fallback, ABackendWithoutOpsComputesEachOnTheHostAndCountsIt) {
  MemoryOnlyBackend backend;
  for_every_op(backend, [&](const auto& op) {
    using Op = std::decay_t<decltype(op)>;
    std::map<std::string, int64_t> expected = backend.fallbacks();
    backend.run(op);
    if (is_composed<Op>()) {
      EXPECT_GT(backend.fallbacks().at("linear"), expected.at("linear")) << "composed of others";
      EXPECT_EQ(backend.fallbacks().count(Op::kName), 0U);
    } else {
      ++expected[Op::kName];
      EXPECT_EQ(backend.fallbacks(), expected);
    }
  });
}

TEST(Fallback, BringsBackWhatAnOpWritesAndItsResult) {
  MemoryOnlyBackend backend;
  const std::vector<float> values = {4, 0, 2, 3}, negative = {-1, 0, 0, 1};
  Matrix h = to_device(backend, DType::f32, 2, 2, values.data());
  EXPECT_TRUE(backend.run(ops::Factor{.h = h}));
  const auto F = to_host<float>(backend, h);
  EXPECT_FLOAT_EQ(F[3] * F[3], 3);
  EXPECT_FLOAT_EQ(F[2] * F[3], 2);
  EXPECT_EQ(backend.traffic().uploaded, 32);
  EXPECT_EQ(backend.traffic().downloaded, 32);
  Matrix bad = to_device(backend, DType::f32, 2, 2, negative.data());
  EXPECT_FALSE(backend.run(ops::Factor{.h = bad}));
}

TEST(Counting, CountsEachOpByItsKeyAndExpectsSuccess) {
  NoMemory nothing;
  LimitedMemory memory(nothing, "cuda:0", 0);
  for (const bool fuses : {false, true}) {
    CountingBackend backend("cuda:0", memory, 0, DType::bf16, DType::f32, fuses);
    for_every_op(backend, [&](const auto& op) {
      using Op = std::decay_t<decltype(op)>;
      backend.set_stage("trial");
      backend.take_calls();
      if constexpr (std::is_void_v<ops::ResultOf<Op>>)
        backend.run(op);
      else
        EXPECT_EQ(backend.run(op), Op::kExpected);
      const auto calls = backend.take_calls().at("trial");
      if (is_composed<Op>() && !fuses) {
        EXPECT_FALSE(calls.empty()) << "composed of others";
        EXPECT_EQ(calls.count(ops::call_of(op)), 0U);
      } else {
        ASSERT_EQ(calls.size(), 1U);
        EXPECT_EQ(calls.begin()->first, ops::call_of(op));
        EXPECT_EQ(calls.begin()->second, 1);
      }
    });
    EXPECT_TRUE(backend.fallbacks().empty());
  }
}

TEST(Simulated, EveryOpRefusesEveryOperandOfAnotherDevice) {
  const auto here = open_backend("sim:0"), there = open_backend("sim:1");
  for_every_op(*here, [&](auto op) {
    using Op = std::decay_t<decltype(op)>;
    const auto refuses = [&](auto view_of) {
      Op foreign = op;
      auto& view = view_of(foreign);
      if (view.empty()) return;
      const Matrix elsewhere(*there, view.dtype, view.rows, view.cols);
      view = MatrixView(const_cast<void*>(elsewhere.view().data), view.dtype, view.rows, view.cols);
      EXPECT_THROW(here->run(foreign), DeviceError);
    };
    for (size_t i = 0; i < op.reads().size(); ++i) refuses([i](Op & o) -> auto& { return *o.reads()[i]; });
    for (size_t i = 0; i < op.writes().size(); ++i) refuses([i](Op & o) -> auto& { return *o.writes()[i]; });
    EXPECT_NO_THROW(here->run(op));
  });
}

TEST(Timing, EveryOpTakesTime) {
  const auto backend = open_backend("cpu", {.threads = 1});
  for (const ops::OpFacts& facts : ops::all_facts()) {
    const double seconds = time_op(*backend, {facts.name, kSizes, DType::f32}, 0);
    EXPECT_GT(seconds, 0) << facts.name;
    EXPECT_LT(seconds, 1) << facts.name;
  }
  EXPECT_TRUE(backend->fallbacks().empty());
}

TEST(Registry, KnowsTheTraitsOfADeviceFromItsName) {
  EXPECT_TRUE(traits_of("cpu").is_host);
  EXPECT_TRUE(traits_of("cpu").computes_on_host);
  EXPECT_TRUE(traits_of("sim:3").is_simulated);
  EXPECT_TRUE(traits_of("sim:3").memory_is_the_hosts);
  EXPECT_FALSE(traits_of("sim:3").is_host);
  for (const char* name : {"cuda:0", "xpu:1"}) {
    EXPECT_FALSE(traits_of(name).computes_on_host) << name;
    EXPECT_FALSE(traits_of(name).pool_counts) << name;
  }
  EXPECT_THROW(open_backend("xpu:99"), InputError) << "known, in every build";
  EXPECT_EQ(find_kind("tpu"), nullptr);
}

}  // namespace
}  // namespace gptq
