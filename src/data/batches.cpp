#include "data/batches.h"

#include <algorithm>

namespace gptq {

std::vector<std::vector<TokenSequence>> make_batches(const std::vector<TokenSequence>& sequences, int64_t batch_size,
                                                     int64_t batch_tokens) {
  std::vector<std::vector<TokenSequence>> batches;
  for (const TokenSequence& sequence : sequences) {
    const auto length = static_cast<int64_t>(sequence.size());
    const int64_t limit =
        batch_size > 0 ? batch_size : std::max<int64_t>(1, batch_tokens / std::max<int64_t>(length, 1));
    const bool fits = !batches.empty() && batches.back()[0].size() == sequence.size() &&
                      static_cast<int64_t>(batches.back().size()) < limit;
    if (!fits) batches.emplace_back();
    batches.back().push_back(sequence);
  }
  return batches;
}

int64_t count_tokens(const std::vector<TokenSequence>& sequences) {
  int64_t tokens = 0;
  for (const TokenSequence& sequence : sequences) tokens += static_cast<int64_t>(sequence.size());
  return tokens;
}

}  // namespace gptq
