# Writes OUT: a C table {module name, text, size} of FILES. lua/mimic/vit.lua -> "mimic.vit",
# results/schema.sql -> "results/schema.sql".
set(bodies "")
set(table "")
set(i 0)
foreach(file IN LISTS FILES)
  file(READ "${file}" hex HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
  file(RELATIVE_PATH name ${ROOT} ${file})
  if(name MATCHES "\\.lua$")
    string(REGEX REPLACE "^lua/(.*)\\.lua$" "\\1" name ${name})
    string(REPLACE "/" "." name ${name})
  endif()
  string(APPEND bodies "static const unsigned char text_${i}[] = {${bytes}0};\n")
  string(APPEND table "    {\"${name}\", (const char *)text_${i}, sizeof text_${i} - 1},\n")
  math(EXPR i "${i} + 1")
endforeach()
file(WRITE ${OUT} "/* Made by embed.cmake. */\n#include \"embedded.h\"\n${bodies}"
     "const mimic_embedded mimic_embedded_files[] = {\n${table}    {0, 0, 0}};\n")
