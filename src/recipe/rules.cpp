#include "recipe/rules.h"

#include <algorithm>
#include <array>
#include <map>
#include <memory>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <nlohmann/json.hpp>
#include <pcre2.h>

#include "base/error.h"
#include "io/json_numbers.h"

namespace gptq {
namespace {

// A pattern as Python's re.match takes it.
class Pattern {
 public:
  Pattern(const std::string& pattern, const std::string& where) {
    int error = 0;
    size_t offset = 0;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_ANCHORED | PCRE2_UTF,
                              &error, &offset, nullptr));
    if (code_) return;
    std::array<PCRE2_UCHAR, 256> text{};
    pcre2_get_error_message(error, text.data(), text.size());
    throw InputError(cat(where, ": '", pattern, "' is no regular expression: ", reinterpret_cast<char*>(text.data()),
                         " at character ", offset));
  }

  bool matches(const std::string& text) const {
    const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data(
        pcre2_match_data_create_from_pattern(code_.get(), nullptr), &pcre2_match_data_free);
    return pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0, 0, data.get(), nullptr) >
           0;
  }

 private:
  std::unique_ptr<pcre2_code, decltype(&pcre2_code_free)> code_{nullptr, &pcre2_code_free};
};

constexpr const char* kDynamic = "dynamic";

Recipe with(Recipe recipe, const ModuleRule& rule) {
  recipe.bits = rule.bits.value_or(recipe.bits);
  if (rule.group_size) recipe.group_size = rule.group_size;
  recipe.sym = rule.sym.value_or(recipe.sym);
  if (rule.desc_act && *rule.desc_act != recipe.desc_act) {
    recipe.desc_act = *rule.desc_act;
    recipe.static_groups = !recipe.desc_act;
    if (recipe.desc_act) recipe.order = Order::diagonal;
  }
  return recipe;
}

bool is_selected(const Recipe& recipe, const std::string& module) {
  if (recipe.modules_in_block_to_quantize.empty()) return true;
  for (const auto& names : recipe.modules_in_block_to_quantize) {
    for (const std::string& name : names) {
      if (module.size() > name.size() && module.ends_with("." + name)) return true;
    }
  }
  return false;
}

// Special characters of a name, escaped.
std::string escaped(const std::string& name) {
  std::string pattern;
  for (const char c : name) {
    const bool plain = std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '-' || c == '/';
    pattern += plain ? std::string(1, c) : std::string("\\") + c;
  }
  return pattern;
}

// One of these words, as a pattern.
std::string one_of(const std::vector<std::string>& words) {
  std::string all;
  for (const std::string& word : words) all += (all.empty() ? "" : "|") + word;
  return words.size() == 1 ? all : cat("(?:", all, ")");
}

