// Errors of cuBLAS and cuSOLVER as exceptions.
#pragma once

#include <string>

#include <cublasLt.h>
#include <cusolverDn.h>

#include "base/error.h"

namespace gptq::cuda {

// Throws DeviceError with the device, what it was doing, and the library's status.
inline void check(cublasStatus_t status, const std::string& device, const char* doing) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw DeviceError(cat(device, ": ", doing, ": ", cublasLtGetStatusString(status)));
}
inline void check(cusolverStatus_t status, const std::string& device, const char* doing) {
  if (status != CUSOLVER_STATUS_SUCCESS)
    throw DeviceError(cat(device, ": ", doing, ": cuSOLVER's status ", static_cast<int>(status)));
}

}  // namespace gptq::cuda
