# Installs into a fresh prefix; what lies there afterwards is what was meant to.
cmake_minimum_required(VERSION 3.25)
file(REMOVE_RECURSE "${PREFIX}")
execute_process(COMMAND "${CMAKE_COMMAND}" --install "${BUILD}" --prefix "${PREFIX}" OUTPUT_QUIET
                COMMAND_ERROR_IS_FATAL ANY)
set(meant "include/plumb/.*[.]hpp" "share/cmake/plumb/.*[.]cmake" "share/pkgconfig/plumb[.]pc"
          "share/doc/plumb/LICENSE")
list(JOIN meant "|" meant)
file(GLOB_RECURSE installed RELATIVE "${PREFIX}" "${PREFIX}/*")
foreach(file IN LISTS installed)
  if(NOT file MATCHES "^(${meant})$")
    message(FATAL_ERROR "${file} is installed, and nobody asked for it")
  endif()
endforeach()
foreach(file include/plumb/plumb.hpp share/cmake/plumb/plumb-config.cmake share/pkgconfig/plumb.pc
             share/doc/plumb/LICENSE)
  if(NOT file IN_LIST installed)
    message(FATAL_ERROR "${file} is not installed")
  endif()
endforeach()
