// Options as data: the lists, setting by name, and options in messages.
#include <functional>

#include <gtest/gtest.h>

#include "base/error.h"
#include "format/format.h"
#include "gptq/gptq.h"

namespace gptq {
namespace {

std::string refusal(const std::function<void()>& call) {
  try {
    call();
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

const OptionInfo& info_of(const std::string& key) {
  for (const OptionInfo& info : job_options()) {
    if (info.key == key) return info;
  }
  throw std::out_of_range(key);
}

TEST(PublicOptions, SayKindDefaultAndFlags) {
  EXPECT_EQ(info_of("bits").kind, OptionInfo::Kind::integer);
  EXPECT_EQ(info_of("bits").initial, "4");
  EXPECT_EQ(info_of("bits").on, "bits");
  EXPECT_EQ(info_of("alpha").initial, "0.5, at 2 bits 0.25");
  EXPECT_EQ(info_of("sym").on, "");
  EXPECT_EQ(info_of("sym").off, "asym");
  EXPECT_EQ(info_of("static_groups").off, "no-static-groups");
  EXPECT_EQ(info_of("order").words, (std::vector<std::string>{"diagonal", "group-aware", "natural"}));
  EXPECT_EQ(info_of("checkpoint_format").words, format_names());
  EXPECT_EQ(info_of("loader").on, "for");
  EXPECT_EQ(info_of("average_bits").initial, "");
}

TEST(PublicOptions, KeysAndFlagsAreNamedOnce) {
  for (const std::vector<OptionInfo>* list : {&job_options(), &evaluation_options()}) {
    std::vector<std::string> keys, flags;
    for (const OptionInfo& info : *list) {
      keys.push_back(info.key);
      for (const std::string& flag : {info.on, info.off}) {
        if (!flag.empty()) flags.push_back(flag);
      }
    }
    for (std::vector<std::string>* names : {&keys, &flags}) {
      std::sort(names->begin(), names->end());
      EXPECT_EQ(std::adjacent_find(names->begin(), names->end()), names->end());
    }
  }
}

TEST(PublicOptions, AreSetByName) {
  Job job;
  set_option(job, "bits", int64_t{3});
  set_option(job, "order", std::string("group-aware"));
  set_option(job, "sym", false);
  set_option(job, "alpha", 0.25);
  set_option(job, "seed", uint64_t{7});
  set_option(job, "samples", int64_t{16});
  set_option(job, "max_shard_size", std::string("800MB"));
  set_option(job, "checkpoint_format", std::string("gptq_v2"));
  set_option(job, "modules_in_block_to_quantize", std::string("mlp.up_proj,mlp.down_proj"));
  EXPECT_EQ(job.recipe.bits, 3);
  EXPECT_EQ(job.recipe.order, Order::group_aware);
  EXPECT_FALSE(job.recipe.sym);
  EXPECT_EQ(job.recipe.alpha, 0.25);
  EXPECT_EQ(job.calibration.seed, 7U);
  EXPECT_EQ(job.calibration.samples, 16);
  EXPECT_EQ(job.max_shard_bytes, 800'000'000);
  EXPECT_EQ(job.recipe.checkpoint_format, "gptq_v2");
  EXPECT_EQ(job.recipe.modules_in_block_to_quantize,
            (std::vector<std::vector<std::string>>{{"mlp.up_proj", "mlp.down_proj"}}));
  set_option(job, "modules_in_block_to_quantize", std::string(R"([["mlp.up_proj"], ["mlp.down_proj"]])"));
  EXPECT_EQ(job.recipe.modules_in_block_to_quantize.size(), 2U);
  set_option(job, "dynamic", std::string(R"({"-:.*down_proj": {}})"));
  ASSERT_EQ(job.recipe.dynamic.size(), 1U);
  EXPECT_TRUE(job.recipe.dynamic[0].skip);
  Evaluation evaluation;
  set_option(evaluation, "context", int64_t{64});
  set_option(evaluation, "device_map", std::string("cpu"));
  EXPECT_EQ(evaluation.context, 64);
  EXPECT_EQ(evaluation.device_map, "cpu");
}

TEST(PublicOptions, BringWhatTheyImply) {
  Job job;
  job.recipe.average_bits = 3.5;
  job.recipe.order = Order::natural;
  set_option(job, "bits", int64_t{4});
  set_option(job, "desc_act", true);
  EXPECT_EQ(job.recipe.average_bits, 0);
  EXPECT_FALSE(job.recipe.static_groups);
  EXPECT_EQ(job.recipe.order, Order::diagonal);
}

TEST(PublicOptions, RefuseWhatTheyCannotTake) {
  Job job;
  EXPECT_EQ(refusal([&] { set_option(job, "order", std::string("up")); }),
            "`order` up: there are diagonal, group-aware, natural");
  EXPECT_NE(refusal([&] { set_option(job, "bits", std::string("four")); }).find("`bits`"), std::string::npos);
  EXPECT_NE(refusal([&] { set_option(job, "bitz", int64_t{4}); }).find("`bitz`"), std::string::npos);
  EXPECT_NE(refusal([&] { set_option(job, "max_shard_size", std::string("5 parsecs")); }).find("5 parsecs"),
            std::string::npos);
  EXPECT_NE(refusal([&] { set_option(job, "checkpoint_format", std::string("marlin")); }).find("gptq_v2"),
            std::string::npos);
  Evaluation evaluation;
  EXPECT_NE(refusal([&] { set_option(evaluation, "bits", int64_t{4}); }).find("`bits`"), std::string::npos);
}

TEST(PublicOptions, InMessagesAreSpelledByTheFrontEnd) {
  const auto spelled = [](const std::string& text) {
    return spell_options(text, [](std::string_view key, std::string_view value) {
      return cat("<", key, value.empty() ? "" : "|", value, ">");
    });
  };
  EXPECT_EQ(spelled("`desc_act` with `sym=false`: drop one"), "<desc_act> with <sym|false>: drop one");
  EXPECT_EQ(spelled("no option"), "no option");
  EXPECT_EQ(spelled("a file named `My File` and `bits`"), "a file named `My File` and <bits>");
  EXPECT_EQ(spelled("one mark ` alone, then `bits`"), "one mark ` alone, then <bits>");
  EXPECT_EQ(spelled("an open `bits"), "an open `bits");
}

TEST(Errors, AreAboutTheOptionThatTheyStartWith) {
  EXPECT_EQ(InputError("`sym=false` with x").subject().option, "sym");
  EXPECT_EQ(InputError("`bits` 5: no").subject().option, "bits");
  EXPECT_EQ(InputError("no `bits`").subject().option, "");
  EXPECT_EQ(InputError("no `bits`", {.option = "bits", .file = "f", .tensor = {}}).subject().file, "f");
}

}  // namespace
}  // namespace gptq
