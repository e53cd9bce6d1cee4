// Chat templates. Parts of an input: tokenizer_config.json, chat_template.jinja, the content of a message.
#include "data/chat.h"
#include "fuzz/fuzz.h"

using namespace gptq;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parts = fuzz::parts_of(data, size, 3);
  fuzz::folder().write("tokenizer_config.json", parts[0]);
  fuzz::folder().write("chat_template.jinja", parts[1]);
  fuzz::may_refuse([&] {
    const ChatTemplate chat(fuzz::folder().path());
    const std::string& content = parts[2];
    for (const auto& messages : std::vector<std::vector<ChatMessage>>{
             {{"user", content}},
             {{"system", content}, {"user", "a"}, {"assistant", content}, {"user", content}, {"assistant", content}},
             {{"assistant", content}, {"tool", content}},
             {{content, "a"}}})
      fuzz::may_refuse([&] { chat.render(messages); });
  });
  return 0;
}
