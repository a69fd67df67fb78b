#!/bin/sh
head -c "$PT_bytes" /dev/zero | tr '\0' x
