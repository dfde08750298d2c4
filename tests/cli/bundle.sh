#!/bin/bash
# Runs the bundle in a root that has the C library and nothing else: no Lua, SQLite, libjpeg, no /usr. Skipped
# (77) where the kernel lets an ordinary user have no root of his own.
#     bundle.sh SOURCE BUILD
set -eu
source=$1 build=$2
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
PATH=$PATH:/usr/sbin:/sbin
namespace=(unshare --mount)
[ "$(id -u)" = 0 ] || namespace=(unshare --user --map-root-user --mount)
mkdir "$root/proc"
if ! "${namespace[@]}" mount --rbind /proc "$root/proc" 2>/dev/null; then
    echo "skipped: no mount namespace of one's own here"
    exit 77
fi
if "$source/script/bundle" "$root/opt/none" "$root/nothing built" 2>/dev/null || [ -e "$root/opt" ]; then
    echo "a bundle without a build left something" >&2
    exit 1
fi
"$source/script/bundle" "$root/opt/mimic" "$build"
mkdir -p "$root"/{lib64,tmp,work} "$root/lib/x86_64-linux-gnu"
cp -L /lib64/ld-linux-x86-64.so.2 "$root/lib64/"
for name in libc.so.6 libm.so.6 libdl.so.2 libpthread.so.0 librt.so.1; do
    cp -L "/lib/x86_64-linux-gnu/$name" "$root/lib/x86_64-linux-gnu/"
done
mv "$root/opt/mimic" "$root/work/somewhere else" # wherever it is put

inside() { # COMMAND...: in the bare root with the kernel's /proc, and without any environment
    "${namespace[@]}" sh -c 'mount --rbind /proc "$0/proc" && exec env -i "$(command -v chroot)" "$0" "$@"' \
        "$root" "$@"
}
mimic="/work/somewhere else/bin/mimic"

inside "$mimic" devices >"$root/devices"
grep -q '^cpu$' "$root/devices"
grep -q '^cuda' "$root/devices"
if [ -f "$build/libmimic_cuda.so" ] && grep -q 'there is no libmimic_cuda' "$root/devices"; then
    cat "$root/devices"
    echo "the bundle does not find its own CUDA module"
    exit 1
fi
inside "$mimic" -e 'assert(require "cjson" and require "lfs" and require "argparse" and require "mimic".image)'
inside "$mimic" data synth /tmp/s --size 24 --general-train 2 --general-val 2 --faces-train 40 --faces-test 20 >"$root/out" 2>&1 || { cat "$root/out"; exit 1; }
cat >"$root/work/x.lua" <<'END'
local m = require "mimic"
m.experiment "bundle":run { kind = "finetune", config = m.config { finetune = {
    model = { preset = false, img = 16, patch = 8, dim = 16, depth = 1, heads = 1, drop_path = 0 },
    data = { train = { path = "/tmp/s/faces", split = "train" }, test = { path = "/tmp/s/faces", split = "test" } },
    epochs = 1, batch = 8 } }.finetune }
END
inside "$mimic" --db /tmp/x.db run /work/x.lua >"$root/out" 2>&1 || { cat "$root/out"; exit 1; }
inside "$mimic" --db /tmp/x.db query "SELECT state FROM run_list" | grep -q done
# Without a device gpu-tests says so for each of its tests, and goes well.
CUDA_VISIBLE_DEVICES='' "$root/work/somewhere else/gpu-tests" >"$root/out" 2>&1 || { cat "$root/out"; exit 1; }
tests=$(find "$root/work/somewhere else/tests" -maxdepth 1 -name 'test_*' | wc -l)
if [ "$tests" -lt 6 ] || [ "$(grep -c '^skipped: cuda: ' "$root/out")" != "$tests" ]; then
    cat "$root/out"
    echo "gpu-tests: $tests tests, not all of which were skipped with a word"
    exit 1
fi
# Nothing in it was taken from outside of the C library.
if inside /lib64/ld-linux-x86-64.so.2 --list "$mimic" | grep -v 'linux-vdso\|/work/somewhere else/\|/lib/x86_64\|ld-linux'; then
    echo "the runner needs a library that is neither in the bundle nor the C library's"
    exit 1
fi
echo "the bundle runs in a bare root"
