# Format of the C sources (clang-format 14, as Debian 12 ships it) and luacheck of the Lua sources. A tool that
# is not installed is a skipped test, said in a line.
function(style_test name tool)
  find_program(STYLE_${name} NAMES ${tool})
  if(STYLE_${name})
    add_test(NAME style.${name} COMMAND ${STYLE_${name}} ${ARGN} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
    set_tests_properties(style.${name} PROPERTIES LABELS style)
  else()
    message(STATUS "no ${tool}: the test style.${name} is left out")
  endif()
endfunction()

file(GLOB_RECURSE c_files CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR}
     ${PROJECT_SOURCE_DIR}/engine/*.[ch] ${PROJECT_SOURCE_DIR}/engine/*.cu
     ${PROJECT_SOURCE_DIR}/tests/*.cc ${PROJECT_SOURCE_DIR}/bindings/*.[ch] ${PROJECT_SOURCE_DIR}/tests/*.[ch])
style_test(format clang-format-14 --dry-run --Werror ${c_files})
style_test(luacheck luacheck -q lua experiments tests)
