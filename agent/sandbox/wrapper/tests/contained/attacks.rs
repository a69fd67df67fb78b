//! What a task must not be able to do, tried in each profile. `ATTACKS.md` of the crate `sandbox` says
//! what each attack comes to, in words and in a table; these tests hold the table to be true.
//!
//! An attack is a function in one of the Perl files beside this one. Perl makes any system call by its
//! number, and every Debian has it.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use nix::libc;
use sandbox::{Outcome, Profile};

use crate::bed::{Run, skip};
use crate::host::{Host, SUPPORT};
use crate::preparing::Row;

mod supervision;

const PERL: &str = "/usr/bin/perl";
const PRELUDE: &str = include_str!("attacks/prelude.pl");
const TABLE: &str = include_str!("../../../ATTACKS.md");

macro_rules! attacks {
    ($($file:ident: $($name:ident)*;)*) => {
        $($(
            #[test]
            fn $name() {
                try_in_each_profile(
                    stringify!($name),
                    include_str!(concat!("attacks/", stringify!($file), ".pl")),
                );
            }
        )*)*

        const NAMES: &[&str] = &[$($(stringify!($name),)*)*];
    };
}

attacks! {
    secrets:
        key_read key_through_proc key_by_symbolic_link key_by_hard_link key_by_bind_mount
        key_by_unmasking key_by_renaming key_by_handle key_on_the_disk key_out_of_a_chroot
        key_by_inherited_descriptor spool_list spool_read spool_write spool_replaced
        task_file_changed tmp_of_others;
    lasting:
        configuration_written configuration_replaced configuration_by_hard_link
        configuration_by_renaming configuration_remounted policy_added policy_covered
        binary_written wrapper_through_proc file_of_the_host_written;
    processes:
        agent_signalled agent_traced agent_memory_by_calls agent_memory_by_proc
        agent_environment agent_descriptors agent_socket agent_namespaces prepared_view_reached
        namespace_of_users namespaces_of_other_kinds keyring_used words_put_into_a_terminal;
    kernel:
        module_loaded kexec bpf_program processes_observed page_faults_handled io_uring
        calls_of_another_abi reboot swap_added clock_set kernel_log host_name_set sysrq
        kernel_settings device_settings memory_device mount_of_a_new_kind another_root
        cgroup_left cgroup_made;
    rights:
        capability_raised capability_by_file user_by_set_user_id user_changed limits_raised
        passwords_read network_reached memory_filled_by_files;
}

/// What the attacks call by number.
const CALLS: &[(&str, libc::c_long)] = &[
    ("add_key", libc::SYS_add_key),
    ("bpf", libc::SYS_bpf),
    ("capget", libc::SYS_capget),
    ("capset", libc::SYS_capset),
    ("clock_settime", libc::SYS_clock_settime),
    ("clone", libc::SYS_clone),
    ("clone3", libc::SYS_clone3),
    ("delete_module", libc::SYS_delete_module),
    ("finit_module", libc::SYS_finit_module),
    ("fsopen", libc::SYS_fsopen),
    ("init_module", libc::SYS_init_module),
    ("io_uring_setup", libc::SYS_io_uring_setup),
    ("kexec_load", libc::SYS_kexec_load),
    ("keyctl", libc::SYS_keyctl),
    ("mknodat", libc::SYS_mknodat),
    ("mount", libc::SYS_mount),
    ("mount_setattr", libc::SYS_mount_setattr),
    ("move_mount", libc::SYS_move_mount),
    ("open_by_handle_at", libc::SYS_open_by_handle_at),
    ("open_tree", libc::SYS_open_tree),
    ("perf_event_open", libc::SYS_perf_event_open),
    ("pidfd_getfd", libc::SYS_pidfd_getfd),
    ("pidfd_open", libc::SYS_pidfd_open),
    ("pivot_root", libc::SYS_pivot_root),
    ("prlimit64", libc::SYS_prlimit64),
    ("process_vm_readv", libc::SYS_process_vm_readv),
    ("process_vm_writev", libc::SYS_process_vm_writev),
    ("ptrace", libc::SYS_ptrace),
    ("reboot", libc::SYS_reboot),
    ("request_key", libc::SYS_request_key),
    ("sethostname", libc::SYS_sethostname),
    ("setns", libc::SYS_setns),
    ("setresuid", libc::SYS_setresuid),
    ("settimeofday", libc::SYS_settimeofday),
    ("setxattr", libc::SYS_setxattr),
    ("swapon", libc::SYS_swapon),
    ("syslog", libc::SYS_syslog),
    ("umount2", libc::SYS_umount2),
    ("unshare", libc::SYS_unshare),
    ("userfaultfd", libc::SYS_userfaultfd),
];

