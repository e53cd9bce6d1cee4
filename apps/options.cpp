#include "options.h"

#include <algorithm>
#include <filesystem>

#include "inputs.h"

namespace gptq {
namespace {

// "[128]" where presets and recipe files have a say, "=128" where they have none.
bool shows_default_in_help(const OptionInfo& info) { return info.group == OptionInfo::Group::recipe; }

std::string help_of(const OptionInfo& info) {
  return shows_default_in_help(info) && !info.initial.empty() ? info.help + " [" + info.initial + "]" : info.help;
}

// The flag of an option, and of its value where there are two.
std::string flag_of(std::string_view key, std::string_view value) {
  for (const std::vector<OptionInfo>* list : {&job_options(), &evaluation_options(), &generation_options()}) {
    for (const OptionInfo& info : *list) {
      if (info.key != key) continue;
      if (value == "false" && !info.off.empty()) return "--" + info.off;
      if (!info.on.empty()) return "--" + info.on;
      if (!info.off.empty()) return "--" + info.off;
    }
  }
  std::string flag = "--" + std::string(key);  // the program's own
  std::replace(flag.begin(), flag.end(), '_', '-');
  return flag;
}

}  // namespace

std::optional<OptionValue> GivenOptions::Given::value() const {
  if (on && off)
    throw InputError("--" + info->on + " and --" + info->off + " contradict each other", {.option = info->key});
  if (on || off) return on;
  if (integer) return *integer;
  if (natural) return *natural;
  if (number) return *number;
  if (text) return *text;
  return std::nullopt;
}

GivenOptions::GivenOptions(const std::vector<OptionInfo>& options) {
  for (const OptionInfo& info : options) {
    given_.emplace_back();
    given_.back().info = &info;
  }
}

void GivenOptions::add_to(CLI::App& command) {
  for (Given& given : given_) {
    const OptionInfo& info = *given.info;
    const std::string names = "--" + info.on + (info.key == "device_map" ? ",--device" : "");
    const auto add = [&](auto& value) {
      CLI::Option* option = command.add_option(names, value, help_of(info));
      if (!shows_default_in_help(info) && !info.initial.empty()) option->default_str(info.initial);
    };
    using Kind = OptionInfo::Kind;
    if (info.kind == Kind::flag) {
      if (!info.on.empty()) command.add_flag("--" + info.on, given.on, help_of(info));
      if (!info.off.empty()) command.add_flag("--" + info.off, given.off, info.off_help);
    } else if (!info.on.empty()) {
      switch (info.kind) {
        case Kind::integer:
          add(given.integer);
          break;
        case Kind::natural:
          add(given.natural);
          break;
        case Kind::number:
          add(given.number);
          break;
        default:
          add(given.text);
      }
    }
  }
}

bool GivenOptions::has(std::string_view key) const {
  return std::any_of(given_.begin(), given_.end(),
                     [&](const Given& given) { return given.info->key == key && given.value().has_value(); });
}

template <typename Struct>
void GivenOptions::apply(Struct& target) const {
  for (const Given& given : given_) {
    if (const std::optional<OptionValue> value = given.value()) set_option(target, given.info->key, *value);
  }
}
template void GivenOptions::apply(Job&) const;
template void GivenOptions::apply(Evaluation&) const;
template void GivenOptions::apply(Generation&) const;

void add_job_options(CLI::App& command, QuantizeOptions& o) {
  command.add_option("MODEL", o.model, "Hugging Face model folder")->required();
  command.add_option("--preset", o.preset,
                     "default, best, paper or group-aware [default]; a recipe file and single options override it");
  command.add_option("--recipe", o.recipe_file,
                     "JSON file of such options by their names, with rules for single modules (dynamic), such as a "
                     "quantize_config.json; single options override it");
  o.given.add_to(command);
}

void add_run_options(CLI::App& command, QuantizeOptions& o) {
  command.add_option("OUT", o.output, "folder to write")->required();
  command.add_option("--report", o.report_file, "write the full report as JSON");
  command.add_flag("--json", o.json, "print the report as JSON on stdout, nothing else there");
  command.add_flag("--quiet", o.quiet, "no progress, no summary");
  command.add_flag("--verbose", o.verbose, "a line for every step and linear");
}

Job make_job(const QuantizeOptions& o) {
  if (o.quiet && o.verbose) throw InputError("`quiet` and `verbose` contradict each other");
  if (o.given.has("bits") && o.given.has("average_bits"))
    throw InputError("`bits` and `average_bits` contradict each other: name the one that is meant");
  Job job{.model = o.model, .output = o.output};
  job.recipe = recipe_preset(o.preset.value_or("default"));
  if (!o.recipe_file.empty()) job.recipe = read_recipe(o.recipe_file, job.recipe);
  o.given.apply(job);
  if (job.recipe.method == Method::rtn) {
    if (o.given.has("scale_search") && job.recipe.scale_search == ScaleSearch::diag)
      throw InputError("`scale_search` diag needs a Hessian, and `method` rtn has none: use mse or minmax");
    if (o.given.has("desc_act"))
      throw InputError("`desc_act` orders GPTQ's columns, and `method` rtn has no order: drop one");
  }
  return job;
}

void refuse_to_replace_inputs(const QuantizeOptions& options, const Job& job) {
  namespace fs = std::filesystem;
  std::error_code ignored;  // what is not there is not read
  Inputs inputs;
  inputs.add_folder("the model", job.model);
  inputs.add_output("the output", job.output);
  inputs.add_file("the calibration file", job.calibration.file);
  const fs::path beside = fs::path(job.model) / ".." / "calibration.txt";  // read where none is named
  if (job.calibration.file.empty() && fs::exists(beside, ignored)) inputs.add_file("the calibration file", beside);
  inputs.add_file("the recipe", options.recipe_file);
  if (fs::is_regular_file(job.device_map, ignored)) inputs.add_file("the device map", job.device_map);
  inputs.refuse_file("report", options.report_file);
  inputs.refuse_folder("spill_dir", job.spill_dir);
}

std::string with_flags(const std::string& text) { return spell_options(text, flag_of); }

void spell_flags(Plan& plan) {
  for (std::vector<std::string>* texts : {&plan.messages, &plan.warnings}) {
    for (std::string& text : *texts) text = with_flags(text);
  }
  for (LoaderVerdict& verdict : plan.loaders) verdict.reason = with_flags(verdict.reason);
}

void spell_flags(Report& report) {
  for (std::string& text : report.warnings) text = with_flags(text);
  spell_flags(report.plan);
}

}  // namespace gptq
