// Sizes as people write them.
#pragma once

#include <cstdint>
#include <string>

namespace gptq {

int64_t parse_bytes(const std::string& text);  // "5GB", "800MiB", "123"; throws InputError
std::string format_bytes(double bytes);        // "1.23 GB" (powers of 1000, as file sizes are)

}  // namespace gptq
