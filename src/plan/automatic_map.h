// Automatic device maps for a keyword, as in accelerate's get_balanced_memory() and infer_auto_device_map().
#pragma once

#include <string_view>

#include "plan/device_map.h"

namespace gptq {

inline constexpr std::string_view kMapWords[] = {"auto", "balanced", "balanced_low_0", "sequential"};
inline constexpr std::string_view kMapWordList = "auto, balanced, balanced_low_0, sequential";

// word: a keyword of kMapWords.
DeviceMap automatic_map(std::string_view word, const Machine& machine, const ModuleTree& tree,
                        const MaxMemory& max_memory);

}  // namespace gptq
