//! What a `standard` task can ask by way of the message bus, tried on the real daemon with the clients of
//! both libraries that there are.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use sandbox::profile::paths::SERVICE_MANAGER;
use sandbox::{Outcome, Profile};

use crate::bed::{Run, skip, wait_until};
use crate::host::{Host, SUPPORT};

const DAEMON: &str = "/usr/bin/dbus-daemon";

/// Like the system's, but that everything may be sent: what is refused, the filter refuses.
const CONFIG: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=SOCKET</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_type="method_call"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
  </policy>
</busconfig>
"#;

/// A host on which a message bus runs.
struct Bus {
    host: Host,
    daemon: Child,
}

impl Bus {
    fn start() -> Option<Self> {
        for program in [DAEMON, "/usr/bin/dbus-send"] {
            if !Path::new(program).exists() {
                skip("programs", &format!("{program} is not installed"));
                return None;
            }
        }
        let host = Host::set_up()?;
        let config = host.path("bus.conf");
        let text = CONFIG.replace("SOCKET", host.bus().to_str().unwrap());
        fs::write(&config, text).unwrap();
        // A socket beside it, as the service manager has one: nobody needs to listen.
        drop(std::os::unix::net::UnixListener::bind(host.path("bus/private")).unwrap());
        let daemon = Command::new(DAEMON)
            .args(["--nofork", "--nopidfile", "--nosyslog"])
            .arg(format!("--config-file={}", config.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let bus = Self {
            daemon: daemon.unwrap(),
            host,
        };
        wait_until("the message bus listens", || {
            std::os::unix::net::UnixStream::connect(bus.host.bus()).is_ok()
        });
        Some(bus)
    }

    /// What a task of this profile prints, to either stream.
    fn told(&self, profile: Profile, script: &str) -> String {
        let script = format!(
            "exec 2>&1; export DBUS_SYSTEM_BUS_ADDRESS=\"unix:path=$BUS\"
            ask() {{ dbus-send --system --print-reply --dest=\"$@\" | sed 's/ time=.*//'; }}
            {script}"
        );
        let run = self.host.of(profile, Run::sh(&SUPPORT, &script));
        let result = run.finish();
        assert_eq!(
            result.report.outcome,
            Outcome::Exited { code: 0 },
            "{}",
            result.stdout()
        );
        result.stdout().to_owned()
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
    }
}

/// Nobody on this bus restarts anything: that the bus says so shows that it was asked.
const UNKNOWN: &str = "org.freedesktop.DBus.Error.ServiceUnknown";
const DENIED: &str = "org.freedesktop.DBus.Error.AccessDenied";

#[test]
fn services_are_restarted_and_no_program_is_run() {
    let Some(bus) = Bus::start() else { return };
    let calls = [
        (
            "systemd1",
            "systemd1.Manager.RestartUnit string:cron.service string:replace",
            UNKNOWN,
        ),
        ("systemd1", "systemd1.Manager.Reload", UNKNOWN),
        ("systemd1", "DBus.Properties.Get string:a string:b", UNKNOWN),
        ("login1", "login1.Manager.Reboot boolean:false", UNKNOWN),
        (
            "systemd1",
            "systemd1.Manager.StartTransientUnit string:x.service string:fail",
            DENIED,
        ),
        (
            "systemd1",
            "systemd1.Manager.SetEnvironment array:string:LD_PRELOAD=/x",
            DENIED,
        ),
        (
            "systemd1",
            "systemd1.Manager.SetUnitProperties string:cron.service",
            DENIED,
        ),
        (
            "systemd1",
            "systemd1.Unit.SetProperties boolean:true",
            DENIED,
        ),
        (
            "systemd1",
            "DBus.Properties.Set string:a string:b variant:string:c",
            DENIED,
        ),
        (
            "machine1",
            "machine1.Manager.OpenMachineShell string:.host",
            DENIED,
        ),
        (
            "timedate1",
            "timedate1.SetTime int64:0 boolean:false boolean:false",
            DENIED,
        ),
        (
            "PolicyKit1",
            "PolicyKit1.Authority.EnumerateActions string:C",
            DENIED,
        ),
        (
            "DBus",
            "DBus.Monitoring.BecomeMonitor array:string: uint32:0",
            DENIED,
        ),
        ("DBus", "DBus.UpdateActivationEnvironment", DENIED),
        (
            "DBus",
            "DBus.RequestName string:org.freedesktop.systemd1 uint32:0",
            DENIED,
        ),
    ];
    for (service, call, expected) in calls {
        let script = format!(
            "ask org.freedesktop.{service} /org/freedesktop/{service} org.freedesktop.{call}"
        );
        let told = bus.told(Profile::Standard, &script);
        assert!(told.contains(expected), "{call}: {told}");
        // Without the filter the bus itself has an answer to each, and it is another.
        let direct = bus.told(Profile::Host, &script);
        assert!(
            !direct.contains("of the profile standard"),
            "{call}: {direct}"
        );
    }
}

#[test]
fn what_the_bus_answers_arrives_as_it_is() {
    let Some(bus) = Bus::start() else { return };
    let script = "
        ask org.freedesktop.DBus / org.freedesktop.DBus.GetNameOwner string:org.freedesktop.DBus
        ask org.freedesktop.DBus / org.freedesktop.DBus.ListNames | grep -c org.freedesktop.DBus
        ask org.freedesktop.DBus / org.freedesktop.DBus.Introspectable.Introspect | grep -c '<method'";
    let told = bus.told(Profile::Standard, script);
    assert!(
        told.contains("string \"org.freedesktop.DBus\"\n1\n"),
        "{told}"
    );
    assert_eq!(told, bus.told(Profile::Host, script));
}

#[test]
fn the_bus_sees_the_user_who_asks() {
    let Some(bus) = Bus::start() else { return };
    // The client names its user at the login, and the bus believes the kernel alone.
    let script = "su -s /bin/sh nobody -c '
        dbus-send --system --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.GetId
        ' | grep -c string";
    assert_eq!(bus.told(Profile::Standard, script), "1\n");
}

#[test]
fn the_client_of_systemd_is_served_too() {
    let Some(bus) = Bus::start() else { return };
    if !Path::new("/usr/bin/busctl").exists() {
        return skip("busctl", "systemd is not installed");
    }
    let script = "
        call() { busctl --address=\"unix:path=$BUS\" call org.freedesktop.systemd1 \
            /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager \"$@\" || :; }
        call RestartUnit ss cron.service replace
        call StartTransientUnit ss x.service fail";
    let told = bus.told(Profile::Standard, script);
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 2, "{told}");
    assert!(lines[0].contains("org.freedesktop.systemd1"), "{told}");
    assert!(lines[1].contains("Access denied"), "{told}");
}

#[test]
fn what_is_no_message_ends_its_connection_and_no_other() {
    let Some(bus) = Bus::start() else { return };
    let script = r#"perl -MIO::Socket::UNIX -e '
            my $start = "\0AUTH EXTERNAL 30\r\nBEGIN\r\n";
            for my $sent ("GET / HTTP/1.1\r\n\r\n", "\0AUTH ANONYMOUS\r\n", $start . "x" x 999) {
                my $bus = IO::Socket::UNIX->new($ENV{BUS});
                print $bus $sent;
                $bus->flush;
                1 while sysread $bus, my $answer, 999;
                print "ended\n";
            }'
        ask org.freedesktop.DBus / org.freedesktop.DBus.GetId | grep -c string"#;
    assert_eq!(
        bus.told(Profile::Standard, script),
        "ended\nended\nended\n1\n"
    );
}

#[test]
fn nothing_but_the_filter_is_in_the_directory_of_the_bus() {
    let Some(bus) = Bus::start() else { return };
    let script = "ls \"$(dirname \"$BUS\")\"; rm \"$BUS\" || echo stays";
    let told = bus.told(Profile::Standard, script);
    assert!(told.starts_with("system_bus_socket\n"), "{told}");
    assert!(
        told.contains("Read-only file system") && told.ends_with("stays\n"),
        "{told}"
    );
}

#[test]
fn of_the_service_managers_own_directory_only_what_is_listed_is_there() {
    let names = |path: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect()
    };
    let there = names("/run/systemd");
    if there.is_empty() {
        return skip("systemd", "this host has no /run/systemd");
    }
    let Some(bus) = Bus::start() else { return };
    let kept = SERVICE_MANAGER.iter().filter_map(|place| {
        let name = place.path.strip_prefix("/run/systemd/")?;
        there.contains(name).then(|| format!("{name}\n"))
    });
    let kept: BTreeSet<String> = kept.collect();
    let told = bus.told(
        Profile::Standard,
        "LC_ALL=C ls /run/systemd; ls /run/user 2>/dev/null || :",
    );
    assert_eq!(told, kept.into_iter().collect::<String>());
}

#[test]
fn the_process_between_ends_with_the_task() {
    let Some(bus) = Bus::start() else { return };
    bus.told(
        Profile::Standard,
        "ask org.freedesktop.DBus / org.freedesktop.DBus.GetId",
    );
    let socket = bus.host.bus();
    wait_until("nobody serves the bus of the task that has ended", || {
        fs::read_dir("/proc").unwrap().flatten().all(|process| {
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            let mut arguments = line.split(|byte| *byte == 0);
            arguments.all(|argument| argument != socket.as_os_str().as_encoded_bytes())
        })
    });
}
