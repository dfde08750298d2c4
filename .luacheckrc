std = "lua54"
max_line_length = 110
files["tests"] = { ignore = { "212/self" } }
exclude_files = { "build" }
