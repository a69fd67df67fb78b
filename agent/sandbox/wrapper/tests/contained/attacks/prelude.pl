# What all attacks share. Each tells, a line a try, "done" or the name of the error that stopped it.
use strict;
use warnings;
use Errno;
use Fcntl;
use Socket;

our %CALL;    # the numbers of system calls
our ($KEY, $SPOOL, $OWN, $CONFIG, $POLICY, $BINARY, $FREE, $SCRATCH) =
    @ENV{qw(KEY SPOOL OWN CONFIG POLICY BINARY FREE SCRATCH)};
our $AGENT = $ENV{AGENT} + 0;
# Process 1 of a view that waits for the next task, where an attack is about it.
our $VIEW = ($ENV{VIEW} // 0) + 0;
# Process 1 of the task's namespace; without one the agent again, for the host's is not to be tried.
our $INIT = $ENV{INIT} + 0;

use constant {
    NEW_NAMESPACES => {
        mount => 0x20000, cgroup => 0x2000000, ipc => 0x8000000,
        pid => 0x20000000, net => 0x40000000,
    },
    NEW_USER => 0x10000000,
    SIGCHLD => 17,
    HERE => -100,        # AT_FDCWD
    BIND => 0x1000,      # MS_BIND
    REMOUNT => 0x20,     # MS_REMOUNT
    PRIVATE => 0x44000,  # MS_REC | MS_PRIVATE
    DETACH => 2,         # MNT_DETACH
};

sub told {
    my ($came) = @_;
    my ($error) = grep { $!{$_} } sort keys %!;
    print $came ? "done\n" : "$error\n";
    return $came;
}

sub call {
    my ($name, @arguments) = @_;
    return told(syscall($CALL{$name} // die("no number for $name"), @arguments) != -1);
}

sub reads {
    my ($path) = @_;
    my ($file, $byte);
    told(open($file, '<', $path) && defined(sysread($file, $byte, 1)));
}

# Opens for writing, and writes nothing.
sub opens {
    my ($path) = @_;
    told(open(my $file, '+<', $path));
}

sub creates {
    my ($path) = @_;
    told(sysopen(my $file, $path, O_WRONLY | O_CREAT | O_EXCL, 0600)) && unlink $path;
}

sub parent { my ($path) = @_; $path =~ s{/[^/]*$}{}; return $path }

# Mounts of its own, for where that is allowed: what is mounted then is nobody else's.
sub own_mounts {
    my $none = 'none';
    my $root = '/';
    syscall($CALL{unshare}, NEW_NAMESPACES->{mount}) == -1
        or syscall($CALL{mount}, $none, $root, 0, PRIVATE, 0);
}

$| = 1;
