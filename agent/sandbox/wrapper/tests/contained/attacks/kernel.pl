# The kernel, and what it does for whoever may ask. Arguments are such that nothing comes of a call that
# is let through.

sub module_loaded {
    call('init_module', 0, 0, 0);
    call('finit_module', -1, 0, 0);
    call('delete_module', 0, 0);
}

sub kexec { call('kexec_load', 0, 99, 0, 0) }

sub bpf_program { call('bpf', 99, 0, 0) }

sub processes_observed { call('perf_event_open', 0, 0, 0, 0, 0) }

sub page_faults_handled { call('userfaultfd', 1 << 30) }

sub io_uring { call('io_uring_setup', 1, 0) }

sub calls_of_another_abi { told(syscall(0x40000000 | 39) != -1) }

sub reboot { call('reboot', 0, 0, 0, 0) }

sub swap_added { call('swapon', 0, 0) }

sub clock_set {
    call('clock_settime', 0, 0);
    call('settimeofday', 1, 0);
}

sub kernel_log { call('syslog', 10, 0, 0) }

sub host_name_set { call('sethostname', 0, -1) }

sub sysrq { opens('/proc/sysrq-trigger') }

sub kernel_settings {
    opens("/proc/sys/kernel/$_") for qw(core_pattern modprobe hostname);
}

sub device_settings { opens('/sys/kernel/mm/transparent_hugepage/enabled') }

sub memory_device {
    for my $device (qw(mem kmsg port fuse kvm loop-control)) { opens("/dev/$device") }
}

sub mount_of_a_new_kind {
    own_mounts();
    my $kind = 'tmpfs';
    my $place = '/mnt';
    call('mount', $kind, $place, $kind, 0, 0);
    call('fsopen', 0, 0);
    call('open_tree', HERE, $place, 1);
    call('move_mount', -1, 0, -1, 0, 0);
}

sub another_root {
    own_mounts();
    call('pivot_root', 0, 0);
}

sub cgroup_left {
    for my $processes ("$ENV{CGROUP}/cgroup.procs", "$ENV{CGROUP}/../cgroup.procs") {
        opens($processes);
    }
}

sub cgroup_made { told(mkdir "$ENV{CGROUP}/attack") && rmdir "$ENV{CGROUP}/attack" }
