# plumb/plumb.hpp includes no third party, and stays small beside the four standard headers that any program has.
cmake_minimum_required(VERSION 3.25)

execute_process(COMMAND "${COMPILER}" -std=c++20 "-I${INCLUDE}" -M -x c++ "${INCLUDE}/plumb/plumb.hpp"
                OUTPUT_VARIABLE files COMMAND_ERROR_IS_FATAL ANY)
foreach(name boost xtensor xtl xsimd dnnl oneapi simdjson zlib nlohmann catch2 benchmark cuda_runtime iostream)
  if(files MATCHES "/(${name}[^ ]*)")
    message(FATAL_ERROR "plumb/plumb.hpp includes ${CMAKE_MATCH_1}")
  endif()
endforeach()
if(NOT files MATCHES "/plumb/objectives/dpo.hpp")
  message(FATAL_ERROR "the list of included files does not look like one:\n${files}")
endif()

function(preprocessed_size variable)
  set(flags "")
  foreach(header IN LISTS ARGN)
    list(APPEND flags -include ${header})
  endforeach()
  execute_process(COMMAND "${COMPILER}" -std=c++20 "-I${INCLUDE}" ${flags} -x c++ -E -P /dev/null OUTPUT_VARIABLE text
                  COMMAND_ERROR_IS_FATAL ANY)
  string(LENGTH "${text}" size)
  set(${variable} ${size} PARENT_SCOPE)
endfunction()
preprocessed_size(umbrella plumb/plumb.hpp)
preprocessed_size(standard span vector string cmath)
math(EXPR percent "100 * ${umbrella} / ${standard}")
message(STATUS "plumb/plumb.hpp: ${umbrella} bytes preprocessed, ${percent} % of <span> <vector> <string> <cmath> "
               "(${standard}), ceiling ${CEILING_PERCENT} %")
if(percent GREATER CEILING_PERCENT)
  message(FATAL_ERROR "plumb/plumb.hpp has grown beyond its ceiling")
endif()
