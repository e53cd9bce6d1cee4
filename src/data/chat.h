// Renders chats to text with the model's chat template, as transformers' apply_chat_template() does.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include <nlohmann/json.hpp>

#include "data/jinja/template.h"
#include "io/json.h"

namespace gptq {

struct Chat {
  Json messages;             // objects with "role", mostly "content" (a string or a list of parts), and any other keys
  Json tools = nullptr;      // null, or a list of JSON schemas
  Json documents = nullptr;  // null, or a list
  Json variables = nullptr;  // null, or an object with more variables of the template
};

class ChatTemplate {
 public:
  // Reads the template of a model folder, the first of: chat_template.jinja, "chat_template" of tokenizer_config.json,
  // chat_template.json; and the one named "tool_use", for chats with tools, if there are several or it is in
  // additional_chat_templates. Throws InputError if there is none, UnsupportedError if it cannot be run; both say to
  // render the messages to text first. `today` is what strftime_now() gives: a fixed date, so that a calibration can be
  // repeated; it is the one that Llama 3's template has for chats without a date.
  explicit ChatTemplate(const std::filesystem::path& folder, const jinja::Date& today = {});
  // Whether a model folder has one, of whatever kind.
  static bool exists(const std::filesystem::path& folder);

  // The text of a whole chat with all special tokens, without a prompt for another turn; equal to
  // apply_chat_template(messages, tools, documents, tokenize=False, **variables). Throws InputError for what the
  // template refuses, UnsupportedError for what it uses and is not supported.
  std::string render(Chat chat);

 private:
  ChatTemplate() = default;
  // A template, parsed when it is first used.
  struct Source {
    std::string file, text;
    std::unique_ptr<jinja::Template> parsed;
    jinja::Template& get();
  };
  void add_sources(const std::filesystem::path& folder, const Json& config);
  void add_named(const Json& holder, const std::filesystem::path& file);
  bool is_missing() const { return default_.text.empty() && tool_use_.text.empty(); }
  [[noreturn]] void fail_missing(const std::filesystem::path& folder) const;

  Source default_, tool_use_;  // without text if there is none
  Json special_tokens_;        // by their names: {"bos_token": "<s>", ...}
  jinja::Date today_;
};

}  // namespace gptq