/// A line of the table: what comes of an attack, in the order of its columns. `None` where it is not
/// tried.
type Expected = [(Profile, Option<BTreeSet<String>>); 3];

/// The lines of the table that name an attack, by their names.
fn table() -> Vec<(&'static str, Expected)> {
    let line = |line: &'static str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, _what, host, standard, confined] = cells[..] else {
            return None;
        };
        let name = name.strip_prefix('`')?.strip_suffix('`')?;
        let words = |cell: &str| {
            let words = cell.split_whitespace().map(str::to_owned);
            (cell != "–").then(|| words.collect())
        };
        let expected = [
            (Profile::Host, words(host)),
            (Profile::Standard, words(standard)),
            (Profile::Confined, words(confined)),
        ];
        Some((name, expected))
    };
    TABLE.lines().filter_map(line).collect()
}

#[test]
fn the_table_has_every_attack_and_no_other() {
    let mut told: Vec<String> = table().iter().map(|(name, _)| (*name).to_owned()).collect();
    told.sort();
    let mut tried: Vec<String> = NAMES.iter().map(|name| name.replace('_', "-")).collect();
    tried.sort();
    assert_eq!(told, tried);
}

/// Without the restrictions, an attack must come further: else it would show nothing. There other
/// processes of the machine may answer too, so that more may come of it than the table says.
fn try_in_each_profile(name: &str, script: &str) {
    if name == "agent_socket" && SUPPORT.landlock < 6 {
        return skip(
            "landlock",
            "abstract sockets are kept by Landlock 6 (Linux 6.12)",
        );
    }
    if !Path::new(PERL).exists() {
        return skip("programs", "there is no Perl");
    }
    let row = name.replace('_', "-");
    let table = table();
    let expected = table.iter().find(|(name, _)| *name == row);
    let (_, expected) = expected.unwrap_or_else(|| panic!("the table lacks {row}"));
    // In a view that was made for it, and in one that was prepared before.
    let made = expected.iter().map(|line| (line, false));
    let restricted = |(profile, _): &&_| *profile != Profile::Host;
    let prepared = expected.iter().filter(restricted).map(|line| (line, true));
    let found: Vec<_> = made
        .chain(prepared)
        .map(|((profile, expected), prepared)| {
            let tried = expected.as_ref()?;
            // A new one each: where nothing is restricted, an attack leaves traces.
            let found = attack(&Host::set_up()?, *profile, prepared, name, script);
            let as_told = match profile {
                Profile::Host => found.is_superset(tried),
                Profile::Standard | Profile::Confined => found.is_subset(tried),
            };
            Some((as_told && !found.is_empty(), found))
        })
        .collect();
    assert!(
        found.iter().flatten().all(|(as_told, _)| *as_told),
        "{row}: found {found:?}, expected {expected:?}"
    );
}

/// The words that the attack told.
fn attack(
    host: &Host,
    profile: Profile,
    prepared: bool,
    name: &str,
    script: &str,
) -> BTreeSet<String> {
    // Without the close-on-exec flag, as a careless library would open it.
    let key = fs::File::open(host.path("ssl/private_keys/node.pem")).unwrap();
    let _inherited = nix::unistd::dup(key.as_fd()).unwrap();
    let calls: Vec<String> = CALLS
        .iter()
        .map(|(name, number)| format!("{name} => {number}"))
        .collect();
    let script = format!(
        "{PRELUDE}\n%CALL = ({});\n{script}\n{name}();",
        calls.join(", ")
    );
    let run = Run::of(&SUPPORT, PERL, &["-e", &script]);
    let mut run = host.of(profile, run);
    let others = (name == "prepared_view_reached").then(|| {
        let row = Row::new();
        let waiting = row.begin(host, profile.max(Profile::Standard));
        (row, waiting)
    });
    if let Some((_row, waiting)) = &others {
        let view = ("VIEW".to_owned(), waiting.init.to_string());
        run.environment.push(view);
    }
    let result = if prepared {
        let row = Row::new();
        row.begin(host, profile);
        row.finish(&run)
    } else {
        run.finish()
    };
    assert_eq!(
        result.report.outcome,
        Outcome::Exited { code: 0 },
        "{name} in {profile}: {} {}",
        result.stdout(),
        result.stderr()
    );
    result.stdout().lines().map(str::to_owned).collect()
}
