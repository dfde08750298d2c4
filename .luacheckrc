std = "lua54"
max_line_length = 120
files["tests"] = { ignore = { "212/self" } }
exclude_files = { "build" }
