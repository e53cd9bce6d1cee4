// Renders chats to text. Chat templates are Jinja programs, which are not run: the common ones are recognized and
// rendered natively, others are refused.
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
  // InputError if there is none, UnsupportedError if it is not recognized; both say to render the messages to text
  // first.
  explicit ChatTemplate(const std::filesystem::path& folder);

  // The text of a whole chat with all special tokens, without a prompt for another turn; equal to
  // apply_chat_template(messages, tokenize=False). Throws InputError for messages that the template refuses,
  // UnsupportedError for other roles.
  std::string render(std::span<const ChatMessage> messages) const;

 private:
  enum class Kind { kChatMl, kQwen3, kLlama3, kLlama2 };
  void recognize(const std::string& source, const std::string& file);
  std::string render_chat_ml(std::span<const ChatMessage> messages) const;
  std::string render_qwen3(std::span<const ChatMessage> messages) const;
  std::string render_llama3(std::span<const ChatMessage> messages) const;
  std::string render_llama2(std::span<const ChatMessage> messages) const;

  Kind kind_ = Kind::kChatMl;
  std::string default_system_;  // ChatML: the system message of chats without one, or empty
  std::string bos_, eos_;
};

}  // namespace gptq
