// States between two blocks in a file, so that a later run need not compute them again.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "run/states.h"

namespace gptq {

// Writes the residuals of all batches of the stores, one store after the other, and returns the file's digest. The
// states are on `backend` or on the host, and stay there. Throws InputError if the disk is full. Does not sync.
uint64_t save_states(const std::filesystem::path& file, const std::vector<StateStore*>& stores, Backend& backend);

// Replaces the residuals of stores with as many batches of the same shapes. False, and nothing is replaced, if the
// file is missing or not the one with this digest.
bool restore_states(const std::filesystem::path& file, uint64_t digest, const std::vector<StateStore*>& stores,
                    Backend& backend);

}  // namespace gptq
