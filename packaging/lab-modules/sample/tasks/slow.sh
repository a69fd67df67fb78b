#!/bin/sh
# Good for trying stops, time limits and restarts. TERM ends it at once.
trap 'echo "stopped after $done of $PT_seconds seconds"; exit 143' TERM
done=0
while [ "$done" -lt "$PT_seconds" ]; do
  sleep 1
  done=$((done + 1))
  echo "$done of $PT_seconds seconds"
done
