// The decisions of a plan: where hidden states are stored, whether step inputs are kept, whether the next block is read
// ahead.
#pragma once

#include <cstdint>
#include <string_view>

namespace gptq {

// Where hidden states are stored between steps.
enum class StatePlace : uint8_t { device, host, spill };

constexpr std::string_view name_of(StatePlace place) {
  constexpr std::string_view kNames[] = {"device", "host", "spill"};
  return kNames[static_cast<size_t>(place)];
}

struct Strategy {
  StatePlace states = StatePlace::device;
  bool keeps_inputs = true;  // keeps the inputs of steps; otherwise they are recomputed
  bool read_ahead = true;    // reads the next block while this one computes
  bool checks = true;        // checks the output at the end, if the job asks for that
};

}  // namespace gptq
