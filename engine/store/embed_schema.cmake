# Writes OUT: results/schema.sql and results/paper.sql (below IN) as the C arrays mimic_schema_sql and mimic_paper_sql.
set(text "/* Made by embed_schema.cmake. */\n#include \"store/db_impl.h\"\n")
foreach(name schema paper)
  file(READ ${IN}/${name}.sql hex HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
  string(APPEND text "const char mimic_${name}_sql[] = {${bytes}0};\n")
endforeach()
file(WRITE ${OUT} "${text}")
