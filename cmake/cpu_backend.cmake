# The CPU backend. kernels.cpp and product_kernels.cpp are compiled once per instruction set, and the processor chooses at run time.
gptq_layer(cpu
  SOURCES src/backend/cpu/cpu_backend.cpp src/backend/cpu/cpu_products.cpp src/backend/cpu/cpu_grams.cpp src/backend/cpu/cpu_attention.cpp
          src/backend/cpu/cpu_grids.cpp src/backend/cpu/cpu_systems.cpp src/backend/cpu/kernels_choice.cpp
  LINK PkgConfig::OPENBLAS)

set(GPTQ_ISAS baseline)
set(GPTQ_FLAGS_baseline "")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  list(APPEND GPTQ_ISAS avx2 avx512 avx512bf16 amx)
  set(GPTQ_FLAGS_avx2 -mavx2 -mfma -mf16c)
  set(GPTQ_FLAGS_avx512 ${GPTQ_FLAGS_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mprefer-vector-width=512)
  set(GPTQ_FLAGS_avx512bf16 ${GPTQ_FLAGS_avx512} -mavx512bf16)
  set(GPTQ_FLAGS_amx ${GPTQ_FLAGS_avx512bf16} -mamx-tile -mamx-bf16)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  list(APPEND GPTQ_ISAS neonbf16)
  set(GPTQ_FLAGS_neonbf16 -march=armv8.2-a+bf16)
endif()
foreach(isa IN LISTS GPTQ_ISAS)
  foreach(source kernels product_kernels)
    set(copy ${CMAKE_CURRENT_BINARY_DIR}/${source}_${isa}.cpp)
    configure_file(src/backend/cpu/${source}.cpp ${copy} COPYONLY)
    target_sources(gptq_cpu PRIVATE ${copy})
    # -O3 in every build type: without it even tests would crawl.
    set_source_files_properties(${copy} PROPERTIES
      COMPILE_OPTIONS "-O3;-fopenmp-simd;-fno-trapping-math;${GPTQ_FLAGS_${isa}}"
      COMPILE_DEFINITIONS GPTQ_ISA=${isa})
  endforeach()
endforeach()
