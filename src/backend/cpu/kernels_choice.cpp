// Chooses the table of kernels for the processor, or the one that GPTQ_CPU_ISA names.
#include <cstdlib>
#include <string>
#include <string_view>

#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

#include "backend/cpu/kernels.h"
#include "base/cpu_features.h"
#include "base/error.h"

namespace gptq {

namespace baseline {
extern const Kernels kKernels;
}
#if defined(__x86_64__)
namespace avx2 {
extern const Kernels kKernels;
}
namespace avx512 {
extern const Kernels kKernels;
}
namespace avx512bf16 {
extern const Kernels kKernels;
}
namespace amx {
extern const Kernels kKernels;
}
#elif defined(__aarch64__)
namespace neonbf16 {
extern const Kernels kKernels;
}
#endif

namespace {

struct Choice {
  const Kernels* kernels;
  bool (*runs_here)();
  bool (*is_slow)() = [] { return false; };  // on this processor, compared with the next row
};

#if defined(__x86_64__)
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
}

// The vector units of Intel's processors multiply bf16 at half the rate of f32 (bench/README.md).
bool is_intel() { return __builtin_cpu_is("intel"); }
bool has_avx512bf16() { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }

#elif defined(__aarch64__)
bool has_neonbf16() {
  constexpr unsigned long kBf16 = 1UL << 14;  // HWCAP2_BF16
  return (getauxval(AT_HWCAP2) & kBf16) != 0;
}
#endif

// Fastest first.
constexpr Choice kChoices[] = {
#if defined(__x86_64__)
    {&amx::kKernels, [] { return has_avx512bf16() && may_use_amx(); }},
    {&avx512bf16::kKernels, has_avx512bf16, is_intel},
    {&avx512::kKernels, has_avx512},
    {&avx2::kKernels, [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }},
#elif defined(__aarch64__)
    {&neonbf16::kKernels, has_neonbf16},
#endif
    {&baseline::kKernels, [] { return true; }},
};

}  // namespace

const Kernels& kernels_for_this_cpu() {
  const char* wanted = std::getenv("GPTQ_CPU_ISA");
  std::string known;
  for (const Choice& choice : kChoices) {
    if (!choice.runs_here()) continue;
    if (wanted == nullptr ? !choice.is_slow() : std::string_view(wanted) == choice.kernels->isa) return *choice.kernels;
    known += cat(known.empty() ? "" : ", ", choice.kernels->isa);
  }
  throw InputError(cat("GPTQ_CPU_ISA is '", wanted, "', but this processor and build have ", known));
}

}  // namespace gptq
