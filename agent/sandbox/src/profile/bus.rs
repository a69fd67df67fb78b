//! What a `standard` task may ask of the daemons behind the system's message bus (D-Bus). Everything that
//! is not here is refused. What is here restarts and describes services; what would run a program of the
//! caller's choice outside of the task (`StartTransientUnit`), or put words into the environment of every
//! service (`SetEnvironment`), is not.

/// An interface of a service, and the methods of it that are allowed.
#[derive(Debug, Clone, Copy)]
pub struct Interface {
    /// The name by which the service is called.
    pub service: &'static str,
    /// The interface's name.
    pub name: &'static str,
    /// The methods.
    pub methods: &'static [&'static str],
    /// What ordinary administration needs them for.
    pub why: &'static str,
}

/// The bus itself, which is a service too.
pub const BUS: &str = "org.freedesktop.DBus";
const SYSTEMD: &str = "org.freedesktop.systemd1";
const LOGIN: &str = "org.freedesktop.login1";

const fn interface(
    service: &'static str,
    name: &'static str,
    methods: &'static [&'static str],
    why: &'static str,
) -> Interface {
    Interface {
        service,
        name,
        methods,
        why,
    }
}

/// What is allowed, beside [`EVERYWHERE`].
pub const ALLOWED: &[Interface] = &[
    interface(
        BUS,
        BUS,
        &[
            "Hello",
            "AddMatch",
            "RemoveMatch",
            "GetId",
            "GetNameOwner",
            "NameHasOwner",
            "ListNames",
            "ListActivatableNames",
            "GetConnectionUnixUser",
            "GetConnectionUnixProcessID",
            "GetConnectionCredentials",
        ],
        "be on the bus, and know who else is",
    ),
    interface(
        SYSTEMD,
        "org.freedesktop.systemd1.Manager",
        &[
            "GetUnit",
            "GetUnitByPID",
            "GetUnitByInvocationID",
            "GetUnitFileState",
            "GetUnitFileLinks",
            "GetUnitProcesses",
            "GetDefaultTarget",
            "GetJob",
            "ListJobs",
            "ListUnits",
            "ListUnitsFiltered",
            "ListUnitsByPatterns",
            "ListUnitsByNames",
            "ListUnitFiles",
            "ListUnitFilesByPatterns",
            "LoadUnit",
            "Subscribe",
            "Unsubscribe",
        ],
        "see services, and follow what becomes of them",
    ),
    interface(
        SYSTEMD,
        "org.freedesktop.systemd1.Manager",
        &[
            "StartUnit",
            "StartUnitWithFlags",
            "StopUnit",
            "ReloadUnit",
            "RestartUnit",
            "TryRestartUnit",
            "ReloadOrRestartUnit",
            "ReloadOrTryRestartUnit",
            "EnqueueMarkedJobs",
            "KillUnit",
            "ResetFailedUnit",
            "ResetFailed",
            "CancelJob",
        ],
        "start, stop, reload, restart and signal services",
    ),
    interface(
        SYSTEMD,
        "org.freedesktop.systemd1.Manager",
        &[
            "Reload",
            "EnableUnitFiles",
            "EnableUnitFilesWithFlags",
            "DisableUnitFiles",
            "DisableUnitFilesWithFlags",
            "DisableUnitFilesWithFlagsAndInstallInfo",
            "ReenableUnitFiles",
            "PresetUnitFiles",
            "PresetUnitFilesWithMode",
            "MaskUnitFiles",
            "UnmaskUnitFiles",
            "RevertUnitFiles",
            "SetDefaultTarget",
        ],
        "have units take effect that packages bring: the files are the task's to write anyway",
    ),
    interface(
        SYSTEMD,
        "org.freedesktop.systemd1.Unit",
        &[
            "Start",
            "Stop",
            "Reload",
            "Restart",
            "TryRestart",
            "ReloadOrRestart",
            "ReloadOrTryRestart",
            "ResetFailed",
            "Ref",
            "Unref",
        ],
        "the same, by the unit's own object",
    ),
    interface(
        LOGIN,
        "org.freedesktop.login1.Manager",
        &[
            "ListSessions",
            "ListUsers",
            "ListInhibitors",
            "CanReboot",
            "CanPowerOff",
            "Reboot",
            "RebootWithFlags",
            "PowerOff",
            "PowerOffWithFlags",
            "ScheduleShutdown",
            "CancelScheduledShutdown",
            "SetWallMessage",
        ],
        "restart the machine, at once or later",
    ),
    interface(
        "org.freedesktop.hostname1",
        "org.freedesktop.hostname1",
        &[
            "SetHostname",
            "SetStaticHostname",
            "SetPrettyHostname",
            "SetChassis",
            "SetDeployment",
            "SetLocation",
        ],
        "hostnamectl",
    ),
    interface(
        "org.freedesktop.timedate1",
        "org.freedesktop.timedate1",
        &["SetTimezone", "SetNTP", "ListTimezones"],
        "timedatectl, but for the clock itself, by which expired certificates would be valid",
    ),
    interface(
        "org.freedesktop.locale1",
        "org.freedesktop.locale1",
        &["SetLocale", "SetVConsoleKeyboard", "SetX11Keyboard"],
        "localectl",
    ),
];

