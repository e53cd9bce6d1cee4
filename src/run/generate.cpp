// tokenize(), generate() and Conversation: token ids of a text, the continuation of a prompt, and turns of a chat.
#include "gptq/generate.h"

#include <algorithm>
#include <optional>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/stopwatch.h"
#include "data/chat.h"
#include "gptq/gptq.h"
#include "recipe/option.h"
#include "run/sampler.h"
#include "run/text_model.h"
#include "run/text_stream.h"

namespace gptq {
namespace {

void check(const Generation& generation) {
  check_ranges(generation);
  for (const std::string& stop : generation.stops) {
    if (stop.empty()) throw option_error("stop", " is an empty text: leave it out, or give the text to stop at");
  }
}

// The new tokens that a prompt leaves positions for.
int64_t room_for(const TokenSequence& prompt, int64_t positions) {
  const auto length = static_cast<int64_t>(prompt.size());
  if (length == 0) throw option_error("prompt", " is empty: give the text to continue");
  if (length < positions) return positions - length;
  throw option_error("prompt", " has ", length, " tokens, and the model has ", positions,
                     " positions for them and the new ones (max_position_embeddings): shorten it");
}

GeneratedText continued(TextModel& model, const Tokenizer& tokenizer, const Generation& generation, Sampler& sampler,
                        TokenSequence tokens, const OnText& on_text) {
  const int64_t room = room_for(tokens, model.positions()), most = std::min(generation.tokens, room);
  GeneratedText result;
  TextStream stream(tokenizer, tokens, generation.stops, on_text);
  Stopwatch watch;
  std::vector<float> logits = model.next_logits(tokens);
  result.prompt_tokens = model.computed();
  result.prompt_seconds = watch.seconds();
  watch = {};
  for (;;) {
    const int32_t token = sampler.choose(logits);
    tokens.push_back(token);
    ++result.tokens;
    const std::vector<int32_t>& ends = model.end_tokens();
    if (std::find(ends.begin(), ends.end(), token) != ends.end()) {
      result.end = "eos";
    } else if (!stream.add(token)) {
      result.end = "stop";
    } else if (result.tokens == most) {
      result.end = most == generation.tokens ? "tokens" : "positions";
    }
    if (!result.end.empty()) break;
    logits = model.next_logits(tokens);
  }
  stream.finish();
  result.seconds = watch.seconds();
  result.text = stream.text();
  return result;
}

void check_chat(const Generation& generation) {
  check(generation);
  if (ChatTemplate::exists(generation.model)) return;
  throw InputError(cat(generation.model,
                       ": a chat needs a chat template, and there is none (no chat_template.jinja and no "
                       "\"chat_template\" in tokenizer_config.json): add one, or continue a `prompt` without it"),
                   {.option = {}, .file = generation.model, .tensor = {}});
}

}  // namespace

std::vector<TokenSequence> tokenize(const std::string& model, const std::string& text, std::stop_token stop,
                                    const std::string& text_key) {
  return read_documents({.file = text,
                         .tokenizer = tokenizer_of(model),
                         .stop = std::move(stop),
                         .key = text_key,
                         .key_option = "text_key"});
}

GeneratedText generate(const Generation& generation, const std::string& prompt, const OnText& on_text,
                       const Listener& listener) {
  check(generation);
  if (prompt.empty()) throw option_error("prompt", " is empty: give the text to continue");
  TextModel model(generation, listener);
  const Tokenizer tokenizer(model.checkpoint().folder());
  Sampler sampler(generation);
  return continued(model, tokenizer, generation, sampler, tokenizer.encode(prompt), on_text);
}

struct Conversation::State {
  State(const Generation& generation, const std::string& system, const Listener& listener)
      : generation((check_chat(generation), generation)),
        chat_template(generation.model),
        model(generation, listener),
        tokenizer(model.checkpoint().folder()),
        sampler(generation) {
    if (!system.empty()) add("system", system);
  }
  void add(const char* role, const std::string& text) { messages.push_back({{"role", role}, {"content", text}}); }

  const Generation generation;
  ChatTemplate chat_template;
  TextModel model;
  Tokenizer tokenizer;
  Sampler sampler;
  Json messages = Json::array();
};

Conversation::Conversation(const Generation& generation, const std::string& system, const Listener& listener)
    : state_(std::make_unique<State>(generation, system, listener)) {}

Conversation::~Conversation() = default;

GeneratedText Conversation::answer(const std::string& message, const OnText& on_text) {
  State& state = *state_;
  state.add("user", message);
  const std::string text =
      state.chat_template.render({.messages = state.messages, .variables = {{"add_generation_prompt", true}}});
  GeneratedText answer = continued(state.model, state.tokenizer, state.generation, state.sampler,
                                   state.tokenizer.encode(text, false), on_text);
  state.add("assistant", answer.text);
  return answer;
}

}  // namespace gptq
