// A model that continues token sequences, one after the other, and keeps what the last one left.
#pragma once

#include <string>
#include <vector>

#include "base/resources.h"
#include "gptq/generate.h"
#include "run/forward.h"

namespace gptq {

class TextModel {
 public:
  // Throws InputError as OpenModel does. Of `generation` it takes the model, the devices and the stop token.
  TextModel(const Generation& generation, const Listener& listener);

  const Checkpoint& checkpoint() const { return opened_.checkpoint(); }
  // Of a text, with its prompt.
  int64_t positions();
  // Tokens that end a text: those of generation_config.json and of config.json.
  const std::vector<int32_t>& end_tokens() const { return end_tokens_; }

  // Logits [vocabulary] of the token that follows these. Computes the tokens that the sequence before it did not begin
  // with, all at once; the last one at least.
  std::vector<float> next_logits(const TokenSequence& tokens);
  // Tokens that the last call computed.
  int64_t computed() const { return computed_; }

 private:
  const Resources resources_;
  Devices devices_;
  std::vector<Notice> notices_;
  OpenModel opened_;
  Cache cache_;
  TokenSequence cached_;  // the tokens of the cache
  std::vector<int32_t> end_tokens_;
  int64_t computed_ = 0;
};

}  // namespace gptq
