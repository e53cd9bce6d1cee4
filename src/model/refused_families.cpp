#include "model/refused_families.h"

#include <algorithm>

namespace gptq {

std::span<const RefusedFamilies> refused_families() {
  static const std::vector<RefusedFamilies> table = {
      {{"bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie", "megatron-bert",
        "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "xlm", "xlm-roberta", "xlm-roberta-xl",
        "xmod"},
       "an encoder, whose norms follow the additions; its decoder form is part of encoder-decoder models"},
      {{"bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "marian", "mbart", "mvp", "pegasus", "plbart",
        "prophetnet", "trocr", "whisper"},
       "the decoder of an encoder-decoder model, with cross-attention to an encoder"},
      {{"git"}, "all tokens of an image see each other, and its norms follow the additions"},
      {{"musicgen", "musicgen_melody", "moshi"}, "a decoder of several streams of audio codes"},
      {{"gemma4_assistant", "gemma4_unified_assistant"},
       "a draft model, which reads the hidden states and keys of another model"},
      {{"bitnet"}, "its weights have three values, which is less than 2 bits"},
      {{"blt"}, "several transformers over bytes and patches of bytes"},
      {{"reformer", "xlnet", "ctrl", "cpmant", "openai-gpt"},
       "of before 2021, with attention, positions or norms that no later family has"},
      {{"hrm_text", "dory", "inkling2_loop_text"}, "runs its blocks several times"},
      {{"diffllama"}, "the difference of two attentions"},
      {{"doge"}, "attention whose mask is computed from values"},
      {{"zaya"}, "attention over convolutions of queries and keys"},
      {{"inkling_text", "inkling2_text"}, "short convolutions in and after attention, and relative positions"},
      {{"jetmoe"}, "experts for the projections of attention"},
      {{"longcat_flash"}, "two attentions and MLPs per block, and experts that return their input"},
      {{"deepseek_v4", "hy_v4"}, "several residuals in parallel (hyper-connections), mixed in each block"},
      {{"axk2", "dots3_note", "dots3_note_text"}, "latent attention with a gate and further norms"},
      {{"beam"}, "additions to the residual that are scaled by depth"},
      {{"dbrx"}, "experts stacked in matrices of two dimensions"},
      {{"kimi_linear", "bailing_hybrid"}, "a delta rule whose decay differs between the features of a head"},
      {{"lara_mini"}, "all inputs of the delta rule, its gates among them, in one tensor"},
      {{"minimax"}, "lightning attention, which decays with the distance, and norms of its own"},
      {{"zamba", "zamba2"},
       "attention and MLPs whose weights several blocks share, but each weight is quantized in one block"},
      {{"qwen4_exp", "qwen4_exp_text"}, "embeddings of several tokens at once, and gates on the residual"},
      {{"rwkv", "xlstm", "recurrent_gemma"}, "a recurrent network, whose state has no linears to quantize alone"}};
  return table;
}

std::string_view refusal_of(std::string_view model_type) {
  for (const RefusedFamilies& families : refused_families()) {
    const auto& names = families.model_types;
    if (std::find(names.begin(), names.end(), model_type) != names.end()) return families.reason;
  }
  return {};
}

}  // namespace gptq