/// What may be asked of each service that [`ALLOWED`] names: all that only looks.
pub const EVERYWHERE: &[(&str, &[&str])] = &[
    ("org.freedesktop.DBus.Properties", &["Get", "GetAll"]),
    ("org.freedesktop.DBus.Introspectable", &["Introspect"]),
    ("org.freedesktop.DBus.Peer", &["Ping", "GetMachineId"]),
];

/// Whether a task may call this method.
#[must_use]
pub fn allows(service: &str, interface: &str, method: &str) -> bool {
    let mut of_service = ALLOWED.iter().filter(|one| one.service == service);
    let looks = EVERYWHERE
        .iter()
        .any(|(name, methods)| *name == interface && methods.contains(&method));
    of_service.any(|one| looks || (one.name == interface && one.methods.contains(&method)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_restarted_and_no_program_is_run() {
        let manager = "org.freedesktop.systemd1.Manager";
        for method in ["RestartUnit", "ListUnits", "Reload", "EnableUnitFiles"] {
            assert!(allows(SYSTEMD, manager, method), "{method}");
        }
        for method in [
            "StartTransientUnit",
            "StartAuxiliaryScope",
            "AttachProcessesToUnit",
            "SetUnitProperties",
            "BindMountUnit",
            "MountImageUnit",
            "SetEnvironment",
            "UnsetAndSetEnvironment",
            "LinkUnitFiles",
            "SwitchRoot",
            "KExec",
            "Reexecute",
            "DumpByFileDescriptor",
            "restartunit",
            "",
        ] {
            assert!(!allows(SYSTEMD, manager, method), "{method}");
        }
        assert!(!allows(
            SYSTEMD,
            "org.freedesktop.systemd1.Unit",
            "SetProperties"
        ));
        assert!(!allows(SYSTEMD, "org.freedesktop.DBus.Properties", "Set"));
        assert!(allows(SYSTEMD, "org.freedesktop.DBus.Properties", "GetAll"));
    }

    #[test]
    fn what_is_allowed_of_one_service_is_not_of_another() {
        assert!(!allows(
            "org.freedesktop.machine1",
            "org.freedesktop.DBus.Peer",
            "Ping"
        ));
        assert!(!allows(
            LOGIN,
            "org.freedesktop.systemd1.Manager",
            "RestartUnit"
        ));
        assert!(!allows(
            BUS,
            "org.freedesktop.DBus.Monitoring",
            "BecomeMonitor"
        ));
        assert!(!allows(BUS, BUS, "UpdateActivationEnvironment"));
        assert!(!allows(
            "org.freedesktop.timedate1",
            "org.freedesktop.timedate1",
            "SetTime"
        ));
    }

    #[test]
    fn every_rule_has_a_reason_and_no_method_is_named_twice() {
        assert!(ALLOWED.iter().all(|one| !one.why.is_empty()));
        let mut all: Vec<_> = ALLOWED
            .iter()
            .flat_map(|one| one.methods.iter().map(|method| (one.name, *method)))
            .collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
