// The options of a Job, an Evaluation and a Generation as data, for front ends: names, kinds, defaults and help; set by
// name.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace gptq {

struct Evaluation;
struct Generation;
struct Job;

// `text` also stands for a number of bytes ("5GB") and for lists (names with commas, or JSON).
using OptionValue = std::variant<bool, int64_t, uint64_t, double, std::string>;

struct OptionInfo {
  enum class Kind : uint8_t { flag, integer, natural, number, text };
  enum class Group : uint8_t { calibration, recipe, devices, output, evaluation, generation };
  std::string key;  // "desc_act"
  Kind kind = Kind::text;
  Group group = Group::recipe;
  std::vector<std::string> words;  // that a text may be; empty: any
  std::string initial;             // the default, in words: "128", "0.5, at 2 bits 0.25"; empty: none
  // How a command line spells it, without dashes: "desc-act". A flag has a word that turns it on, one that turns it
  // off, or both; the others are empty.
  std::string on, off;
  std::string help, off_help;
  std::string more;  // sentences for a document
};

// In the order of help texts. A recipe file knows the recipe's by their keys.
const std::vector<OptionInfo>& job_options();
const std::vector<OptionInfo>& evaluation_options();
const std::vector<OptionInfo>& generation_options();

// Sets the option of this key. Throws InputError for a key that is not known, or a value that is not of its kind or
// words. Ranges, and options that contradict each other, are checked when the job runs.
void set_option(Job& job, std::string_view key, const OptionValue& value);
void set_option(Evaluation& evaluation, std::string_view key, const OptionValue& value);
void set_option(Generation& generation, std::string_view key, const OptionValue& value);

// A message with its options as a front end spells them: spell("desc_act", "") for `desc_act`, spell("sym", "false")
// for `sym=false`.
std::string spell_options(const std::string& text,
                          const std::function<std::string(std::string_view key, std::string_view value)>& spell);

}  // namespace gptq
