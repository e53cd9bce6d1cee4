// Folders put in the place of others by renames, which the file system does as a whole or not at all.
#pragma once

#include <filesystem>

namespace gptq {

// `from` becomes `to`, which must not exist. Throws InputError, with `what` was tried.
void move_to(const std::filesystem::path& from, const std::filesystem::path& to, const char* what);
// `from` becomes `to`, and what was there becomes `from`; at every instant `to` is the one or the other. A file system
// that cannot exchange them has neither for an instant, and what was there becomes `aside`.
void exchange_with(const std::filesystem::path& from, const std::filesystem::path& to,
                   const std::filesystem::path& aside, const char* what);

}  // namespace gptq
