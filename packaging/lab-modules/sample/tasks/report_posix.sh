#!/bin/sh
# The implementation for POSIX systems. The support files are below PT__installdir.
files="$PT__installdir/sample/files"
. "$files/json.sh"
greeting=$(cat "$files/greetings/$PT_language.txt") || exit 1
printf '{"greeting":%s,"implementation":"posix"}\n' \
  "$(json_string "$greeting ${PT_name:-$(uname -n)}")"
