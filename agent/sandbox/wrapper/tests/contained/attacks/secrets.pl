# The node's key, the agent's spool and what is in them.

sub key_read { reads($KEY) }

sub key_through_proc {
    for my $process (glob '/proc/[0-9]*') {
        reads("$process/root$KEY");
        reads("$process/cwd/../../../../..$KEY");
    }
}

sub key_by_symbolic_link {
    symlink $KEY, "$SCRATCH/link";
    reads("$SCRATCH/link");
}

sub key_by_hard_link { told(link $KEY, "$FREE/link") && unlink "$FREE/link" }

sub key_by_bind_mount {
    own_mounts();
    call('mount', parent(parent($KEY)), $FREE, 0, BIND, 0);
}

sub key_by_unmasking {
    own_mounts();
    call('umount2', parent($KEY), DETACH);
}

sub key_by_renaming {
    my $above = parent(parent($KEY));
    for my $path (parent($KEY), $above) {
        told(rename $path, "$path-moved") && rename "$path-moved", $path;
    }
}

sub key_by_handle { call('open_by_handle_at', HERE, 0, 0) }

sub key_on_the_disk {
    my $disk = "$FREE/disk";
    call('mknodat', HERE, $disk, 060600, (stat $FREE)[0]) && unlink $disk;
}

# A directory kept open leads out of any root but the first.
sub key_out_of_a_chroot {
    opendir my $outside, '/';
    mkdir "$SCRATCH/root";
    chroot "$SCRATCH/root";
    chdir $outside;
    chdir '..' for 1 .. 50;
    chroot '.';
    reads($KEY);
}

# The starter of the wrapper holds the key open, and lets it be inherited.
sub key_by_inherited_descriptor {
    told(open(my $file, '<&=', $_)) for 3 .. 255;
}

sub spool_list {
    opendir my $spool, $SPOOL or return told(0);
    my @others = grep { !/^\.\.?$/ && $_ ne 'own' } readdir $spool;
    print @others ? "done\n" : "nothing\n";
}

sub spool_read { reads("$SPOOL/other/params") }

sub spool_write {
    creates("$SPOOL/new");
    creates("$SPOOL/own/new");
}

sub spool_replaced {
    told(rename $SPOOL, "$FREE/spool") && rename "$FREE/spool", $SPOOL;
    told(rmdir $SPOOL);
}

sub task_file_changed {
    opens($OWN);
    told(rename $OWN, "$OWN-moved") && rename "$OWN-moved", $OWN;
    told(link $OWN, "$FREE/own") && unlink "$FREE/own";
    my $own = $OWN;
    my $other = '/bin/sh';
    own_mounts();
    call('mount', $other, $own, 0, BIND, 0);
}

sub tmp_of_others { reads($ENV{OTHERS_TMP}) }
