#!/bin/sh
echo "it broke" >&2
exit "$PT_code"
