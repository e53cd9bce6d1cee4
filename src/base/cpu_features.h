// Features of the processor that the compiler's builtins do not report.
#pragma once

namespace gptq {

// Whether the processor has AMX tiles for bf16 and the kernel lets this process use them. Asks the kernel for the
// permission, which threads inherit: call it before they start.
bool may_use_amx();

}  // namespace gptq
