// Chat templates. Parts of an input: tokenizer_config.json, chat_template.jinja, and a chat: an object as in a line of
// a .jsonl, or the content of messages.
#include <nlohmann/json.hpp>

#include "data/chat.h"
#include "data/tokenizer/unicode.h"
#include "fuzz/fuzz.h"

using namespace gptq;

namespace {

Json message(const std::string& role, const Json& content) { return {{"role", role}, {"content", content}}; }

std::vector<Chat> chats_of(const std::string& text) {
  const Json given = find_deeper(text) == text.npos ? Json::parse(text, nullptr, false) : Json();
  if (given.is_object()) {
    return {{.messages = given.value("messages", Json()),
             .tools = given.value("tools", Json()),
             .documents = given.value("documents", Json()),
             .variables = given.value("chat_template_kwargs", Json())}};
  }
  const Json content = lossy_utf8(text), part = {{"type", "text"}, {"text", content}};
  return {{.messages = Json::array({message("system", content), message("user", "a"), message("assistant", content)})},
          {.messages = Json::array({message("user", Json::array({part})), message("tool", content)}),
           .tools = Json::array({part})}};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parts = fuzz::parts_of(data, size, 3);
  fuzz::folder().write("tokenizer_config.json", parts[0]);
  fuzz::folder().write("chat_template.jinja", parts[1]);
  fuzz::may_refuse([&] {
    ChatTemplate chat(fuzz::folder().path());
    for (const Chat& given : chats_of(parts[2])) fuzz::may_refuse([&] { chat.render(given); });
  });
  return 0;
}
