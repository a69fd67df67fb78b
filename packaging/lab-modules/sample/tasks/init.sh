#!/bin/sh
# Gives back a message. In noop mode PT__noop is true, and nothing may be changed.
if [ "${PT__noop:-false}" = true ]; then
  printf 'noop: would say: %s\n' "$PT_message"
else
  printf '%s\n' "$PT_message"
fi
