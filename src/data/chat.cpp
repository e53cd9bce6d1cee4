#include "data/chat.h"

#include <initializer_list>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "data/message.h"
#include "data/tokenizer/unicode.h"
#include "io/file.h"

namespace gptq {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kWayOut = "render the messages to text first and give them as \"text\"";

// A file's JSON object; an empty one if there is no such file, or something else in it.
Json object_of(const fs::path& file, size_t limit) {
  Json object = is_there(file) ? parse_json<Json>(read_text(file, limit), file) : Json::object();
  return object.is_object() ? object : Json::object();
}

// A template file: UTF-8.
std::string template_file(const fs::path& file) {
  std::string text = read_text(file, kMaxConfigBytes);
  if (const int64_t offset = invalid_utf8_offset(text); offset >= 0)
    throw file_error(file, "not valid UTF-8 at byte ", offset);
  return text;
}

bool is_regular(const fs::path& file) { return type_of(file) == fs::file_type::regular; }

// Adds the tokens of an object that have names: keys that end in _token, with a text or an object that has one.
void add_tokens(const Json& object, bool all_keys, Json& tokens) {
  if (!object.is_object()) return;
  for (const auto& [key, value] : object.items()) {
    if (!all_keys && !key.ends_with("_token")) continue;
    const std::string text = value.is_object() ? string_in(value, "content") : string_in(object, key);
    if (value.is_string() || !text.empty()) tokens[key] = text;
  }
}

// transformers drops keys without a value, and gives thoughts under both of their common names.
Json normalized(const Json& message) {
  Json made = Json::object();
  for (const auto& [key, value] : message.items())
    if (!value.is_null()) made[key] = value;
  for (const char* key : {"reasoning_content", "thinking", "reasoning"}) {
    const auto found = made.find(key);
    if (found == made.end()) continue;
    const Json thoughts = *found;
    Json with_thoughts = {{"thinking", thoughts}};
    for (const auto& [name, value] : made.items()) with_thoughts[name] = value;
    with_thoughts["reasoning_content"] = thoughts;
    return with_thoughts;
  }
  return made;
}

Json normalized_messages(const Json& messages) {
  if (!messages.is_array() || messages.empty())
    throw InputError("\"messages\" is not an array of at least one message");
  Json made = Json::array();
  for (const Json& message : messages) {
    if (!message.is_object())
      throw InputError(cat("a message is ", excerpt_of(message), " where an object with \"role\" was expected"));
    made.push_back(normalized(message));
  }
  return made;
}

void require_objects(const Json& list, const char* name) {
  if (list.is_null()) return;
  bool all = list.is_array();
  for (const Json& item : list) all = all && item.is_object();
  if (!all) throw InputError(cat("\"", name, "\" is not an array of objects"));
}

}  // namespace

ChatTemplate::ChatTemplate(const fs::path& folder, const jinja::Date& today) : today_(today) {
  const Json config = object_of(folder / "tokenizer_config.json", kMaxTokenizerBytes);
  special_tokens_ = Json::object();
  add_tokens(config, false, special_tokens_);
  for (const char* key : {"extra_special_tokens", "model_specific_special_tokens"})
    if (config.contains(key)) add_tokens(config.at(key), true, special_tokens_);
  if (!config.contains("added_tokens_decoder"))
    add_tokens(object_of(folder / "special_tokens_map.json", kMaxConfigBytes), false, special_tokens_);
  add_sources(folder, config);
  if (is_missing()) fail_missing(folder);
  if (!default_.text.empty()) default_.get();
}

bool ChatTemplate::exists(const fs::path& folder) {
  ChatTemplate found;
  found.add_sources(folder, object_of(folder / "tokenizer_config.json", kMaxTokenizerBytes));
  return !found.is_missing();
}

void ChatTemplate::add_sources(const fs::path& folder, const Json& config) {
  if (const fs::path file = folder / "chat_template.jinja"; is_regular(file)) {
    default_.file = file.string();
    default_.text = template_file(file);
  }
  if (const fs::path file = folder / "additional_chat_templates" / "tool_use.jinja"; is_regular(file)) {
    tool_use_.file = file.string();
    tool_use_.text = template_file(file);
  }
  if (!default_.text.empty()) return;
  add_named(config, folder / "tokenizer_config.json");
  if (const fs::path file = folder / "chat_template.json"; default_.text.empty() && is_regular(file))
    add_named(object_of(file, kMaxConfigBytes), file);
}

// "chat_template": a template, or a list of named ones.
void ChatTemplate::add_named(const Json& holder, const fs::path& file) {
  const auto found = holder.find("chat_template");
  if (found == holder.end()) return;
  const auto add = [&](Source& source, const std::string& text) {
    if (text.empty()) return;
    source.file = file.string();
    source.text = text;
  };
  if (found->is_string()) return add(default_, found->get<std::string>());
  for (const Json& named : *found) {
    const std::string name = string_in(named, "name");
    if (name == "default") add(default_, string_in(named, "template"));
    if (name == "tool_use" && tool_use_.text.empty()) add(tool_use_, string_in(named, "template"));
  }
}

void ChatTemplate::fail_missing(const fs::path& folder) const {
  throw InputError(
      cat("\"messages\" need a chat template, and ", folder.string(),
          " has none (no chat_template.jinja and no \"chat_template\" in tokenizer_config.json): ", kWayOut));
}

jinja::Template& ChatTemplate::Source::get() {
  if (parsed != nullptr) return *parsed;
  try {
    parsed = std::make_unique<jinja::Template>(text);
  } catch (const InputError& error) {
    throw UnsupportedError(cat("the chat template in ", file, " cannot be used: ", error.what(), ": ", kWayOut));
  }
  return *parsed;
}

std::string ChatTemplate::render(Chat chat) {
  require_objects(chat.tools, "tools");
  require_objects(chat.documents, "documents");
  Source& source = !chat.tools.is_null() && !tool_use_.text.empty() ? tool_use_ : default_;
  if (source.text.empty())
    throw InputError(cat("the only chat template in ", tool_use_.file, " is for chats with \"tools\": ", kWayOut));
  Json variables = special_tokens_;
  variables["add_generation_prompt"] = false;
  if (!chat.variables.is_null() && !chat.variables.is_object())
    throw InputError("\"chat_template_kwargs\" is not an object");
  for (const auto& [name, value] : chat.variables.items()) variables[name] = value;
  variables["messages"] = normalized_messages(chat.messages);
  variables["tools"] = std::move(chat.tools);
  variables["documents"] = std::move(chat.documents);
  const jinja::Template& program = source.get();
  try {
    return program.render(variables, today_);
  } catch (const UnsupportedError& error) {
    throw UnsupportedError(cat("the chat template in ", source.file, ", ", error.what(), ": ", kWayOut));
  } catch (const InputError& error) {
    throw InputError(cat("the chat template in ", source.file, ", ", error.what()));
  }
}

}  // namespace gptq
