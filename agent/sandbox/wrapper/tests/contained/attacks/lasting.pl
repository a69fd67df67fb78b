# What would let a task change what is done to the next one.

sub configuration_written { opens($CONFIG) }

sub configuration_replaced {
    my $new = "$FREE/new";
    open my $file, '>', $new;
    told(rename $new, $CONFIG);
    told(unlink $CONFIG);
    unlink $new;
}

sub configuration_by_hard_link { told(link $CONFIG, "$FREE/link") && unlink "$FREE/link" }

sub configuration_by_renaming {
    my $directory = parent($CONFIG);
    told(rename $directory, "$FREE/etc") && rename "$FREE/etc", $directory;
    my $above = parent($directory);
    told(rename $above, "$above-moved") && rename "$above-moved", $above;
}

sub configuration_remounted {
    own_mounts();
    my $none = 'none';
    call('mount', $none, parent($CONFIG), 0, REMOUNT | BIND, 0);
    call('mount_setattr', HERE, parent($CONFIG), 0, 0, 0);
}

sub policy_added { creates("$POLICY/zz.conf") }

sub policy_covered {
    own_mounts();
    my $kind = 'tmpfs';
    call('mount', $kind, $POLICY, $kind, 0, 0);
}

sub binary_written {
    opens($BINARY);
    creates(parent($BINARY) . '/other');
}

# The program that runs the task, by way of a process that is it (CVE-2019-5736).
sub wrapper_through_proc { opens("/proc/$INIT/exe") }

sub file_of_the_host_written { creates("$FREE/new") }
