// Unpacks gzip files in memory.
#pragma once

#include <string>
#include <string_view>

namespace gptq {

bool is_gzip(std::string_view bytes);

// The contents of a gzip file, which may have several members (RFC 1952). Throws InputError, which `name` starts, for a
// broken one, and for one that is far larger unpacked than texts are, as it may have been made to fill the memory.
std::string gunzip(std::string_view bytes, const std::string& name);

}  // namespace gptq
