# cmake -DPROGRAM=<program> -DSOURCE=<its source> -P check_prints.cmake
# The program ends well and prints the lines that its source announces as `// prints: ...`, no other.
cmake_minimum_required(VERSION 3.25)

file(STRINGS "${SOURCE}" announced REGEX "^// prints: ")
list(TRANSFORM announced REPLACE "^// prints: " "")
list(JOIN announced "\n" expected)
if(expected STREQUAL "")
  message(FATAL_ERROR "${SOURCE} has no line \"// prints: ...\"")
endif()
execute_process(COMMAND "${PROGRAM}" OUTPUT_VARIABLE printed RESULT_VARIABLE result OUTPUT_STRIP_TRAILING_WHITESPACE)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "${PROGRAM} ended with ${result}, having printed\n${printed}")
endif()
if(NOT printed STREQUAL expected)
  message(FATAL_ERROR "announced:\n${expected}\nprinted:\n${printed}")
endif()
