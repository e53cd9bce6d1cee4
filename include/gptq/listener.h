// Messages and progress of work that takes its time.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace gptq {

enum class Level : uint8_t { message, warning };

struct Progress {
  std::string text;               // the linears of the step at work: "q_proj,k_proj,v_proj"
  int64_t block = 0, blocks = 0;  // the block at work, from 0
  double fraction = 0;            // of the whole job's arithmetic
  double loss = 0;                // of the linear solved last
  double tokens_per_second = 0;   // tokens that passed a whole block
  double seconds = 0, remaining_seconds = 0;
  int64_t memory_bytes = 0;  // resident now
};

// Called on the thread that works; either may be empty. Texts name options as errors do (gptq/error.h).
struct Listener {
  std::function<void(Level level, const std::string& text)> on_message;
  std::function<void(const Progress& progress)> on_progress;
};

}  // namespace gptq
