#!/bin/sh
# A short line written with one write to a file opened for appending is never torn by another.
token=$(cat /proc/sys/kernel/random/uuid)
echo "$token" >>"$PT_file"
if [ -n "$PT_gate" ]; then
    until [ -e "$PT_gate" ]; do sleep 0.05; done
fi
printf '{"token":"%s"}\n' "$token"
