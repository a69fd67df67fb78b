#!/bin/sh
# Each attempt prints its name and "done" or "refused".
try() {
    name=$1
    shift
    if "$@" >/dev/null 2>&1; then echo "$name done"; else echo "$name refused"; fi
}
try read-key cat "$PT_key"
try read-key-through-init cat "/proc/1/root$PT_key"
try list-other-transactions test "$(ls "$PT_spool" | wc -l)" -gt 1
try write-config sh -c 'echo >> "$PT_config"'
try signal-agent kill -0 "$PT_agent"
try mount mount -t tmpfs none /mnt
try unmount umount /proc
try unshare unshare -m true
try user-namespace unshare -Ur true
try core-pattern sh -c 'echo x > /proc/sys/kernel/core_pattern'
try sysrq sh -c 'echo h > /proc/sysrq-trigger'
try make-disk mknod /tmp/disk b 8 0
try load-module modprobe dummy
# What a task that manages the host must be able to do.
try write-etc sh -c 'echo x > /etc/pxp-probe && rm /etc/pxp-probe'
try read-shadow cat /etc/shadow
try own-tmp sh -c 'echo x > /tmp/probe && rm /tmp/probe'
try other-user su -s /bin/sh nobody -c true
