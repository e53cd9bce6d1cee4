// The simulated accelerator: a memory of its own size that nothing else may touch.
#include <gtest/gtest.h>

#include "backend/backend.h"
#include "backend/counting.h"
#include "backend/registry.h"
#include "base/error.h"

namespace gptq {
namespace {

std::string message_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const DeviceError& error) {
    return error.what();
  }
  return "";
}

TEST(Simulated, AnOpOnAMatrixOfAnotherDeviceIsAnErrorThatNamesBoth) {
  const auto first = open_backend("sim:0"), second = open_backend("sim:1");
  Matrix here(*first, DType::f32, 4, 8), there(*second, DType::f32, 4, 8), host(host_memory(), DType::f32, 4, 8);
  for (Backend* backend : {first.get(), second.get()})
    backend->run(ops::Clear{.y = backend == first.get() ? here : there});
  for (const Matrix* foreign : {&there, &host}) {
    const std::string message = message_of([&] { first->run(ops::Add{.x = *foreign, .factor = 1, .y = here}); });
    EXPECT_NE(message.find("sim:0: add was given a"), std::string::npos) << message;
    EXPECT_NE(message.find("[4, 8]"), std::string::npos) << message;
  }
  EXPECT_NE(message_of([&] { first->run(ops::Add{.x = here, .factor = 1, .y = there}); }), "") << "as an output too";
  EXPECT_NE(message_of([&] { first->upload(host, host.view().data); }), "");
  EXPECT_NO_THROW(first->run(ops::Clear{.y = here}));
}

TEST(Simulated, AMatrixThatWasReleasedOrEndsBeyondItsBlockIsForeign) {
  const auto backend = open_backend("sim:0");
  Matrix y(*backend, DType::f32, 4, 8);
  MatrixView gone;
  {
    Matrix x(*backend, DType::f32, 4, 8);
    gone = x;
  }
  EXPECT_NE(message_of([&] { backend->run(ops::Clear{.y = gone}); }), "");
  MatrixView longer = y.view();
  longer.rows = 5;
  EXPECT_NE(message_of([&] { backend->run(ops::Clear{.y = longer}); }), "");
}

TEST(Simulated, OutOfMemorySaysTheDeviceWhatWasAskedAndWhatIsInUse) {
  const auto backend = open_backend("sim:3", {.memory_bytes = 10'000});
  const Matrix most(*backend, DType::u8, 1, 8'000);
  const std::string message = message_of([&] { Matrix(*backend, DType::u8, 1, 3'000); });
  EXPECT_EQ(message, "sim:3 is out of memory: 3000 bytes asked for, 8000 of 10000 bytes in use");
  EXPECT_NO_THROW(Matrix(*backend, DType::u8, 1, 2'000));
}

TEST(Simulated, MemoryHeldForReuseIsGivenBackBeforeARequestIsRefused) {
  const auto backend = open_backend("sim:0", {.memory_bytes = 10'000});
  { const Matrix once(*backend, DType::u8, 1, 8'000); }
  EXPECT_EQ(backend->memory_use().held, 8'000);
  EXPECT_NO_THROW(Matrix(*backend, DType::u8, 1, 9'000));
  EXPECT_EQ(backend->memory_use().peak, 9'000) << "never both";
}

TEST(Simulated, TransfersAndMemoryAreCounted) {
  const auto backend = open_backend("sim:0");
  std::vector<float> values(32, 1.5F);
  {
    const Matrix x = to_device(*backend, DType::f32, 4, 8, values.data());
    EXPECT_EQ(to_host<float>(*backend, x.view().row_range(0, 2)).size(), 16U);
    EXPECT_EQ(backend->traffic().uploaded, 128);
    EXPECT_EQ(backend->traffic().downloaded, 64);
    EXPECT_EQ(backend->memory_use().bytes, 128);
  }
  backend->trim();
  EXPECT_EQ(backend->memory_use().bytes, 0);
  EXPECT_EQ(backend->memory_use().held, 0);
  EXPECT_EQ(backend->memory_use().peak, 128);
}

TEST(Simulated, ComputesInTheModelsOwnPrecision) {
  const auto backend = open_backend("sim:0");
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) EXPECT_EQ(backend->compute_dtype(dtype), dtype);
}

TEST(Simulated, AreAsManyAsAreNamed) {
  EXPECT_EQ(open_backend("sim:17")->name(), "sim:17");
  for (const char* name : {"sim", "sim:", "sim:-1", "sim:x", "sim:1x", "cpu:0", ""}) {
    EXPECT_THROW(open_backend(name), InputError) << name;
  }
  for (const DeviceInfo& device : list_devices()) EXPECT_FALSE(device.name.starts_with("sim")) << "not of the machine";
  EXPECT_EQ(list_devices().back().name, "cpu");
  EXPECT_GT(list_devices().back().total_bytes, list_devices().back().free_bytes);
}

TEST(Counting, CountsMemoryAsADeviceWouldAndEachCallByItsSizes) {
  NoMemory nothing;
  LimitedMemory memory(nothing, "cuda:0", 1'000'000);
  CountingBackend backend("cuda:0", memory, MemoryPool::kMaxHeld, DType::bf16, DType::f32, false);
  backend.set_stage("forward");
  const Matrix x = to_device(backend, DType::bf16, 100, 64, nullptr), w(backend, DType::bf16, 32, 64);
  for (int i = 0; i < 3; ++i) {
    Matrix y(backend, DType::bf16, 100, 32);
    backend.run(ops::Linear{.x = x, .w = w, .y = y});
  }
  EXPECT_EQ(memory.peak_bytes(), (100 * 64 + 32 * 64 + 100 * 32) * 2) << "one result, reused";
  const auto stages = backend.take_calls();
  const auto& calls = stages.at("forward");
  ASSERT_EQ(calls.size(), 1U);
  EXPECT_EQ(calls.begin()->first, (OpCall{"linear", {100, 32, 64, 0}, DType::bf16}));
  EXPECT_EQ(calls.begin()->second, 3);
  EXPECT_THROW(Matrix(backend, DType::f32, 1000, 1000), DeviceError);
}

}  // namespace
}  // namespace gptq
