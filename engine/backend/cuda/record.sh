#!/bin/sh
# Runs nvcc and keeps what ptxas says of every kernel (registers, spills) beside the object file, for the test
# cuda.registers; everything else is passed on.
#     record.sh nvcc ARGS...
out= previous=
for word in "$@"; do
    [ "$previous" = -o ] && out=$word
    previous=$word
done
"$@" 2>"$out.said"
code=$?
info='^ptxas info|^ +[0-9]+ bytes stack frame'
grep -E "$info" "$out.said" >"$out.ptxas"
grep -vE "$info" "$out.said" >&2
rm -f "$out.said"
exit $code
