// The public view of the option tables (gptq/options.h), with the formats there are.
#include <algorithm>
#include <cctype>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "format/format.h"
#include "gptq/gptq.h"
#include "recipe/option.h"

namespace gptq {
namespace {

template <typename Struct>
void append(std::vector<OptionInfo>& list) {
  for (const Option<Struct>& row : option_rows<Struct>()) list.push_back(info_of(row));
}

// The words of checkpoint_format are the registry's.
void describe_formats(OptionInfo& info) {
  Recipe with_zeros;
  with_zeros.sym = false;
  info.words = format_names();
  info.on = "checkpoint-format";
  for (const std::string& name : info.words) {
    if (name != info.initial) info.help += (info.help.empty() ? "" : ", ") + name;
  }
  info.help +=
      cat("; ", info.initial, ": ", format_of({}).name(), ", or ", format_of(with_zeros).name(), " with zero points");
}

std::vector<OptionInfo> all_job_options() {
  std::vector<OptionInfo> list;
  append<Calibration>(list);
  append<Recipe>(list);
  append<Job>(list);
  for (OptionInfo& info : list) {
    if (info.key == "checkpoint_format") describe_formats(info);
  }
  return list;
}

Json json_of(const OptionValue& value) {
  return std::visit([](const auto& held) { return Json(held); }, value);
}

// Whether the struct has an option of this key, which then has the value.
template <typename Struct>
bool set_in(Struct& options, std::string_view key, const Json& value) {
  for (const Option<Struct>& row : option_rows<Struct>()) {
    if (row.key != key) continue;
    try {
      row.access.set(options, value);
    } catch (const nlohmann::json::exception&) {
      throw option_error(key, ": its value is of another kind than the option's");
    } catch (const InputError& error) {
      throw option_error(key, " ", error.what());
    }
    if (row.implies != nullptr) row.implies(options);
    return true;
  }
  return false;
}

bool is_key(char c) {
  return std::islower(static_cast<unsigned char>(c)) != 0 || std::isdigit(static_cast<unsigned char>(c)) != 0 ||
         c == '_';
}

}  // namespace

const std::vector<OptionInfo>& job_options() {
  static const std::vector<OptionInfo> list = all_job_options();
  return list;
}

const std::vector<OptionInfo>& evaluation_options() {
  static const std::vector<OptionInfo> list = [] {
    std::vector<OptionInfo> rows;
    append<Evaluation>(rows);
    return rows;
  }();
  return list;
}

const std::vector<OptionInfo>& generation_options() {
  static const std::vector<OptionInfo> list = [] {
    std::vector<OptionInfo> rows;
    append<Generation>(rows);
    return rows;
  }();
  return list;
}

void set_option(Job& job, std::string_view key, const OptionValue& value) {
  const Json json = json_of(value);
  const bool known = set_in(job.calibration, key, json) || set_in(job.recipe, key, json) || set_in(job, key, json);
  if (!known) throw option_error(key, ": there is no such option");
  if (key == "checkpoint_format") format_of(job.recipe);  // refuses a name that is not known
}

void set_option(Evaluation& evaluation, std::string_view key, const OptionValue& value) {
  if (!set_in(evaluation, key, json_of(value))) throw option_error(key, ": there is no such option");
}

void set_option(Generation& generation, std::string_view key, const OptionValue& value) {
  if (!set_in(generation, key, json_of(value))) throw option_error(key, ": there is no such option");
}

std::string spell_options(const std::string& text,
                          const std::function<std::string(std::string_view key, std::string_view value)>& spell) {
  std::string result;
  size_t at = 0;
  for (;;) {
    const size_t open = text.find('`', at), close = open == text.npos ? text.npos : text.find('`', open + 1);
    if (close == text.npos) return result + text.substr(at);
    const std::string_view inside = std::string_view(text).substr(open + 1, close - open - 1);
    const size_t equals = inside.find('=');
    const std::string_view key = inside.substr(0, equals);
    result.append(text, at, open - at);
    if (key.empty() || !std::all_of(key.begin(), key.end(), is_key)) {  // no option: its second mark may open another
      result += '`';
      at = open + 1;
      continue;
    }
    result += spell(key, equals == inside.npos ? std::string_view() : inside.substr(equals + 1));
    at = close + 1;
  }
}

}  // namespace gptq
