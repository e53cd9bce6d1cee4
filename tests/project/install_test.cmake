# Installs the build into an empty folder, then builds and runs examples/quantize_and_compare against it, as a user of the
# library does, and examples/pipeline.sh with the installed program.
#   cmake -DBUILD=<build folder> -DEXAMPLES=<examples/> -DWORK=<scratch folder> -DSANITIZE=<GPTQ_SANITIZE> -P install_test.cmake
function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE code OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT code EQUAL 0)
    message(FATAL_ERROR "${ARGN}\n${output}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

# The command ends with this exit code, and prints something that matches `words`.
function(ends code words)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE got OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT got EQUAL code OR NOT output MATCHES "${words}")
    message(FATAL_ERROR "${ARGN}: exit code ${got}\n${output}")
  endif()
endfunction()

file(REMOVE_RECURSE ${WORK})
run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${WORK}/prefix)
set(demo ${WORK}/prefix/share/gptq/demo)
foreach(file bin/gptq include/gptq/gptq.h include/gptq/error.h share/gptq/demo/model/config.json share/gptq/demo/heldout.txt)
  if(NOT EXISTS ${WORK}/prefix/${file})
    message(FATAL_ERROR "${file} is not installed")
  endif()
endforeach()
run(${CMAKE_COMMAND} -S ${EXAMPLES}/quantize_and_compare -B ${WORK}/build -DCMAKE_PREFIX_PATH=${WORK}/prefix -DSANITIZE=${SANITIZE})
run(${CMAKE_COMMAND} --build ${WORK}/build)
set(program ${WORK}/build/quantize_and_compare)
run(${program} ${demo}/model ${WORK}/out ${demo}/calibration.txt ${demo}/heldout.txt)
foreach(words "llama, 4 blocks" "planned: [0-9.]+ MB of memory, [0-9.]+ MB on disk" "28 linears, 4\\.[0-9]+ bits per weight"
        "perplexity [0-9]\\.[0-9]+ unquantized, [0-9]\\.[0-9]+ quantized")
  if(NOT output MATCHES "${words}")
    message(FATAL_ERROR "quantize_and_compare printed: ${output}")
  endif()
endforeach()
ends(2 "nowhere: no such folder" ${program} nowhere ${WORK}/out ${demo}/calibration.txt ${demo}/heldout.txt)

run(${WORK}/prefix/bin/gptq inspect ${demo}/model)
set(pipeline ${EXAMPLES}/pipeline.sh ${demo}/model ${WORK}/shell ${demo}/calibration.txt ${demo}/heldout.txt
    --samples 16 --sequence-length 128)
set(ENV{GPTQ} ${WORK}/prefix/bin/gptq)
set(ENV{WINDOWS} 4)
ends(0 "perplexity [0-9.]+ -> [0-9.]+ [(][+-][0-9.]+ %, allowed: 20 %[)]" ${CMAKE_COMMAND} -E env LIMIT=20 ${pipeline})
ends(3 "allowed: -50 %" ${CMAKE_COMMAND} -E env LIMIT=-50 ${pipeline})
