// Text from a plain or a quantized folder, to look at what a model writes.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "gptq/listener.h"

namespace gptq {

struct Generation {
  std::string model;
  int64_t tokens = 128;                // new ones, at most
  double temperature = 0;              // 0: always the most likely token
  int64_t top_k = 0;                   // chooses among so many of the most likely tokens; 0: all
  double top_p = 1;                    // and among the fewest that have this probability together
  uint64_t seed = 0;                   // same seed, same text
  std::vector<std::string> stops;      // texts that end the new text, and are not part of it
  std::string device_map, max_memory;  // as those of Evaluation
  std::string precision = "auto";      // as that of Job
  std::string ignore_config_keys;      // as that of Job
  int threads = 0;                     // 0: all cores
  std::stop_token stop;
};

struct GeneratedText {
  std::string text;           // new
  std::string end;            // why it ended: "eos", "stop", "tokens" or "positions" (the model has no more)
  int64_t prompt_tokens = 0;  // computed: without those that an earlier answer left
  int64_t tokens = 0;         // new, with the one that ended the text
  double prompt_seconds = 0, seconds = 0;  // until the first new token is known; from there to the end
};

// Called with each new piece of text, which is whole characters of UTF-8.
using OnText = std::function<void(std::string_view piece)>;

// Continues a prompt. Throws InputError for an empty one, and for one that leaves no position for a new token.
GeneratedText generate(const Generation& generation, const std::string& prompt, const OnText& on_text = {},
                       const Listener& listener = {});

// Turns of a user and a model, by the model's chat template.
class Conversation {
 public:
  // system: the first message; empty: none. Throws InputError for a model without a template.
  Conversation(const Generation& generation, const std::string& system, const Listener& listener = {});
  ~Conversation();
  Conversation(const Conversation&) = delete;
  Conversation& operator=(const Conversation&) = delete;

  GeneratedText answer(const std::string& message, const OnText& on_text = {});

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace gptq
