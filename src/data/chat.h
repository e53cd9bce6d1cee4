// Chats rendered to text, for the chat templates that most models have; templates are Jinja programs, and no others are
// run.
#pragma once

#include <filesystem>
#include <span>
#include <string>

namespace gptq {

struct ChatMessage {
  std::string role, content;
};

class ChatTemplate {
 public:
  // Reads the template of a model folder: chat_template.jinja, or "chat_template" of tokenizer_config.json. Throws
  // InputError where there is none, and UnsupportedError for one whose output is not known; both say to render the
  // messages to text first.
  explicit ChatTemplate(const std::filesystem::path& folder);

  // The text of a whole chat without a prompt for another turn, equal to apply_chat_template(messages, tokenize=False).
  // It has all its special tokens. Throws InputError for messages that the template refuses, UnsupportedError for roles
  // whose rendering is not known.
  std::string render(std::span<const ChatMessage> messages) const;

 private:
  enum class Kind { kChatMl, kQwen3, kLlama3, kLlama2 };
  void recognize(const std::string& source, const std::string& file);
  std::string render_chat_ml(std::span<const ChatMessage> messages) const;
  std::string render_qwen3(std::span<const ChatMessage> messages) const;
  std::string render_llama3(std::span<const ChatMessage> messages) const;
  std::string render_llama2(std::span<const ChatMessage> messages) const;

  Kind kind_ = Kind::kChatMl;
  std::string default_system_;  // ChatML: the system message of a chat that has none; empty for none
  std::string bos_, eos_;
};

}  // namespace gptq
