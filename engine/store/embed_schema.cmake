# Writes OUT: results/schema.sql (IN) as the C array mimic_schema_sql.
file(READ ${IN} hex HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
file(WRITE ${OUT} "/* Made by embed_schema.cmake. */\n#include \"store/db_impl.h\"\n"
     "const char mimic_schema_sql[] = {${bytes}0};\n")
