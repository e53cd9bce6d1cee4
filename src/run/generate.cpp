// tokenize() and generate(): token ids of a text, and greedy continuation of a prompt.
#include <algorithm>
#include <utility>

#include "base/error.h"
#include "gptq/gptq.h"
#include "run/forward.h"

namespace gptq {

std::vector<TokenSequence> tokenize(const std::string& model, const std::string& text, std::stop_token stop,
                                    const std::string& text_key) {
  return read_documents({.file = text,
                         .tokenizer = tokenizer_of(model),
                         .stop = std::move(stop),
                         .key = text_key,
                         .key_option = "text_key"});
}

std::string generate(const std::string& model, const std::string& prompt, int64_t tokens, int threads,
                     std::stop_token stop) {
  const Resources resources = find_resources("");
  Devices devices(resources, threads);
  std::vector<Notice> notices;
  OpenModel opened(model, {.stop = stop}, resources, devices, notices);
  const Tokenizer tokenizer(opened.checkpoint().folder());
  std::vector<TokenSequence> sequence{tokenizer.encode(prompt)};
  if (sequence[0].empty()) throw InputError("the prompt is empty");
  for (int64_t i = 0; i < tokens; ++i) {
    const auto states = opened.forward({sequence}, true);
    const Batch& batch = states->at(0, opened.head());
    const Matrix logits = opened.model().output_head().logits(batch, batch.tokens() - 1, 1);
    const std::vector<float> row = to_host<float>(opened.head(), logits);
    sequence[0].push_back(static_cast<int32_t>(std::max_element(row.begin(), row.end()) - row.begin()));
  }
  return tokenizer.decode(sequence[0]);
}

}  // namespace gptq
