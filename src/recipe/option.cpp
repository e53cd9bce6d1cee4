#include "recipe/option.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace gptq {
namespace {

// A value as people read it.
std::string text_of(const Json& value) { return value.is_string() ? value.get<std::string>() : value.dump(); }

std::string with_dashes(std::string key) {
  std::replace(key.begin(), key.end(), '_', '-');
  return key;
}

}  // namespace

bool is_open(const Option<Recipe>& row, const Recipe& recipe) {
  const Json value = row.access.get(recipe);
  return value.is_null() || value == "";
}

template <typename Struct>
void check_ranges(const Struct& options) {
  for (const Option<Struct>& row : option_rows<Struct>()) {
    if (row.fits == nullptr || row.fits(options)) continue;
    throw option_error(row.key, " ", text_of(row.access.get(options)), ": ", row.range);
  }
}

template <typename Struct>
OptionInfo info_of(const Option<Struct>& row) {
  OptionInfo info{.key = std::string(row.key), .kind = row.access.kind, .group = row.group, .words = row.access.words};
  const Json value = row.access.get(Struct{});
  if (row.initial != kNoInitial && !row.initial.empty())
    info.initial = row.initial;
  else if (row.initial.empty() && info.kind != OptionInfo::Kind::flag && !value.is_null())
    info.initial = text_of(value);
  if (!row.help.empty()) info.on = row.on.empty() ? with_dashes(info.key) : std::string(row.on);
  if (!row.off_help.empty()) info.off = row.off.empty() ? "no-" + with_dashes(info.key) : std::string(row.off);
  info.help = row.help;
  info.off_help = row.off_help;
  info.more = row.more;
  return info;
}

template void check_ranges(const Recipe&);
template void check_ranges(const Calibration&);
template void check_ranges(const Job&);
template void check_ranges(const Evaluation&);
template void check_ranges(const Generation&);
template OptionInfo info_of(const Option<Recipe>&);
template OptionInfo info_of(const Option<Calibration>&);
template OptionInfo info_of(const Option<Job>&);
template OptionInfo info_of(const Option<Evaluation>&);
template OptionInfo info_of(const Option<Generation>&);

}  // namespace gptq
