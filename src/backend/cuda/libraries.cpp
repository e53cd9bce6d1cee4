// cuBLAS and cuSOLVER, loaded when a GPU is first asked to compute: a program that was built with CUDA starts at once,
// and runs, where there is no GPU. Each function here has the name and the signature of the library's and calls that
// one.
#include <string>

#include <cublasLt.h>
#include <cublas_v2.h>
#include <cusolverDn.h>
#include <dlfcn.h>

#include "base/error.h"

namespace {

struct Library {
  const char* name;
  int version;  // of its binary interface
};
constexpr Library kLt{"libcublasLt.so.", CUBLAS_VER_MAJOR}, kBlas{"libcublas.so.", CUBLAS_VER_MAJOR},
    kSolver{"libcusolver.so.", CUSOLVER_VER_MAJOR};

// Looks where the system does, then where the toolkit was at build time. Libraries stay loaded.
void* open(const Library& library) {
  const std::string file = gptq::cat(library.name, library.version);
  if (void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL)) return handle;
  if (void* handle = dlopen(gptq::cat(GPTQ_CUDA_LIBRARY_FOLDER, "/", file).c_str(), RTLD_NOW | RTLD_LOCAL))
    return handle;
  throw gptq::DeviceError(gptq::cat("computing on a GPU needs ", file,
                                    " of the CUDA toolkit: install it, or name its folder in LD_LIBRARY_PATH"));
}

template <typename Function>
Function* find(const Library& library, const char* name, Function* /*same*/) {
  void* symbol = dlsym(open(library), name);
  if (symbol == nullptr) throw gptq::DeviceError(gptq::cat(library.name, library.version, " has no ", name));
  return reinterpret_cast<Function*>(symbol);  // NOLINT: what dlsym is for
}

}  // namespace

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t* lightHandle) {
  static const auto function = find(kLt, "cublasLtCreate", &cublasLtCreate);
  return function(lightHandle);
}
size_t cublasLtGetVersion(void) {
  static const auto function = find(kLt, "cublasLtGetVersion", &cublasLtGetVersion);
  return function();
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t lightHandle) {
  static const auto function = find(kLt, "cublasLtDestroy", &cublasLtDestroy);
  return function(lightHandle);
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* matLayout, cudaDataType type, uint64_t rows,
                                          uint64_t cols, int64_t ld) {
  static const auto function = find(kLt, "cublasLtMatrixLayoutCreate", &cublasLtMatrixLayoutCreate);
  return function(matLayout, type, rows, cols, ld);
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t matLayout) {
  static const auto function = find(kLt, "cublasLtMatrixLayoutDestroy", &cublasLtMatrixLayoutDestroy);
  return function(matLayout);
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t matLayout, cublasLtMatrixLayoutAttribute_t attr,
                                                const void* buf, size_t sizeInBytes) {
  static const auto function = find(kLt, "cublasLtMatrixLayoutSetAttribute", &cublasLtMatrixLayoutSetAttribute);
  return function(matLayout, attr, buf, sizeInBytes);
}
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* matmulDesc, cublasComputeType_t computeType,
                                        cudaDataType_t scaleType) {
  static const auto function = find(kLt, "cublasLtMatmulDescCreate", &cublasLtMatmulDescCreate);
  return function(matmulDesc, computeType, scaleType);
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t matmulDesc) {
  static const auto function = find(kLt, "cublasLtMatmulDescDestroy", &cublasLtMatmulDescDestroy);
  return function(matmulDesc);
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t matmulDesc, cublasLtMatmulDescAttributes_t attr,
                                              const void* buf, size_t sizeInBytes) {
  static const auto function = find(kLt, "cublasLtMatmulDescSetAttribute", &cublasLtMatmulDescSetAttribute);
  return function(matmulDesc, attr, buf, sizeInBytes);
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* pref) {
  static const auto function = find(kLt, "cublasLtMatmulPreferenceCreate", &cublasLtMatmulPreferenceCreate);
  return function(pref);
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t pref) {
  static const auto function = find(kLt, "cublasLtMatmulPreferenceDestroy", &cublasLtMatmulPreferenceDestroy);
  return function(pref);
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t pref,
                                                    cublasLtMatmulPreferenceAttributes_t attr, const void* buf,
                                                    size_t sizeInBytes) {
  static const auto function = find(kLt, "cublasLtMatmulPreferenceSetAttribute", &cublasLtMatmulPreferenceSetAttribute);
  return function(pref, attr, buf, sizeInBytes);
}
cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t* algo,
                                                    cublasLtMatmulAlgoConfigAttributes_t attr, void* buf,
                                                    size_t sizeInBytes, size_t* sizeWritten) {
  static const auto function = find(kLt, "cublasLtMatmulAlgoConfigGetAttribute", &cublasLtMatmulAlgoConfigGetAttribute);
  return function(algo, attr, buf, sizeInBytes, sizeWritten);
}
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t lightHandle, cublasLtMatmulDesc_t operationDesc,
                                              cublasLtMatrixLayout_t Adesc, cublasLtMatrixLayout_t Bdesc,
                                              cublasLtMatrixLayout_t Cdesc, cublasLtMatrixLayout_t Ddesc,
                                              cublasLtMatmulPreference_t preference, int requestedAlgoCount,
                                              cublasLtMatmulHeuristicResult_t heuristicResultsArray[],
                                              int* returnAlgoCount) {
  static const auto function = find(kLt, "cublasLtMatmulAlgoGetHeuristic", &cublasLtMatmulAlgoGetHeuristic);
  return function(lightHandle, operationDesc, Adesc, Bdesc, Cdesc, Ddesc, preference, requestedAlgoCount,
                  heuristicResultsArray, returnAlgoCount);
}
cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t lightHandle, cublasLtMatmulDesc_t operationDesc,
                                       cublasLtMatrixLayout_t Adesc, cublasLtMatrixLayout_t Bdesc,
                                       cublasLtMatrixLayout_t Cdesc, cublasLtMatrixLayout_t Ddesc,
                                       const cublasLtMatmulAlgo_t* algo, cublasLtMatmulHeuristicResult_t* result) {
  static const auto function = find(kLt, "cublasLtMatmulAlgoCheck", &cublasLtMatmulAlgoCheck);
  return function(lightHandle, operationDesc, Adesc, Bdesc, Cdesc, Ddesc, algo, result);
}
cublasStatus_t cublasLtMatmul(cublasLtHandle_t lightHandle, cublasLtMatmulDesc_t computeDesc, const void* alpha,
                              const void* A, cublasLtMatrixLayout_t Adesc, const void* B, cublasLtMatrixLayout_t Bdesc,
                              const void* beta, const void* C, cublasLtMatrixLayout_t Cdesc, void* D,
                              cublasLtMatrixLayout_t Ddesc, const cublasLtMatmulAlgo_t* algo, void* workspace,
                              size_t workspaceSizeInBytes, cudaStream_t stream) {
  static const auto function = find(kLt, "cublasLtMatmul", &cublasLtMatmul);
  return function(lightHandle, computeDesc, alpha, A, Adesc, B, Bdesc, beta, C, Cdesc, D, Ddesc, algo, workspace,
                  workspaceSizeInBytes, stream);
}
const char* cublasLtGetStatusString(cublasStatus_t status) {
  static const auto function = find(kLt, "cublasLtGetStatusString", &cublasLtGetStatusString);
  return function(status);
}

cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
  static const auto function = find(kBlas, "cublasCreate_v2", &cublasCreate_v2);
  return function(handle);
}
cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
  static const auto function = find(kBlas, "cublasDestroy_v2", &cublasDestroy_v2);
  return function(handle);
}
cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t streamId) {
  static const auto function = find(kBlas, "cublasSetStream_v2", &cublasSetStream_v2);
  return function(handle, streamId);
}
cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void* workspace, size_t workspaceSizeInBytes) {
  static const auto function = find(kBlas, "cublasSetWorkspace_v2", &cublasSetWorkspace_v2);
  return function(handle, workspace, workspaceSizeInBytes);
}
cublasStatus_t cublasStrsm_v2(cublasHandle_t handle, cublasSideMode_t side, cublasFillMode_t uplo,
                              cublasOperation_t trans, cublasDiagType_t diag, int m, int n, const float* alpha,
                              const float* A, int lda, float* B, int ldb) {
  static const auto function = find(kBlas, "cublasStrsm_v2", &cublasStrsm_v2);
  return function(handle, side, uplo, trans, diag, m, n, alpha, A, lda, B, ldb);
}

cusolverStatus_t cusolverDnCreate(cusolverDnHandle_t* handle) {
  static const auto function = find(kSolver, "cusolverDnCreate", &cusolverDnCreate);
  return function(handle);
}
cusolverStatus_t cusolverDnDestroy(cusolverDnHandle_t handle) {
  static const auto function = find(kSolver, "cusolverDnDestroy", &cusolverDnDestroy);
  return function(handle);
}
cusolverStatus_t cusolverDnSetStream(cusolverDnHandle_t handle, cudaStream_t streamId) {
  static const auto function = find(kSolver, "cusolverDnSetStream", &cusolverDnSetStream);
  return function(handle, streamId);
}
cusolverStatus_t cusolverDnSpotrf_bufferSize(cusolverDnHandle_t handle, cublasFillMode_t uplo, int n, float* A, int lda,
                                             int* Lwork) {
  static const auto function = find(kSolver, "cusolverDnSpotrf_bufferSize", &cusolverDnSpotrf_bufferSize);
  return function(handle, uplo, n, A, lda, Lwork);
}
cusolverStatus_t cusolverDnSpotrf(cusolverDnHandle_t handle, cublasFillMode_t uplo, int n, float* A, int lda,
                                  float* Workspace, int Lwork, int* devInfo) {
  static const auto function = find(kSolver, "cusolverDnSpotrf", &cusolverDnSpotrf);
  return function(handle, uplo, n, A, lda, Workspace, Lwork, devInfo);
}
cusolverStatus_t cusolverDnDpotrfBatched(cusolverDnHandle_t handle, cublasFillMode_t uplo, int n, double* Aarray[],
                                         int lda, int* infoArray, int batchSize) {
  static const auto function = find(kSolver, "cusolverDnDpotrfBatched", &cusolverDnDpotrfBatched);
  return function(handle, uplo, n, Aarray, lda, infoArray, batchSize);
}
cusolverStatus_t cusolverDnDpotrsBatched(cusolverDnHandle_t handle, cublasFillMode_t uplo, int n, int nrhs, double* A[],
                                         int lda, double* B[], int ldb, int* d_info, int batchSize) {
  static const auto function = find(kSolver, "cusolverDnDpotrsBatched", &cusolverDnDpotrsBatched);
  return function(handle, uplo, n, nrhs, A, lda, B, ldb, d_info, batchSize);
}

}  // extern "C"
