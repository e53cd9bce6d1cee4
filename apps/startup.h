// What the program arranges with the operating system before anything else.
#pragma once

namespace gptq {

// Opens missing standard descriptors, so that no file of a model can get their numbers; ignores SIGPIPE and SIGXFSZ, so
// that writing fails with an error instead; allows as many open files as there may be.
void prepare_process();

}  // namespace gptq
