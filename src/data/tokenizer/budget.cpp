#include "data/tokenizer/budget.h"

#include "base/error.h"

namespace gptq {
namespace {

constexpr uint64_t kSteps = uint64_t{1} << 28, kStepsPerByte = 1024;
constexpr uint64_t kGrowth = uint64_t{1} << 20, kGrowthPerByte = 32;  // a character has at most 18 in a normal form

}  // namespace

Budget::Budget(size_t bytes)
    : bytes_(bytes), steps_(kSteps + kStepsPerByte * bytes), growth_(kGrowth + kGrowthPerByte * bytes) {}

void Budget::refuse_steps(const std::string& part) const {
  throw InputError(cat(part, " takes too long for a text of ", bytes_, " bytes: more than ",
                       kSteps + kStepsPerByte * bytes_, " steps, where a real tokenizer takes some tens for a byte"));
}

void Budget::refuse_growth(const std::string& part) const {
  throw InputError(cat(part, " makes a text of ", bytes_, " bytes longer by more than ",
                       kGrowth + kGrowthPerByte * bytes_, " bytes, which no real tokenizer does"));
}

}  // namespace gptq
