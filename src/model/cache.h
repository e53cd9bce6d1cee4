// What a model keeps of the tokens of one sequence, so that the next ones pass its blocks alone.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"

namespace gptq {

// Rows on a device, with room for more.
class CachedRows {
 public:
  // Puts rows behind the first `kept` ones, in the place of any that were there. Returns all kept + rows.rows of them,
  // valid until the next call.
  ConstMatrixView append(Backend& backend, int64_t kept, ConstMatrixView rows);

 private:
  Matrix rows_;
};

struct BlockCache {
  CachedRows keys, values;  // as attention multiplies them: normed, rotated; [tokens, kv_heads * head_dim]
  CachedRows mixer_inputs;  // [tokens, hidden] of a recurrent mixer, which passes them again
};

struct Cache {
  explicit Cache(int64_t block_count) : blocks(static_cast<size_t>(block_count)) {}

  int64_t tokens = 0;  // that have passed all blocks; fewer, to go back
  std::vector<BlockCache> blocks;
};

}  // namespace gptq
