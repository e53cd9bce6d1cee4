// gptq generate and gptq chat: new text on stdout as it comes, speeds on stderr.
#include <algorithm>
#include <iostream>
#include <string>

#include <nlohmann/json.hpp>
#include <unistd.h>

#include "commands.h"
#include "printing.h"
#include "terminal.h"

namespace gptq {
namespace {

double per_second(int64_t tokens, double seconds) { return seconds > 0 ? static_cast<double>(tokens) / seconds : 0; }

// The first token comes with the prompt.
double speed_of(const GeneratedText& text) { return per_second(text.tokens - 1, text.seconds); }

std::string speeds_of(const GeneratedText& text) {
  return formatted("%lld tokens, %.1f tokens/s (the prompt: %lld tokens, %.1f tokens/s)",
                   static_cast<long long>(text.tokens), speed_of(text), static_cast<long long>(text.prompt_tokens),
                   per_second(text.prompt_tokens, text.prompt_seconds));
}

void print_as_json(const GeneratedText& text) {
  const nlohmann::ordered_json json = {{"text", text.text},
                                       {"end", text.end},
                                       {"prompt_tokens", text.prompt_tokens},
                                       {"tokens", text.tokens},
                                       {"prompt_seconds", text.prompt_seconds},
                                       {"seconds", text.seconds},
                                       {"tokens_per_second", speed_of(text)}};
  print_json(text_of(json));
}

// A file or a pipe gets a model's text as it is; what a terminal would obey is spelled out there.
void print_piece(std::string_view piece) {
  if (isatty(STDOUT_FILENO) == 0) {
    write_stdout(piece);
  } else {
    for (size_t first = 0; first <= piece.size();) {
      const size_t end = std::min(piece.find_first_of("\n\t", first), piece.size());
      write_stdout(printable(piece.substr(first, end - first)) + std::string(piece.substr(end, 1)));
      first = end + 1;
    }
  }
  finish_stdout();
}

void end_line() {
  if (isatty(STDOUT_FILENO) != 0) write_stdout("\n");
}

void add_common_options(CLI::App& command, GenerationOptions& o) {
  command.add_option("MODEL", o.generation.model, "model folder, plain or quantized")->required();
  command.add_option("--stop", o.generation.stops, "a text that ends the new text; repeatable")
      ->allow_extra_args(false);
  o.given.add_to(command);
  command.add_flag("--quiet", o.quiet, "no messages, no speeds");
}

Terminal terminal_of(const GenerationOptions& options) {
  return Terminal(options.quiet ? Terminal::Verbosity::quiet : Terminal::Verbosity::normal);
}

}  // namespace

void add_generation_options(CLI::App& command, GenerationOptions& o) {
  command.add_option("--prompt", o.prompt, "the text to continue")->required();
  add_common_options(command, o);
  command.add_flag("--json", o.json, "print the text and its figures as JSON on stdout, nothing else there");
}

void add_chat_options(CLI::App& command, GenerationOptions& o) {
  command.add_option("--system", o.system, "a first message that tells the model what to be");
  add_common_options(command, o);
}

void run_generate(GenerationOptions& options, std::stop_token stop) {
  options.given.apply(options.generation);
  options.generation.stop = std::move(stop);
  Terminal terminal = terminal_of(options);
  const OnText on_text = options.json ? OnText() : OnText(print_piece);
  const GeneratedText text = generate(options.generation, options.prompt, on_text, terminal.listener());
  if (options.json) {
    print_as_json(text);
  } else {
    end_line();
  }
  finish_stdout();
  terminal.line(speeds_of(text));
}

void run_chat(GenerationOptions& options, std::stop_token stop) {
  options.given.apply(options.generation);
  options.generation.stop = std::move(stop);
  Terminal terminal = terminal_of(options);
  Conversation conversation(options.generation, options.system, terminal.listener());
  const bool is_typed = isatty(STDIN_FILENO) != 0;
  const auto ask = [&] {
    if (is_typed) std::cerr << "> " << std::flush;
  };
  if (is_typed) terminal.line("A line is a message; Ctrl-D ends.");
  ask();
  for (std::string line; std::getline(std::cin, line); ask()) {
    if (line.empty()) continue;
    const GeneratedText text = conversation.answer(line, print_piece);
    write_stdout("\n");
    finish_stdout();
    terminal.line(speeds_of(text));
  }
  if (is_typed) std::cerr << "\n";
}

}  // namespace gptq
