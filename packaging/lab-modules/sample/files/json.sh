# Functions that tasks share. Read with `.`; needs POSIX sh and sed.

# json_string TEXT: TEXT as a JSON string, on one line, without control characters.
json_string() {
  printf '"%s"' "$(printf '%s' "$1" | tr -d '\000-\037' | sed 's/\\/\\\\/g; s/"/\\"/g')"
}
