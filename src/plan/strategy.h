// What a plan decides: where hidden states wait, whether step inputs are kept with them, whether the next block is read
// ahead.
#pragma once

#include <cstdint>
#include <string_view>

namespace gptq {

// Where hidden states wait between their turns.
enum class StatePlace : uint8_t { device, host, spill };

constexpr std::string_view name_of(StatePlace place) {
  constexpr std::string_view kNames[] = {"device", "host", "spill"};
  return kNames[static_cast<size_t>(place)];
}

struct Strategy {
  StatePlace states = StatePlace::device;
  bool keeps_inputs = true;  // of steps, with the residuals; otherwise they are computed again
  bool read_ahead = true;    // the next block is read while this one computes
};

}  // namespace gptq
