#!/bin/sh
# A failure as tasks should report theirs: an _error object, and an exit code that is not 0.
. "$PT__installdir/sample/files/json.sh"
echo "this line goes to standard error" >&2
printf '{"_error":{"kind":"sample/failed","msg":%s,"details":{"exitcode":%s}}}\n' \
  "$(json_string "$PT_message")" "$PT_exit_code"
exit "$PT_exit_code"
