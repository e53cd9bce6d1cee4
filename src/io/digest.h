// Checksums that tell whether data are those of before: XXH3 of 64 bits, and of 128 bits as text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace gptq {

// Of data that come in pieces; the same as of all at once.
class Digest {
 public:
  Digest();
  ~Digest();
  Digest(const Digest&) = delete;
  Digest& operator=(const Digest&) = delete;
  void add(const void* data, size_t bytes);
  uint64_t value() const;

 private:
  void* state_;
};

uint64_t digest(const void* data, size_t bytes);
// Of bytes [offset, offset + bytes) of a file, read in pieces. Throws InputError as read_all() does.
uint64_t digest_of(int descriptor, const std::filesystem::path& path, size_t bytes, size_t offset = 0);
std::string hex_digest(std::string_view data);  // 32 characters

}  // namespace gptq
