#include "io/digest.h"

#include <cstdio>
#include <new>

#define XXH_INLINE_ALL
#include <xxhash.h>

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

std::string hex_digest(std::string_view data) {
  const XXH128_hash_t hash = XXH3_128bits(data.data(), data.size());
  char text[33];
  std::snprintf(text, sizeof text, "%016llx%016llx", static_cast<unsigned long long>(hash.high64),
                static_cast<unsigned long long>(hash.low64));
  return text;
}

}  // namespace gptq
