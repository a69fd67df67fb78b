# Rights that the task does not have, or had and would have back.

sub capability_raised {
    my $header = pack 'LL', 0x20080522, 0;
    my $sets = "\0" x 24;
    syscall($CALL{capget}, $header, $sets);
    my @sets = unpack 'L6', $sets;
    $sets[0] |= 1 << 21;    # effective CAP_SYS_ADMIN
    $sets[1] |= 1 << 21;    # permitted
    call('capset', $header, pack 'L6', @sets);
}

# A program that is given the capability as a file attribute.
sub capability_by_file {
    my $program = "$FREE/program";
    my ($content, $file);
    open $file, '<', '/usr/bin/perl';
    sysread $file, $content, -s $file;
    sysopen($file, $program, O_WRONLY | O_CREAT, 0755) or return told(0);
    syswrite $file, $content;
    close $file;
    my $attribute = pack 'L5', 0x02000001, 1 << 21, 0, 0, 0;
    my $name = 'security.capability';
    if (syscall($CALL{setxattr}, $program, $name, $attribute, length $attribute, 0) == -1) {
        told(0);
    } elsif (!fork) {
        exec $program, '-e', 'print "done\n"' or told(0);
        exit;
    }
    wait;
    unlink $program;
}

# `id` with the set-user-id bit and root as its owner.
sub user_by_set_user_id {
    my $id = `$ENV{SETUID_ID} -u`;
    print $id eq "0\n" ? "done\n" : "nothing\n";
}

sub user_changed { call('setresuid', 0, 0, 0) }

sub limits_raised { call('prlimit64', $AGENT, 7, 0, 0) }

sub passwords_read { reads('/etc/shadow') }

sub network_reached { told(socket(my $socket, AF_INET, SOCK_STREAM, 0)) }

sub memory_filled_by_files {
    open my $file, '>', '/tmp/large' or return told(0);
    my $block = "\0" x (1 << 20);
    for (1 .. 300) { syswrite($file, $block) // return told(0) }
    told(1);
}
