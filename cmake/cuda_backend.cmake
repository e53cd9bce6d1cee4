# The CUDA backend: built where nvcc and the toolkit's libraries are found, left out otherwise.
#   GPTQ_CUDA_ARCHITECTURES  compute capabilities to build for, such as 80;90a; PTX of the last one serves newer GPUs
set(GPTQ_CUDA_ARCHITECTURES 80 86 89 90a 100 120 CACHE STRING "Compute capabilities that the CUDA backend is built for")
set(GPTQ_CUDA_FOUND OFF)
set(GPTQ_CUDA_LAYER "")
set(GPTQ_CUDA_LIBRARIES "")
if(NOT GPTQ_CUDA)
  return()
endif()

include(CheckLanguage)
# Architectures are given as plain flags, as this CMake knows no names such as 90a.
set(CMAKE_CUDA_ARCHITECTURES OFF)
if(NOT CMAKE_CUDA_COMPILER AND EXISTS /usr/local/cuda/bin/nvcc)
  list(APPEND CMAKE_PROGRAM_PATH /usr/local/cuda/bin)
endif()
check_language(CUDA)
find_package(CUDAToolkit 12.8 QUIET)
if(NOT CMAKE_CUDA_COMPILER OR NOT CUDAToolkit_FOUND OR NOT TARGET CUDA::cublasLt OR NOT TARGET CUDA::cusolver)
  if(NOT GPTQ_CUDA STREQUAL "AUTO")
    message(FATAL_ERROR "GPTQ_CUDA=ON needs nvcc, cuBLAS and cuSOLVER of CUDA 12.8 or newer")
  endif()
  message(STATUS "CUDA 12.8 or newer not found: the program is built without its CUDA backend")
  return()
endif()
enable_language(CUDA)
set(CMAKE_CUDA_STANDARD 20)
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know it
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
endif()
set(GPTQ_CUDA_FOUND ON)
set(GPTQ_CUDA_LAYER cuda)
# cuBLAS and cuSOLVER are loaded when they are needed.
set(GPTQ_CUDA_LIBRARIES CUDA::cudart_static ${CMAKE_DL_LIBS})

set(GPTQ_CUDA_CODE "")
foreach(architecture IN LISTS GPTQ_CUDA_ARCHITECTURES)
  list(APPEND GPTQ_CUDA_CODE "-gencode=arch=compute_${architecture},code=sm_${architecture}")
  set(newest ${architecture})
endforeach()
list(APPEND GPTQ_CUDA_CODE "-gencode=arch=compute_${newest},code=compute_${newest}")

gptq_layer(cuda
  SOURCES src/backend/cuda/attention.cu src/backend/cuda/grids.cu src/backend/cuda/norms.cu src/backend/cuda/rows.cu
          src/backend/cuda/symmetric.cu src/backend/cuda/systems.cu
          src/backend/cuda/cuda_backend.cpp src/backend/cuda/cuda_memory.cpp src/backend/cuda/cuda_products.cpp
          src/backend/cuda/libraries.cpp src/backend/cuda/multiplier.cpp)
target_include_directories(gptq_cuda SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
list(JOIN GPTQ_CUDA_ARCHITECTURES ", " built_for)
target_compile_definitions(gptq_cuda PRIVATE GPTQ_CUDA_BUILT_FOR="${built_for}" GPTQ_CUDA_LIBRARY_FOLDER="${CUDAToolkit_LIBRARY_DIR}")
# Host code in .cu files is small: launches only.
target_compile_options(gptq_cuda PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:-O3;${GPTQ_CUDA_CODE};-Xcompiler=-Wall>")
