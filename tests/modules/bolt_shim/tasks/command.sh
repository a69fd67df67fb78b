#!/bin/sh
# Runs a command line, as Bolt asks for it through the orchestrator, and tells all three of its ends.
dir=$(mktemp -d)
sh -c "$PT_command" >"$dir/out" 2>"$dir/err"
code=$?
escape() { sed 's/\\/\\\\/g; s/"/\\"/g' "$1" | awk '{printf "%s\\n", $0}'; }
printf '{"stdout":"%s","stderr":"%s","exit_code":%s}\n' "$(escape "$dir/out")" "$(escape "$dir/err")" "$code"
rm -rf "$dir"
exit "$code"
