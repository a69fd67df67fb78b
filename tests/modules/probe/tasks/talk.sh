#!/bin/sh
# Says something, waits for a gate to open, and says something else.
echo "before the gate"
echo "on the other stream" >&2
until [ -e "$PT_gate" ]; do sleep 0.05; done
echo "behind the gate"
