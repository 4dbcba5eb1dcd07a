# For the project's own programs only; nothing that users link carries a flag.

set(PLUMB_WARNINGS -Wall -Wextra -Wconversion -Wshadow -Werror)

function(plumb_warnings target)
  target_compile_options(${target} PRIVATE ${PLUMB_WARNINGS})
  set_target_properties(${target} PROPERTIES CXX_EXTENSIONS OFF)
endfunction()
