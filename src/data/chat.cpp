// Recognizes chat templates by the expressions that produce their output, and renders the same output natively.
#include "data/chat.h"

#include <algorithm>
#include <string_view>
#include <system_error>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/message.h"
#include "data/tokenizer/unicode.h"
#include "io/file.h"
#include "io/json.h"

namespace gptq {
namespace {

using nlohmann::json;

constexpr std::string_view kWayOut = "render the messages to text first and give them as \"text\"";

bool contains(std::string_view text, std::string_view part) { return text.find(part) != text.npos; }

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  std::string replaced;
  size_t copied = 0;
  for (size_t at = text.find(from); at != text.npos; at = text.find(from, copied)) {
    replaced.append(text, copied, at - copied).append(to);
    copied = at + from.size();
  }
  if (copied > 0) text = replaced.append(text, copied);
}

// A template in canonical form: no white space outside strings, strings joined and in single quotes with newlines as
// \n, attributes as .name, no white space control.
std::string canonical(std::string_view source) {
  std::string text;
  char quote = 0;
  for (char c : source) {
    bool is_quote = c == '"' || c == '\'';
    if (quote == 0 && std::isspace(static_cast<unsigned char>(c))) continue;
    if (quote != 0 && c == '\n') {
      text += "\\n";
      continue;
    }
    if (is_quote && (quote == 0 || quote == c)) {
      quote = quote == 0 ? c : 0;
      c = '\'';
    }
    text += c;
  }
  for (auto [from, to] : {std::pair{"{%-", "{%"},
                          {"-%}", "%}"},
                          {"{{-", "{{"},
                          {"-}}", "}}"},
                          {"['role']", ".role"},
                          {"['content']", ".content"},
                          {"'+'", ""},
                          {".strip()", "|trim"}})
    replace_all(text, from, to);
  return text;
}

// The text between `before` and `after`, or "".
std::string between(std::string_view text, std::string_view before, std::string_view after) {
  for (size_t at = text.find(before); at != text.npos; at = text.find(before, at + 1)) {
    const std::string_view rest = text.substr(at + before.size());
    const size_t end = rest.substr(0, std::min(rest.find('\''), rest.size()) + after.size()).find(after);
    if (end != rest.npos) return std::string(rest.substr(0, end));
  }
  return "";
}

// Python's str.strip().
std::string_view strip(std::string_view text) {
  auto is_space = [](char32_t c) { return is_whitespace(c) || (c >= 0x1c && c <= 0x1f); };
  size_t start = 0, end = text.size();
  for (size_t at = 0; start < end && is_space(next_character(text, at));) start = at;
  for (size_t at = end; end > start && is_space(previous_character(text, at));) end = at;
  return text.substr(start, end - start);
}

std::string_view strip_newlines(std::string_view text, bool left, bool right) {
  while (left && text.starts_with('\n')) text.remove_prefix(1);
  while (right && text.ends_with('\n')) text.remove_suffix(1);
  return text;
}

// The string that an object has under a key; "" if there is none.
std::string string_in(const json& object, const char* key) {
  if (!object.is_object()) return "";
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

// "bos_token" or a similar key: a text, or an object with one. Empty if absent.
std::string token_text(const json& config, const char* name) {
  if (!config.is_object() || !config.contains(name)) return "";
  const json& token = config.at(name);
  return token.is_object() ? string_in(token, "content") : string_in(config, name);
}

// "chat_template": a template, or a list of named ones with a "default". Empty if absent.
std::string template_in(const json& config) {
  if (!config.is_object() || !config.contains("chat_template")) return "";
  const json& source = config.at("chat_template");
  if (source.is_string()) return source.get<std::string>();
  for (const json& named : source)
    if (string_in(named, "name") == "default") return string_in(named, "template");
  return "";
}

bool has_system(std::span<const ChatMessage> messages) { return !messages.empty() && messages[0].role == "system"; }

}  // namespace

ChatTemplate::ChatTemplate(const std::filesystem::path& folder) {
  std::filesystem::path config_file = folder / "tokenizer_config.json", jinja_file = folder / "chat_template.jinja";
  const json config = is_there(config_file) ? parse_json<json>(read_text(config_file, kMaxTokenizerBytes), config_file)
                                            : json::object();
  bos_ = token_text(config, "bos_token"), eos_ = token_text(config, "eos_token");
  std::error_code error;
  if (std::filesystem::is_regular_file(jinja_file, error)) {
    recognize(read_text(jinja_file, kMaxConfigBytes), jinja_file.string());
  } else if (std::string source = template_in(config); !source.empty()) {
    recognize(source, config_file.string());
  } else {
    throw InputError(
        cat("\"messages\" need a chat template, and ", folder.string(),
            " has none (no chat_template.jinja and no \"chat_template\" in tokenizer_config.json): ", kWayOut));
  }
}

void ChatTemplate::recognize(const std::string& source, const std::string& file) {
  std::string text = canonical(source);
  auto has = [&](std::string_view part) { return contains(text, part); };
  auto has_none = [&](std::initializer_list<std::string_view> parts) {
    return std::none_of(parts.begin(), parts.end(), has);
  };

  if (has("ns.last_query_index") &&
      has("'\\n<think>\\n'+reasoning_content.strip('\\n')+'\\n</think>\\n\\n'+content.lstrip('\\n')") &&
      has("{%ifloop.lastor(notloop.lastandreasoning_content)%}")) {
    kind_ = Kind::kQwen3;
  } else if (has("{{'<|im_start|>'+message.role+'\\n'+message.content+'<|im_end|>\\n'}}") &&
             has_none({"think", "trim", "strip(", "strftime", "bos_token", "eos_token"})) {
    kind_ = Kind::kChatMl;
    default_system_ = between(text, "{{'<|im_start|>system\\n", "<|im_end|>\\n'}}");
    replace_all(default_system_, "\\n", "\n");
  } else if (has("'<|start_header_id|>'+message.role+'<|end_header_id|>\\n\\n'+message.content|trim+'<|eot_id|>'") &&
             has("bos_token") && has_none({"strftime", "date_string", "system_message"})) {
    kind_ = Kind::kLlama3;
  } else if (has("{{bos_token+'[INST] '+content|trim+' [/INST]'}}") && has("{{' '+content|trim+' '+eos_token}}") &&
             has("'<<SYS>>\\n'+system_message+'\\n<</SYS>>\\n\\n'+message.content") &&
             has_none({"USE_DEFAULT_PROMPT", "eliftrue==true"})) {
    kind_ = Kind::kLlama2;
  } else {
    throw UnsupportedError(cat("the chat template in ", file,
                               " is not one of the supported ones (ChatML, Qwen3, Llama-3, Llama-2): ", kWayOut));
  }
}

std::string ChatTemplate::render(std::span<const ChatMessage> messages) const {
  for (const ChatMessage& message : messages)
    if (message.role != "system" && message.role != "user" && message.role != "assistant")
      throw UnsupportedError(
          cat("the role \"", excerpt(message.role), "\" is not supported (system, user and assistant are): ", kWayOut));
  switch (kind_) {
    case Kind::kChatMl:
      return render_chat_ml(messages);
    case Kind::kQwen3:
      return render_qwen3(messages);
    case Kind::kLlama3:
      return render_llama3(messages);
    case Kind::kLlama2:
      break;
  }
  return render_llama2(messages);
}

std::string ChatTemplate::render_chat_ml(std::span<const ChatMessage> messages) const {
  std::string text;
  if (!default_system_.empty() && !has_system(messages))
    text = cat("<|im_start|>system\n", default_system_, "<|im_end|>\n");
  for (const ChatMessage& message : messages)
    text += cat("<|im_start|>", message.role, "\n", message.content, "<|im_end|>\n");
  return text;
}

// As ChatML, but keeps thoughts only after the last question; there the last answer has them even if empty.
std::string ChatTemplate::render_qwen3(std::span<const ChatMessage> messages) const {
  auto is_question = [](const ChatMessage& message) {
    return message.role == "user" &&
           !(message.content.starts_with("<tool_response>") && message.content.ends_with("</tool_response>"));
  };
  size_t last_question = messages.size() - 1;
  for (size_t i = messages.size(); i-- > 0;)
    if (is_question(messages[i])) {
      last_question = i;
      break;
    }

  constexpr std::string_view kOpen = "<think>", kClose = "</think>";
  std::string text;
  for (size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    std::string_view content = message.content, thoughts;
    if (message.role == "assistant" && contains(content, kClose)) {
      thoughts = strip_newlines(content.substr(0, content.find(kClose)), false, true);
      if (size_t open = thoughts.rfind(kOpen); open != thoughts.npos) thoughts.remove_prefix(open + kOpen.size());
      thoughts = strip_newlines(thoughts, true, false);
      content = strip_newlines(content.substr(content.rfind(kClose) + kClose.size()), true, false);
    }
    text += cat("<|im_start|>", message.role, "\n");
    if (message.role == "assistant" && i > last_question && (i + 1 == messages.size() || !thoughts.empty())) {
      text += cat("<think>\n", strip_newlines(thoughts, true, true), "\n</think>\n\n");
      content = strip_newlines(content, true, false);
    }
    text += cat(content, "<|im_end|>\n");
  }
  return text;
}

std::string ChatTemplate::render_llama3(std::span<const ChatMessage> messages) const {
  std::string text = bos_;
  for (const ChatMessage& message : messages)
    text += cat("<|start_header_id|>", message.role, "<|end_header_id|>\n\n", strip(message.content), "<|eot_id|>");
  return text;
}

std::string ChatTemplate::render_llama2(std::span<const ChatMessage> messages) const {
  std::string text, system;
  if (has_system(messages)) {
    system = cat("<<SYS>>\n", messages[0].content, "\n<</SYS>>\n\n");
    messages = messages.subspan(1);
  }
  for (size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].role != (i % 2 == 0 ? "user" : "assistant"))
      throw InputError(cat("message ", i + 1, " is of role \"", excerpt(messages[i].role),
                           "\" where this chat template needs user and assistant in turns"));
    std::string content = i == 0 ? system + messages[i].content : messages[i].content;
    text += i % 2 == 0 ? cat(bos_, "[INST] ", strip(content), " [/INST]") : cat(" ", strip(content), " ", eos_);
  }
  return text;
}

}  // namespace gptq
