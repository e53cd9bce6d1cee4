// The rules of Optimum's GPTQ workflow for devices, offload and precision, one function each. Source: GPTQQuantizer in
// optimum/gptq/quantizer.py (quantize_model, load_quantized_model) and its integration in transformers, from which the
// quoted messages are.
#pragma once

#include <string>

#include "plan/device_map.h"

namespace gptq {

// Throws InputError "disk offload is not supported with GPTQ quantization" for `disk` in the map, with the entries and
// the alternative. Optimum: quantize_model raises ValueError before it touches the model.
void refuse_disk_offload(const DeviceMap& map);

// Whether the map offloads modules to the CPU: it has more than one entry, one of them `cpu`. Each such module visits
// the accelerator when its turn comes, after the previous one has left. Optimum: cpu_offload_with_hook with
// prev_module_hook.
bool offloads_to_cpu(const DeviceMap& map);
inline constexpr const char* kCpuOffloadWarning =
    "Cpu offload is not recommended. There might be some issues with the memory";

// Whether the map is the single entry `cpu`, which asks for no placement: blocks visit the accelerator one at a time,
// or everything is computed on the CPU if there is none. Optimum: has_device_map = False.
bool asks_for_no_placement(const DeviceMap& map);

// The default map: the current accelerator for all modules, or the CPU if there is none.
// Optimum: load_quantized_model; transformers: GptqHfQuantizer.update_device_map.
DeviceMap default_device_map(const Machine& machine);
// "The device_map was not initialized. Setting device_map to {'': 0}."
std::string default_device_map_message(const Machine& machine);

// The accelerator that modules on `cpu` and `disk` visit: the first of the map, else the current one, else the CPU.
// accelerate: dispatch_model's main_device; cpu_offload's default execution_device.
std::string visited_device(const DeviceMap& map, const Machine& machine);

// The precision: requested, or chosen by the checkpoint's dtype and the device.
struct Precision {
  DType stored = DType::f32, computed = DType::f32;
  DType residual = DType::f32;  // dtype of hidden states between blocks
  bool fuses_linears = false;   // whether gated_linear() and add_linear() are one op
  bool is_asked_for = false;
  bool use_cuda_fp16 = false;  // the fp16 path: for fp16 models, computed in fp16. Optimum: model.dtype == float16
};
// `wanted`: "auto", "fp32", "bf16" or "fp16". Throws InputError for any other.
Precision precision_of(DType stored, const std::string& wanted, const Backend& backend);
std::string message_of(const Precision& precision);  // the choice, and its reason

}  // namespace gptq
