rockspec_format = "3.0"
package = "mimic"
version = "scm-1"
source = {
    url = "git+file://.",
}
description = {
    summary = "Embeddable, Lua-scripted deep-learning experiment engine",
    detailed = [[
        Tensors with automatic differentiation, Vision Transformers, image loading, and experiments whose
        runs, metrics and artefacts land in one SQLite database. `require "mimic"`.]],
    labels = { "deep-learning", "machine-learning", "sqlite" },
}
dependencies = {
    "lua == 5.4",
    "argparse >= 0.7",
    "lua-cjson >= 2.1",
    "luafilesystem >= 1.8",
}
external_dependencies = {
    JPEG = { header = "jpeglib.h" },
    PNG = { header = "png.h" },
    ZLIB = { header = "zlib.h" },
    SQLITE3 = { header = "sqlite3.h" },
    MD = { header = "sha2.h" },
    RANDOM123 = { header = "Random123/philox.h" },
}
build = {
    -- One module, mimic.so: the Lua part of the library is inside it.
    type = "command",
    build_command = "cmake -S . -B build/rock -DMIMIC_TESTS=OFF -DCMAKE_BUILD_TYPE=Release"
        .. " && cmake --build build/rock --target mimic_module",
    install = {
        lib = { mimic = "build/rock/lua/mimic.so" },
    },
}
