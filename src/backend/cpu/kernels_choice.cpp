// Chooses the table of kernels at run time.
#include <cstdlib>
#include <string>
#include <string_view>

#include "backend/cpu/kernels.h"
#include "base/error.h"

namespace gptq {

namespace baseline {
extern const Kernels kKernels;
}
#ifndef GPTQ_BASELINE_ONLY
namespace avx2 {
extern const Kernels kKernels;
}
namespace avx512 {
extern const Kernels kKernels;
}
#endif

namespace {

struct Choice {
  const Kernels* kernels;
  bool (*runs_here)();
};

// Best first.
constexpr Choice kChoices[] = {
#ifndef GPTQ_BASELINE_ONLY
    {&avx512::kKernels,
     [] {
       return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
              __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
     }},
    {&avx2::kKernels, [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }},
#endif
    {&baseline::kKernels, [] { return true; }},
};

}  // namespace

const Kernels& kernels_for_this_cpu() {
  const char* wanted = std::getenv("GPTQ_CPU_ISA");
  std::string known;
  for (const Choice& choice : kChoices) {
    if (!choice.runs_here()) continue;
    if (wanted == nullptr || std::string_view(wanted) == choice.kernels->isa) return *choice.kernels;
    known += cat(known.empty() ? "" : ", ", choice.kernels->isa);
  }
  throw InputError(cat("GPTQ_CPU_ISA is '", wanted, "', but this processor and build have ", known));
}

}  // namespace gptq
