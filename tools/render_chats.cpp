// Renders chats with a model's chat template, for comparison with transformers (compare_chat_templates.py).
//   render_chats FOLDER < chats.jsonl
// Each line of stdin has "messages", and perhaps "tools", "documents" and "chat_template_kwargs". Each line of stdout
// has the "text", or why there is none: "refused" by the template, or "unsupported".
#include <iostream>
#include <string>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/chat.h"

using gptq::Json;

namespace {

Json rendered(const std::string& folder, const std::string& line) {
  Json chat = Json::parse(line);
  try {
    return {{"text", gptq::ChatTemplate(folder).render({.messages = chat.value("messages", Json()),
                                                        .tools = chat.value("tools", Json()),
                                                        .documents = chat.value("documents", Json()),
                                                        .variables = chat.value("chat_template_kwargs", Json())})}};
  } catch (const gptq::UnsupportedError& error) {
    return {{"unsupported", error.what()}};
  } catch (const gptq::InputError& error) {
    return {{"refused", error.what()}};
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: render_chats FOLDER < chats.jsonl\n";
    return 2;
  }
  for (std::string line; std::getline(std::cin, line);) std::cout << rendered(argv[1], line).dump() << '\n';
  return 0;
}
