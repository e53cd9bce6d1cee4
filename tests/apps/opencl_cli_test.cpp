// What the program says of OpenCL devices that it cannot use: one sentence each, and no output.
#ifdef GPTQ_TEST_OPENCL
#include <cstdlib>

#include "apps/cli.h"

namespace gptq {
namespace {

class OpenclCli : public Cli {
 protected:
  // A run on xpu:0, with tests/apps/failing_opencl.cpp or empty_opencl.cpp for OpenCL's library.
  Outcome run_with(const std::string& library, const char* way) const {
    return run(quantize({"--device-map", "xpu:0"}), [&] {
      setenv("LD_LIBRARY_PATH", (std::string(GPTQ_TEST_OPENCL "/") + library).c_str(), 1);
      setenv("FAKE_OPENCL", way, 1);
      unsetenv("GPTQ_OPENCL_DEVICES");
    });
  }
};

TEST_F(OpenclCli, ALibraryThatIsNoneIsSaidToBeMissing) {
  expect_refusal(run_with("empty_opencl", ""), {"xpu:0", "libOpenCL.so.1", "install", "device cpu"});
}

TEST_F(OpenclCli, EveryDeviceThatCannotBeUsedSaysWhy) {
  const std::vector<std::pair<const char*, std::vector<std::string>>> ways = {
      {"none", {"xpu:0", "OpenCL shows no device", "install the driver"}},
      {"old", {"xpu:0", "Fake GPU", "OpenCL 1.1", "update the driver"}},
      {"no compiler", {"xpu:0", "Fake GPU", "no compiler", "install the full driver"}},
      {"small", {"xpu:0", "Fake GPU", "work-groups of 64", "256"}},
      {"kernels", {"xpu:0", "Fake GPU", "does not compile", "12:3: error: no such word"}},
      {"full", {"xpu:0", "out of memory"}},
      {"lost", {"xpu:0", "CL_DEVICE_NOT_AVAILABLE", "may be lost"}}};
  for (const auto& [way, words] : ways) {
    SCOPED_TRACE(way);
    const Outcome outcome = run_with("failing_opencl", way);
    EXPECT_NE(outcome.code, 0);
    for (const std::string& word : words) EXPECT_NE(outcome.err.find(word), std::string::npos) << outcome.err;
    const size_t sentence = outcome.err.find("gptq: ");
    ASSERT_NE(sentence, std::string::npos) << outcome.err;
    EXPECT_EQ(std::count(outcome.err.begin() + static_cast<std::ptrdiff_t>(sentence), outcome.err.end(), '\n'), 1)
        << outcome.err;
    expect_nothing_left();
  }
}

}  // namespace
}  // namespace gptq
#endif
