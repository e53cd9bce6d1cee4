// Messages and progress of work that takes its time.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace gptq {

struct Progress {
  enum class Kind : uint8_t { message, warning, step } kind = Kind::step;
  std::string text;               // message, warning; for a step its linears: "q_proj,k_proj,v_proj"
  int64_t block = 0, blocks = 0;  // the block at work, from 0
  double fraction = 0;            // of the whole job's arithmetic
  double loss = 0;                // of the linear solved last
  double tokens_per_second = 0;   // tokens that passed a whole block
  double seconds = 0, remaining_seconds = 0;
  int64_t memory_bytes = 0;  // resident now
};
using ProgressFunction = std::function<void(const Progress&)>;

}  // namespace gptq
