#!/bin/sh
# Output that is no JSON object arrives as text, as it is.
if [ -n "${PT_path:-}" ]; then
  df -P -k -- "$PT_path"
else
  df -P -k
fi
