// A whole run on the CPU, stage by stage and end to end, against the processor's vector units and the product kernels'
// own peak, measured in the same process:
//   bench_quantize MODEL CALIBRATION [SAMPLES 128] [LENGTH 512] [GROUP 64] [THREADS 0] [PRECISION auto]
// Useful work counts what no implementation can leave out: one forward pass of the linears, the causal half of
// attention's two products, the lower triangle of each step's Hessian. Column solving, packing and input/output are
// time without useful work.
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "gptq/gptq.h"
#include "vector_units.h"

namespace gptq {
namespace {

// Flops of a token in all blocks: linears and attention, Hessians.
struct Useful {
  double forward = 0, hessian = 0;
};

Useful useful_flops(const Inspection& model, double length) {
  const double hidden = model.hidden, inner = model.intermediate, width = model.heads * model.head_dim,
               kv = model.kv_heads * model.head_dim;
  const double linears = 2 * (2 * hidden * width + 2 * hidden * kv + 3 * hidden * inner);
  const double attention = 2 * width * length;  // two products of 2 flops, half of the keys
  const auto triangle = [](double n) { return n * (n + 1); };
  const auto blocks = static_cast<double>(model.blocks);
  return {blocks * (linears + attention), blocks * (2 * triangle(hidden) + triangle(width) + triangle(inner))};
}

int run(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr,
                 "usage: bench_quantize MODEL CALIBRATION [SAMPLES 128] [LENGTH 512] [GROUP 64] [THREADS 0] "
                 "[PRECISION auto]\n");
    return 2;
  }
  const auto argument = [&](int i, int64_t missing) { return argc > i ? std::atoll(argv[i]) : missing; };
  const std::filesystem::path output = std::filesystem::temp_directory_path() / "gptq-bench-output";
  Job job{.model = argv[1],
          .output = output,
          .device_map = "cpu",
          .threads = static_cast<int>(argument(6, 0)),
          .overwrite = true};
  job.calibration = {.file = argv[2], .samples = argument(3, 128), .sequence_length = argument(4, 512)};
  job.recipe.group_size = argument(5, 64);
  if (argc > 7) job.precision = argv[7];

  const Peaks before = measure_peaks(job.threads, 1);
  const Report report = quantize(job);
  const Peaks after = measure_peaks(job.threads, 1);
  const bool in_bf16 = report.compute_dtype == "bfloat16";
  const Peak peak = in_bf16 ? before.bf16 : before.f32, peak_after = in_bf16 ? after.bf16 : after.f32;
  std::filesystem::remove_all(output);
  const Useful useful =
      useful_flops(inspect(job.model), static_cast<double>(report.tokens) / static_cast<double>(report.sequences));
  const auto tokens = static_cast<double>(report.tokens);

  std::printf("%s\n%s: %lld tokens, %d bits, group %lld\n", report.device.c_str(), job.model.c_str(),
              static_cast<long long>(report.tokens), job.recipe.bits,
              static_cast<long long>(report.recipe.group_size.value_or(0)));
  std::printf(
      "%s peak on registers %.0f GFLOP/s before the run, %.0f after, the kernel's own %.0f and %.0f; shares are of the "
      "means\n\n",
      report.compute_dtype.c_str(), peak.registers / 1e9, peak_after.registers / 1e9, peak.kernel / 1e9,
      peak_after.kernel / 1e9);
  std::printf("%-16s %9s %8s %10s %13s %10s\n", "stage", "seconds", "of run", "TFLOP", "of registers", "of kernel");
  const auto row = [&](const std::string& stage, double seconds, double flops) {
    std::printf("%-16s %9.2f %7.1f%%", stage.c_str(), seconds, 100 * seconds / report.seconds);
    const auto share = [&](double a, double b) { return 100 * flops / seconds / ((a + b) / 2); };
    if (flops > 0) {
      std::printf(" %10.2f %12.1f%% %9.1f%%", flops / 1e12, share(peak.registers, peak_after.registers),
                  share(peak.kernel, peak_after.kernel));
    }
    std::printf("\n");
  };
  double rest = report.seconds;
  for (const auto& [stage, seconds] : report.stage_seconds) {
    rest -= seconds;
    row(stage, seconds,
        stage == "forward"   ? tokens * useful.forward
        : stage == "Hessian" ? tokens * useful.hessian
                             : 0);
  }
  row("rest", rest, 0);
  row("whole run", report.seconds, tokens * (useful.forward + useful.hessian));
  std::printf("\nprocessor time %.1f s, peak memory %.0f MB\n", report.cpu_seconds,
              static_cast<double>(report.peak_memory_bytes) / 1e6);
  return 0;
}

}  // namespace
}  // namespace gptq

int main(int argc, char** argv) {
  try {
    return gptq::run(argc, argv);
  } catch (const gptq::Error& error) {
    std::fprintf(stderr, "bench_quantize: %s\n", error.what());
    return 2;
  }
}
