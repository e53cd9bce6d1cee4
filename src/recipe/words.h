// The words of a recipe's choices, as files and front ends have them. Each stands here and nowhere else.
#pragma once

#include <array>
#include <string_view>

#include "gptq/recipe.h"

namespace gptq {

template <typename Choice>
struct Word {
  std::string_view word;
  Choice choice;
};

constexpr auto words_of(Method /*kind*/) {
  return std::array<Word<Method>, 2>{{{"gptq", Method::gptq}, {"rtn", Method::rtn}}};
}
constexpr auto words_of(ScaleSearch /*kind*/) {
  return std::array<Word<ScaleSearch>, 3>{
      {{"diag", ScaleSearch::diag}, {"mse", ScaleSearch::mse}, {"minmax", ScaleSearch::minmax}}};
}
constexpr auto words_of(Order /*kind*/) {
  return std::array<Word<Order>, 3>{
      {{"diagonal", Order::diagonal}, {"group-aware", Order::group_aware}, {"natural", Order::natural}}};
}
constexpr auto words_of(Targets /*kind*/) {
  return std::array<Word<Targets>, 3>{
      {{"weights", Targets::weights}, {"corrected", Targets::corrected}, {"gptaq", Targets::gptaq}}};
}

template <typename Choice>
concept HasWords = requires(Choice choice) {
  words_of(choice);
};

template <HasWords Choice>
constexpr std::string_view name_of(Choice choice) {
  for (const auto& [word, meant] : words_of(choice)) {
    if (meant == choice) return word;
  }
  return "?";
}

}  // namespace gptq
