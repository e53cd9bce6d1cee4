// Writes docs/options.md, from the tables of options, to stdout.
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "gptq/gptq.h"

namespace gptq {
namespace {

using Group = OptionInfo::Group;

// In a Markdown table: its columns are cut at bars.
std::string cell(const std::string& text) {
  std::string result;
  for (const char c : text) result += c == '|' ? std::string("\\|") : std::string(1, c);
  return result;
}

std::string sentence(std::string text) {
  if (!text.empty() && text.back() != '.') text += '.';
  return text;
}

std::string flags_of(const OptionInfo& info) {
  std::string flags;
  for (const std::string& word : {info.on, info.off}) {
    if (!word.empty()) flags += (flags.empty() ? "`--" : ", `--") + word + "`";
  }
  return flags.empty() ? "" : flags;
}

std::string text_of(const OptionInfo& info) {
  std::string text = sentence(info.help);
  if (!info.off_help.empty()) text += (text.empty() ? "" : " Off: ") + sentence(info.off_help);
  if (!info.more.empty()) text += " " + info.more;
  return text;
}

void write(const char* title, const std::vector<OptionInfo>& options, Group group) {
  std::printf("\n## %s\n\n| flag | key | default | |\n|---|---|---|---|\n", title);
  for (const OptionInfo& info : options) {
    if (info.group != group || info.help.empty() + info.off_help.empty() == 2) continue;
    const std::string initial = !info.initial.empty() ? info.initial : info.kind == OptionInfo::Kind::flag ? "off" : "";
    const bool turns_off_only = info.kind == OptionInfo::Kind::flag && info.on.empty();
    std::printf("| %s | `%s` | %s | %s |\n", flags_of(info).c_str(), info.key.c_str(),
                turns_off_only ? "on" : cell(initial).c_str(), cell(text_of(info)).c_str());
  }
}

}  // namespace
}  // namespace gptq

int main() {
  using gptq::Group;
  std::printf(
      "# Options\n\n"
      "Written by `tools/option_table` from the tables in `src/recipe/options.cpp`; a test fails where it is stale.\n\n"
      "`gptq quantize` and `gptq plan` take the flags. A recipe file takes the keys of the recipe, and so does\n"
      "`set_option()` of the library all keys. Names and meanings are those of Optimum's `GPTQQuantizer` where it has\n"
      "them. `--preset` and `--recipe FILE` give a whole recipe ([recipes](recipes.md)); single flags override it, and "
      "a\n"
      "file may also hold `dynamic`, the rules for single modules.\n");
  gptq::write("Calibration", gptq::job_options(), Group::calibration);
  gptq::write("Recipe", gptq::job_options(), Group::recipe);
  gptq::write("Devices and memory", gptq::job_options(), Group::devices);
  gptq::write("Output", gptq::job_options(), Group::output);
  gptq::write("Evaluation", gptq::evaluation_options(), Group::evaluation);
  std::printf(
      "\n`gptq eval` and `gptq compare` also take `--device-map`, `--max-memory`, `--precision` and `--threads`.\n");
}
