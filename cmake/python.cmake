# Finds what the Python package needs: an interpreter, its headers and nanobind. With AUTO the package is left out where
# one of them is missing, or where sanitizers are built in, which Python's own program lacks.
#   -DPython_EXECUTABLE=<python>  chooses the interpreter; `pip install nanobind` brings nanobind
set(GPTQ_PYTHON_FOUND OFF)

# A test that ctest shows as skipped, with the reason.
function(gptq_skipped_test name reason)
  add_test(NAME ${name} COMMAND ${CMAKE_COMMAND} -E echo "skipped: ${reason}")
  set_tests_properties(${name} PROPERTIES LABELS python SKIP_REGULAR_EXPRESSION "^skipped: ")
endfunction()

if(NOT GPTQ_PYTHON)
  return()
endif()
if(GPTQ_PYTHON STREQUAL "AUTO" AND GPTQ_SANITIZE)
  message(STATUS "Sanitizers are built in: the Python package is not built")
  return()
endif()
set(insist "")
if(NOT GPTQ_PYTHON STREQUAL "AUTO")
  set(insist REQUIRED)
endif()
find_package(Python 3.9 COMPONENTS Interpreter Development.Module ${insist} OPTIONAL_COMPONENTS Development.SABIModule)
if(Python_FOUND AND NOT nanobind_ROOT)
  execute_process(COMMAND ${Python_EXECUTABLE} -m nanobind --cmake_dir OUTPUT_VARIABLE nanobind_ROOT
                  OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
if(Python_FOUND)
  find_package(nanobind CONFIG QUIET ${insist})
endif()
if(NOT nanobind_FOUND)
  message(STATUS "nanobind or the headers of Python not found: the Python package is not built")
  return()
endif()
set(GPTQ_PYTHON_FOUND ON)
