#!/bin/sh
# Facts of the node as one JSON object. What this system does not tell is left out.
. "$PT__installdir/sample/files/json.sh"

field() { # NAME VALUE: one more member, when there is a value
  [ -n "$2" ] || return 0
  printf '%s"%s":%s' "$separator" "$1" "$2"
  separator=,
}

# The first field of a /proc file, when it is a plain number.
number() { cut -d ' ' -f 1 "$1" 2>/dev/null | grep -E '^[0-9]+([.][0-9]+)?$'; }

separator=
printf '{'
field hostname "$(json_string "$(uname -n)")"
field kernel "$(json_string "$(uname -s) $(uname -r)")"
field machine "$(json_string "$(uname -m)")"
field user "$(json_string "$(id -un 2>/dev/null || id -u)")"
field uptime_seconds "$(number /proc/uptime)"
field load_1m "$(number /proc/loadavg)"
field processors "$(getconf _NPROCESSORS_ONLN 2>/dev/null)"
field memory_kib "$(sed -n 's/^MemTotal: *\([0-9]*\) kB$/\1/p' /proc/meminfo 2>/dev/null)"
printf '}\n'
