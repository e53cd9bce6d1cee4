// Options as rows of tables, one table for each struct that holds options. A member and its row are all that an option
// needs. Flags and help, recipe files, JSON, range checks, defaults by bits and docs/options.md come from here.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "gptq/gptq.h"
#include "io/checkpoint.h"

namespace gptq {

// A member as JSON. `set` throws InputError with a text that continues the option's name ("up: there are ..."), or an
// exception of the JSON library for a value of another kind.
template <typename Struct>
struct Access {
  OptionInfo::Kind kind = OptionInfo::Kind::text;
  std::vector<std::string> words;
  std::function<Json(const Struct&)> get;  // null where the member is empty
  std::function<void(Struct&, const Json&)> set;
};

// An option that has no default to show.
inline constexpr std::string_view kNoInitial = "-";

template <typename Struct>
struct Option {
  std::string_view key;
  Access<Struct> access;
  OptionInfo::Group group = OptionInfo::Group::recipe;
  // Help of the flag that sets a value or turns something on, and of the one that turns it off; empty: no such flag.
  std::string_view help, off_help;
  std::string_view on, off;  // flags whose words do not follow from the key: "desc-act" and "no-desc-act" do
  std::string_view initial;  // the default in words, where the member's own does not say it
  std::string_view more;     // sentences for docs/options.md
  bool (*fits)(const Struct&) = nullptr;    // whether the value lies in the range
  std::string_view range;                   // the range, as a message has it
  void (*decide)(Struct&) = nullptr;        // makes a choice that is left open
  bool (*counts)(const Struct&) = nullptr;  // whether the value has a meaning with the others; nullptr: always
  void (*implies)(Struct&) = nullptr;       // choices that a user makes with this one
  std::string_view alias;                   // another key in files
  bool recorded = false;                    // written into the config of an output, under its alias if it has one
};

// The rows of a struct, in the order of help texts. A Job's are those of its own members.
template <typename Struct>
const std::vector<Option<Struct>>& option_rows();
template <>
const std::vector<Option<Recipe>>& option_rows();
template <>
const std::vector<Option<Calibration>>& option_rows();
template <>
const std::vector<Option<Job>>& option_rows();
template <>
const std::vector<Option<Evaluation>>& option_rows();
template <>
const std::vector<Option<Generation>>& option_rows();

// Whether the choice of a row with `decide` is still to be made.
bool is_open(const Option<Recipe>& row, const Recipe& recipe);

// Throws InputError, about the option, for a value out of its range.
template <typename Struct>
void check_ranges(const Struct& options);

// The row for front ends.
template <typename Struct>
OptionInfo info_of(const Option<Struct>& option);

extern template void check_ranges(const Recipe&);
extern template void check_ranges(const Calibration&);
extern template void check_ranges(const Job&);
extern template void check_ranges(const Evaluation&);
extern template void check_ranges(const Generation&);
extern template OptionInfo info_of(const Option<Recipe>&);
extern template OptionInfo info_of(const Option<Calibration>&);
extern template OptionInfo info_of(const Option<Job>&);
extern template OptionInfo info_of(const Option<Evaluation>&);
extern template OptionInfo info_of(const Option<Generation>&);

}  // namespace gptq
