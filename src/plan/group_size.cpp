#include "plan/group_size.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "base/error.h"
#include "model/specs.h"
#include "recipe/rules.h"

namespace gptq {
namespace {

// The linears whose group size is that of the recipe.
std::vector<LinearSpec> open_linears(const Recipe& recipe, const ModelConfig& config) {
  std::vector<LinearSpec> open;
  const auto add = [&](const LinearSpec& linear, bool is_quantized) {
    if (!is_quantized) return;
    const ModuleRule* rule = rule_for(recipe.dynamic, linear.name);
    if (rule == nullptr || !rule->group_size) open.push_back(linear);
  };
  for (const auto& step : all_steps(config)) {
    for (const LinearSpec& linear : step) add(linear, recipe_for(recipe, linear.name).has_value());
  }
  const LinearSpec head = head_spec(config);
  add(head, recipe_for_head(recipe, head.name).has_value());
  return open;
}

// The first of the linears whose inputs this size does not divide, or null.
const LinearSpec* first_odd(const std::vector<LinearSpec>& linears, int64_t size) {
  const auto odd = std::find_if(linears.begin(), linears.end(),
                                [&](const LinearSpec& linear) { return linear.in_features % size != 0; });
  return odd == linears.end() ? nullptr : &*odd;
}

std::string inputs_of(const LinearSpec& linear) { return cat("the ", linear.in_features, " inputs of ", linear.name); }

[[noreturn]] void refuse(const std::vector<LinearSpec>& linears) {
  int64_t common = 0;
  for (const LinearSpec& linear : linears) common = std::gcd(common, linear.in_features);
  std::string sizes;
  for (const int64_t size : {16, 8}) {
    if (common % size == 0) sizes += cat(size, ", ");
  }
  const LinearSpec& odd = *first_odd(linears, kGroupSizes.back());
  throw InputError(cat("`group_size` auto: none of 128, 64 and 32 divides ", inputs_of(odd), ": give `group_size` ",
                       sizes, sizes.empty() ? "" : "or ", "-1 (one group a row), or a rule that skips it"),
                   {.option = "group_size", .file = {}, .tensor = odd.name});
}

}  // namespace

std::string settle_group_size(Recipe& recipe, const ModelConfig& config) {
  if (recipe.group_size) return {};
  const std::vector<LinearSpec> linears = open_linears(recipe, config);
  const LinearSpec* odd = nullptr;  // for the size before
  for (const int64_t size : kGroupSizes) {
    const LinearSpec* of_this = first_odd(linears, size);
    if (of_this == nullptr) {
      recipe.group_size = size;
      return odd == nullptr ? cat("group size: ", size, ", which divides the inputs of all linears")
                            : cat("group size: ", size, ", as ", 2 * size, " does not divide ", inputs_of(*odd));
    }
    odd = of_this;
  }
  refuse(linears);
}

}  // namespace gptq
