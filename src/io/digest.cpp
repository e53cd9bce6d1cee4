#include "io/digest.h"

#include <algorithm>
#include <cstdio>
#include <new>
#include <vector>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "io/file.h"

namespace gptq {

Digest::Digest() : state_(XXH3_createState()) {
  if (state_ == nullptr) throw std::bad_alloc();
  XXH3_64bits_reset(static_cast<XXH3_state_t*>(state_));
}
Digest::~Digest() { XXH3_freeState(static_cast<XXH3_state_t*>(state_)); }
void Digest::add(const void* data, size_t bytes) {
  XXH3_64bits_update(static_cast<XXH3_state_t*>(state_), data, bytes);
}
uint64_t Digest::value() const { return XXH3_64bits_digest(static_cast<const XXH3_state_t*>(state_)); }

uint64_t digest(const void* data, size_t bytes) { return XXH3_64bits(data, bytes); }

uint64_t digest_of(int descriptor, const std::filesystem::path& path, size_t bytes, size_t offset) {
  constexpr size_t kPiece = size_t{4} << 20;
  Digest digest;
  std::vector<std::byte> piece(std::min(bytes, kPiece));
  for (size_t done = 0; done < bytes; done += piece.size()) {
    piece.resize(std::min(piece.size(), bytes - done));
    read_all(descriptor, path, piece.data(), piece.size(), offset + done);
    digest.add(piece.data(), piece.size());
  }
  return digest.value();
}

std::string hex_digest(std::string_view data) {
  const XXH128_hash_t hash = XXH3_128bits(data.data(), data.size());
  char text[33];
  std::snprintf(text, sizeof text, "%016llx%016llx", static_cast<unsigned long long>(hash.high64),
                static_cast<unsigned long long>(hash.low64));
  return text;
}

}  // namespace gptq