bool is_number(const std::string& word) {
  return !word.empty() && std::all_of(word.begin(), word.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// "model.layers.3.mlp.up_proj" in three parts: "model.layers.", "3", ".mlp.up_proj"; without a number all of it is the
// first.
std::array<std::string, 3> parts_of(const std::string& module) {
  for (size_t start = 0; start < module.size();) {
    const size_t end = std::min(module.find('.', start), module.size());
    if (const std::string word = module.substr(start, end - start); is_number(word))
      return {module.substr(0, start), word, module.substr(end)};
    start = end + 1;
  }
  return {module, "", ""};
}

// A module's recipe by the rules alone.
std::optional<ResolvedRecipe> ruled(const Recipe& recipe, const std::string& module) {
  const ModuleRule* rule = rule_for(recipe.dynamic, module);
  if (rule != nullptr && rule->skip) return std::nullopt;
  return resolve(rule != nullptr ? with(recipe, *rule) : recipe);
}

}  // namespace

std::optional<ResolvedRecipe> recipe_for(const Recipe& recipe, const std::string& module) {
  return is_selected(recipe, module) ? ruled(recipe, module) : std::nullopt;
}

std::optional<ResolvedRecipe> recipe_for_head(const Recipe& recipe, const std::string& head) {
  return recipe.lm_head ? ruled(recipe, head) : std::nullopt;
}

std::vector<std::optional<ResolvedRecipe>> recipes_for(const Recipe& recipe, const std::vector<LinearSpec>& step) {
  std::vector<std::optional<ResolvedRecipe>> recipes;
  for (const LinearSpec& linear : step) recipes.push_back(recipe_for(recipe, linear.name));
  return recipes;
}

std::string name_in_any_block(const std::string& module) {
  const auto [before, number, after] = parts_of(module);
  return number.empty() ? module : cat(before, "*", after);
}

bool matches(const ModuleRule& rule, const std::string& module) {
  return Pattern(rule.pattern, kDynamic).matches(module);
}

const ModuleRule* rule_for(const std::vector<ModuleRule>& rules, const std::string& module) {
  const auto rule = std::find_if(rules.begin(), rules.end(), [&](const auto& each) { return matches(each, module); });
  return rule == rules.end() ? nullptr : &*rule;
}

void validate_rules(const Recipe& recipe) {
  for (const ModuleRule& rule : recipe.dynamic) {
    const Pattern compiles(rule.pattern, kDynamic);
    if (rule.skip) continue;
    try {
      validate(with(recipe, rule));
    } catch (const InputError& error) {
      throw InputError(cat("for the modules of the rule '", rule.pattern, "': ", error.what()), error.subject());
    }
  }
}

bool fit_together(const std::optional<ResolvedRecipe>& a, const std::optional<ResolvedRecipe>& b) {
  if (!a || !b) return !a && !b;
  return a->bits == b->bits && a->group_size == b->group_size && a->sym == b->sym && a->desc_act == b->desc_act;
}

std::vector<std::string> patterns_of(const std::vector<std::string>& modules) {
  // Block numbers by what stands around them; then what has equal numbers side by side.
  std::map<std::pair<std::string, std::string>, std::vector<std::string>> numbers;
  for (const std::string& module : modules) {
    const auto [before, number, after] = parts_of(module);
    numbers[{escaped(before), escaped(after)}].push_back(number);
  }
  std::map<std::pair<std::string, std::vector<std::string>>, std::vector<std::string>> ends;
  for (const auto& [around, list] : numbers) ends[{around.first, list}].push_back(around.second);
  std::vector<std::string> patterns;
  for (const auto& [start, list] : ends) patterns.push_back(cat(start.first, one_of(start.second), one_of(list), "$"));
  return patterns;
}

std::vector<ModuleRule> with_fused_names(const Recipe& recipe, const StepSpecs& steps) {
  std::vector<std::pair<const ModuleRule*, std::vector<std::string>>> added;  // nullptr: what holds without a rule
  for (const auto& step : steps) {
    std::map<std::string, std::vector<std::string>> fused;
    for (const LinearSpec& linear : step) {
      if (!linear.fused.empty()) fused[linear.fused].push_back(linear.name);
    }
    for (const auto& [name, parts] : fused) {
      const std::optional<ResolvedRecipe> wanted = ruled(recipe, parts[0]);
      const bool equal = std::all_of(parts.begin(), parts.end(), [&](const std::string& part) {
        return fit_together(wanted, ruled(recipe, part));
      });
      if (!equal || fit_together(wanted, ruled(recipe, name))) continue;
      const ModuleRule* rule = rule_for(recipe.dynamic, parts[0]);
      auto entry = std::find_if(added.begin(), added.end(), [&](const auto& other) { return other.first == rule; });
      if (entry == added.end()) {
        added.emplace_back(rule, std::vector<std::string>());
        entry = added.end() - 1;
      }
      entry->second.push_back(name);
    }
  }
  std::vector<ModuleRule> rules;
  for (const auto& [rule, names] : added) {
    for (const std::string& pattern : patterns_of(names)) {
      rules.push_back(rule != nullptr ? *rule : ModuleRule{});
      rules.back().pattern = pattern;
    }
  }
  rules.insert(rules.end(), recipe.dynamic.begin(), recipe.dynamic.end());
  return rules;
}

std::vector<ModuleRule> parse_rules(const Json& dynamic, const std::string& where, bool lenient) {
  std::vector<ModuleRule> rules;
  if (dynamic.is_null() || (dynamic.is_boolean() && !dynamic.get<bool>())) return rules;
  const std::string prefix = where.empty() ? "" : where + ": ";
  if (!dynamic.is_object())
    throw InputError(cat(prefix, "rules are an object of patterns, such as {\"-:.*down_proj\": {}}"));
  for (const auto& [key, overrides] : dynamic.items()) {
    ModuleRule rule{.pattern = key};
    rule.skip = key.starts_with("-:");
    if (rule.skip || key.starts_with("+:")) rule.pattern = key.substr(2);
    const auto fail = [&, &key = key](const std::string& what) {
      throw InputError(cat(prefix, "'", key, "': ", what));
    };
    if (!overrides.is_object() && !overrides.is_null()) fail("its overrides are an object, such as {\"bits\": 8}");
    try {
      for (const auto& [name, value] : overrides.items()) {
        if (name == "bits")
          rule.bits = whole_number<int>(value);
        else if (name == "group_size")
          rule.group_size = whole_number<int64_t>(value);
        else if (name == "sym")
          rule.sym = value.get<bool>();
        else if (name == "desc_act")
          rule.desc_act = value.get<bool>();
        else if (!lenient && !rule.skip)
          fail(cat("there is no override ", name, "; there are bits, group_size, sym and desc_act"));
      }
    } catch (const nlohmann::json::exception&) {
      fail("bits and group_size are whole numbers, sym and desc_act true or false");
    }
    rules.push_back(std::move(rule));
  }
  return rules;
}

Json to_json(const std::vector<ModuleRule>& rules) {
  Json dynamic = Json::object();
  for (const ModuleRule& rule : rules) {
    Json overrides = Json::object();
    if (rule.bits) overrides["bits"] = *rule.bits;
    if (rule.group_size) overrides["group_size"] = *rule.group_size;
    if (rule.sym) overrides["sym"] = *rule.sym;
    if (rule.desc_act) overrides["desc_act"] = *rule.desc_act;
    dynamic.emplace((rule.skip ? "-:" : "+:") + rule.pattern, std::move(overrides));
  }
  return dynamic;
}

}  // namespace gptq
