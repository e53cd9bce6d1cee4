# docs/options.md is what the tool writes.
#   cmake -DTOOL=<option_table> -DDOCUMENT=<docs/options.md> -DWORK=<scratch folder> -P options_document_test.cmake
file(MAKE_DIRECTORY ${WORK})
execute_process(COMMAND ${TOOL} OUTPUT_FILE ${WORK}/options.md RESULT_VARIABLE code)
if(NOT code EQUAL 0)
  message(FATAL_ERROR "${TOOL}: ${code}")
endif()
execute_process(COMMAND ${CMAKE_COMMAND} -E compare_files ${WORK}/options.md ${DOCUMENT} RESULT_VARIABLE code)
if(NOT code EQUAL 0)
  message(FATAL_ERROR "${DOCUMENT} is stale: build option_table and write its output there")
endif()
