# The agent's process, other tasks', and the helper that is process 1 for this one.

sub agent_signalled {
    told(kill 0, $AGENT);
    call('pidfd_open', $AGENT, 0);
}

sub agent_traced { call('ptrace', 0x4206, $_, 0, 0) for $AGENT, $INIT }

sub agent_memory_by_calls {
    call('process_vm_readv', $AGENT, 0, 0, 0, 0, 0);
    call('process_vm_writev', $AGENT, 0, 0, 0, 0, 0);
}

sub agent_memory_by_proc { reads("/proc/$_/mem") for $AGENT, $INIT }

sub agent_environment { reads("/proc/$_/environ") for $AGENT, $INIT }

sub agent_descriptors {
    call('pidfd_getfd', 0, 0, 0);
    reads("/proc/$_/fd/0") for $AGENT, $INIT;
}

sub agent_socket {
    socket(my $socket, AF_UNIX, SOCK_STREAM, 0) or return told(0);
    told(connect $socket, pack_sockaddr_un("\0$ENV{ABSTRACT}"));
}

sub agent_namespaces {
    opens("/proc/$_/ns/mnt") for $AGENT, $INIT;
    call('setns', 0, NEW_NAMESPACES->{mount});
}

sub prepared_view_reached {
    opens("/proc/$VIEW/ns/mnt");
    reads("/proc/$VIEW/root/etc/passwd");
    call('pidfd_open', $VIEW, 0);
}

sub namespace_of_users {
    call('unshare', NEW_USER);
    call('clone', NEW_USER | SIGCHLD, 0, 0, 0, 0);
    call('clone3', 0, 0);
}

sub namespaces_of_other_kinds {
    call('unshare', $_) for values %{ +NEW_NAMESPACES };
}

sub keyring_used {
    call('add_key', 0, 0, 0, 0, 0);
    call('request_key', 0, 0, 0, 0);
    call('keyctl', -1, 0, 0, 0, 0);
}

sub words_put_into_a_terminal { told(ioctl STDIN, 0x5412, my $byte = "x") }
