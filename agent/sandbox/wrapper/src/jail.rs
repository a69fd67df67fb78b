//! The mount namespace of a task, arranged from the outside in by process 1 of its PID namespace. All
//! of it is gone with the namespace. What is the same for all tasks of a profile comes first, and may be
//! done before a task is there ([`arrange`]); what belongs to one comes last ([`View::add`]).
//!
//! A small file system in memory is put on `/proc`, which gets another one at the end anyway; on this
//! bench lie the task's own directories and the two things that masks are made of.

use std::ffi::CString;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use sandbox::mounts::{self, Mount};
use sandbox::profile::SCRATCH_BYTES;
use sandbox::profile::paths::{DAEMONS, DEVICES, KERNEL, PERSISTENT, Place, SERVICE_MANAGER};
use sandbox::{Jail, Profile, UserIds};
use sandbox_sys::Restriction;

use crate::fault::Failed;

mod ground;
mod own;

pub(crate) use ground::{Ground, Seals};
pub(crate) use own::Own;

const STEP: &str = "jail";
const TABLE: &str = "/proc/self/mountinfo";

/// The bench.
const BENCH: &str = "/proc";
/// What a hidden directory shows: nothing.
const EMPTY: &str = "/proc/empty";
/// What a hidden file is: a socket that nobody listens on. Even root cannot open it.
const NOTHING: &str = "/proc/nothing";
const TMP: &str = "/proc/tmp";
const DEV: &str = "/proc/dev";
/// What the directory of the message bus's socket shows: a socket with a filter behind it, or nothing.
const BUS: &str = "/proc/bus";

/// The group `tty`, which terminals belong to on every distribution.
const TTY: u32 = 5;

/// Arranges everything, `/proc` included. `bus` is the socket that stands for the message bus's.
pub(crate) fn enclose(
    jail: &Jail,
    user: Option<UserIds>,
    bus: Option<&Path>,
) -> Result<(), Failed> {
    follow_the_host()?;
    let own = Own::take(jail, bus)?;
    arrange(jail, &Names::find(jail)?, user, own.places())?.add(&own)
}

/// Arranges all but what is a task's own. A place of that below something that is hidden is among `holes`,
/// or in what the jail itself names as hidden.
pub(crate) fn arrange(
    jail: &Jail,
    names: &Names,
    user: Option<UserIds>,
    holes: &[PathBuf],
) -> Result<View, Failed> {
    let confined = jail.profile == Profile::Confined;
    let table = mount_table(&mut File::open(TABLE).map_err(failed(TABLE))?)?;
    let protected = Protected::find(names, jail.profile, &mounts::parse(&table), holes);
    if confined {
        restrict(
            "/",
            Restriction::READ_ONLY.and(Restriction::NO_SETUID),
            true,
        )?;
    }
    let kept = set_bench(names, confined)?;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let bench = open(BENCH, flags, Mode::empty()).map_err(at(BENCH))?;
    make(BUS, 0o755)?;
    devices(confined, user)?;
    own_tmp(jail, confined)?;
    place(kept.iter().filter(|kept| kept.shared))?;
    let masks = protected.mask()?;
    place(kept.iter().filter(|kept| !kept.shared))?;
    kernel(confined)?;
    let kept = kept.into_iter().map(|kept| kept.place);
    let Protected {
        fixed,
        read_only,
        hidden,
        ..
    } = protected;
    let places = [fixed, read_only, hidden].concat();
    Ok(View {
        bench,
        masks,
        bus: names.bus.clone(),
        places: places.into_iter().chain(kept).collect(),
    })
}

/// The kernel's list of mounts, which it tells in pieces of a page.
fn mount_table(file: &mut File) -> Result<String, Failed> {
    let mut table = String::with_capacity(16 * 1024);
    file.read_to_string(&mut table).map_err(failed(TABLE))?;
    Ok(table)
}

/// "Slave": what the host mounts and unmounts meanwhile is followed, or a task would keep a removed disk
/// busy. Nothing that is mounted in here is seen by the host.
pub(crate) fn follow_the_host() -> Result<(), Failed> {
    change("/", MsFlags::MS_REC | MsFlags::MS_SLAVE)
}

/// A mount namespace that lacks nothing but what is a task's own.
#[derive(Debug)]
pub(crate) struct View {
    /// The directory that masks are made of, which nobody can reach by a path any more.
    bench: OwnedFd,
    masks: Masks,
    /// The directory of the message bus's socket.
    bus: Option<PathBuf>,
    /// Whatever was mounted over, or would have been, had it been there.
    places: Vec<PathBuf>,
}

/// Places of the host that a view is about: real paths of what is there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Names {
    hidden: Vec<PathBuf>,
    read_only: Vec<PathBuf>,
    shared: Vec<PathBuf>,
    /// Where the socket of the message bus lies.
    bus: Option<PathBuf>,
    daemons: Vec<PathBuf>,
    /// What is seen below something that is hidden.
    service_manager: Vec<PathBuf>,
}

impl Names {
    /// Looks at the mount namespace that this process is in.
    pub(crate) fn find(jail: &Jail) -> Result<Self, Failed> {
        let mut names = Self {
            hidden: real(&jail.hidden)?,
            read_only: real(&jail.read_only)?,
            shared: real(&jail.shared)?,
            bus: None,
            daemons: Vec::new(),
            service_manager: Vec::new(),
        };
        if jail.profile == Profile::Standard {
            names.read_only.extend(places(PERSISTENT)?);
            names.daemons = places(DAEMONS)?;
            // The directory: the daemon may put another socket in the place of this one.
            let bus = jail.bus.as_deref().and_then(Path::parent);
            names.bus = real(bus.map(Path::to_owned).as_slice())?.pop();
            names.service_manager = places(SERVICE_MANAGER)?;
            names.service_manager.retain(|path| path.is_dir());
        } else {
            // No daemon is reached by a path either.
            names.hidden.extend(real(&["/run".into()])?);
        }
        Ok(names)
    }

    /// All of them, list by list.
    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        let lists = [
            &self.hidden,
            &self.read_only,
            &self.shared,
            &self.daemons,
            &self.service_manager,
        ];
        lists.into_iter().flatten().chain(&self.bus)
    }
}

/// What is hidden, in the mount namespace as it is.
#[derive(Debug, Default)]
struct Masks {
    /// Directories that can have holes, and what is seen in their places, on the bench.
    open: Vec<(PathBuf, PathBuf)>,
    /// What has none.
    closed: Vec<PathBuf>,
}

/// What is to be kept from the task, other ways to it included.
struct Protected<'a> {
    names: &'a Names,
    /// Directories that could otherwise be renamed.
    fixed: Vec<PathBuf>,
    read_only: Vec<PathBuf>,
    hidden: Vec<PathBuf>,
    /// Where something that is hidden must be seen: below one of these.
    visible: Vec<PathBuf>,
}

/// A directory of the host that is put back into its place.
struct Kept {
    place: PathBuf,
    bench: PathBuf,
    shared: bool,
}

impl<'a> Protected<'a> {
    fn find(names: &'a Names, profile: Profile, table: &[Mount], holes: &[PathBuf]) -> Self {
        let mut hidden = names.hidden.clone();
        let mut read_only = names.read_only.clone();
        let mut fixed = Vec::new();
        if profile == Profile::Standard {
            let named: Vec<PathBuf> = hidden.iter().chain(&read_only).cloned().collect();
            fixed = mounts::renameable(table, &named);
            hidden.extend(names.daemons.iter().chain(&names.bus).cloned());
        }
        let also = |paths: &[PathBuf]| -> Vec<PathBuf> {
            paths
                .iter()
                .flat_map(|path| mounts::aliases(table, path))
                .collect()
        };
        read_only.extend(also(&read_only));
        hidden.extend(also(&hidden));
        hidden.extend(mounts::kernel_elsewhere(table));
        for list in [&mut read_only, &mut hidden] {
            list.sort();
            list.dedup();
        }
        // What lies in something that is hidden is hidden with it.
        let outer = hidden.clone();
        hidden.retain(|path| !outer.iter().any(|other| inside(path, other)));
        read_only.retain(|path| !outer.iter().any(|other| path.starts_with(other)));
        Self {
            names,
            fixed,
            read_only,
            hidden,
            visible: [names.service_manager.as_slice(), holes].concat(),
        }
    }

    fn mask(&self) -> Result<Masks, Failed> {
        let mut masks = Masks::default();
        for path in self.fixed.iter().filter(|path| path.exists()) {
            // A mount point cannot be renamed.
            bind(path, path)?;
        }
        for path in self.read_only.iter().filter(|path| path.exists()) {
            bind(path, path)?;
            restrict(path, Restriction::READ_ONLY, true)?;
        }
        for (index, path) in self.hidden.iter().enumerate() {
            let Ok(found) = fs::symlink_metadata(path) else {
                continue;
            };
            if !found.is_dir() {
                masks.closed.push(path.clone());
                bind(Path::new(NOTHING), path)?;
                continue;
            }
            if self.names.bus.as_ref() == Some(path) {
                masks.closed.push(path.clone());
                bind(Path::new(BUS), path)?;
                restrict(path, Restriction::READ_ONLY, false)?;
                continue;
            }
            let mut holes = self.visible.iter().filter(|hole| inside(hole, path));
            let mut skeleton = PathBuf::from(EMPTY);
            if self.names.hidden.contains(path) || holes.clone().next().is_some() {
                let name = PathBuf::from(format!("mask-{index}"));
                skeleton = Path::new(BENCH).join(&name);
                make_all(&skeleton)?;
                masks.open.push((path.clone(), name));
            } else {
                masks.closed.push(path.clone());
            }
            holes.try_for_each(|hole| {
                make_all(&skeleton.join(hole.strip_prefix(path).unwrap_or(hole)))
            })?;
            bind(&skeleton, path)?;
            restrict(path, Restriction::READ_ONLY, false)?;
        }
        Ok(masks)
    }
}

/// Puts the bench up, with all that must be taken from the host before it is covered.
fn set_bench(names: &Names, confined: bool) -> Result<Vec<Kept>, Failed> {
    let size = if confined {
        format!("mode=755,size={SCRATCH_BYTES}")
    } else {
        "mode=755".to_owned()
    };
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(
        Some("tmpfs"),
        BENCH,
        Some("tmpfs"),
        flags,
        Some(size.as_str()),
    )
    .map_err(at(BENCH))?;
    make(EMPTY, 0o555)?;
    mknod(NOTHING, SFlag::S_IFSOCK, Mode::empty(), 0).map_err(at(NOTHING))?;
    let visible = names.service_manager.iter().map(|path| (path, false));
    let shared = names.shared.iter().map(|path| (path, true));
    let mut kept = Vec::new();
    for (index, (place, shared)) in visible.chain(shared).enumerate() {
        let bench = Path::new(BENCH).join(format!("kept-{index}"));
        make(&bench, 0o755)?;
        bind(place, &bench)?;
        kept.push(Kept {
            place: place.clone(),
            bench,
            shared,
        });
    }
    Ok(kept)
}

/// A `/dev` without the host's disks, memory and terminals.
fn devices(confined: bool, user: Option<UserIds>) -> Result<(), Failed> {
    make(DEV, 0o755)?;
    mount(
        Some("tmpfs"),
        DEV,
        Some("tmpfs"),
        MsFlags::MS_NOSUID,
        Some("mode=755,size=64k"),
    )
    .map_err(at(DEV))?;
    let dev = Path::new(DEV);
    for device in DEVICES {
        let path = dev.join(device.name);
        if user.is_some() {
            // Only root makes devices; the host's are the same.
            File::create(&path).map_err(failed(&path))?;
            bind(&Path::new("/dev").join(device.name), &path)?;
        } else {
            let number = makedev(device.major, device.minor);
            mknod(&path, SFlag::S_IFCHR, Mode::empty(), number).map_err(at(&path))?;
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666))
                .map_err(failed(&path))?;
        }
    }
    let links = [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ];
    for (name, target) in links {
        symlink(target, dev.join(name)).map_err(failed(dev.join(name)))?;
    }
    let pts = dev.join("pts");
    make(&pts, 0o755)?;
    let group = if user.is_some() {
        String::new()
    } else {
        format!(",gid={TTY}")
    };
    let options = format!("newinstance,ptmxmode=0666,mode=0620{group}");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(
        Some("devpts"),
        &pts,
        Some("devpts"),
        flags,
        Some(options.as_str()),
    )
    .map_err(at(&pts))?;
    let shm = dev.join("shm");
    make(&shm, 0o1777)?;
    if !confined {
        // Databases share memory with their clients there.
        if Path::new("/dev/shm").is_dir() {
            bind(Path::new("/dev/shm"), &shm)?;
        }
        syslog(dev)?;
    }
    if confined {
        restrict(DEV, Restriction::READ_ONLY, false)?;
    }
    let none = None::<&str>;
    mount(Some(DEV), "/dev", none, MsFlags::MS_MOVE, none).map_err(at("/dev"))
}

/// The way to the system log, as the host has it.
fn syslog(dev: &Path) -> Result<(), Failed> {
    let log = Path::new("/dev/log");
    let own = dev.join("log");
    if let Ok(target) = fs::read_link(log) {
        symlink(target, &own).map_err(failed(&own))
    } else if log.exists() {
        File::create(&own).map_err(failed(&own))?;
        bind(log, &own)
    } else {
        Ok(())
    }
}

/// A `/tmp` that is empty at first and gone afterwards.
fn own_tmp(jail: &Jail, confined: bool) -> Result<(), Failed> {
    make(TMP, 0o1777)?;
    if confined {
        bind(Path::new(TMP), Path::new("/tmp"))?;
        // One scratch directory, whatever it is called.
        return if Path::new("/var/tmp").is_dir() {
            bind(Path::new(EMPTY), Path::new("/var/tmp"))
        } else {
            Ok(())
        };
    }
    if jail.shared.iter().any(|path| path == Path::new("/tmp")) {
        return Ok(());
    }
    bind(Path::new(TMP), Path::new("/tmp"))
}

/// Puts directories of the host back into their places.
fn place<'a>(kept: impl Iterator<Item = &'a Kept>) -> Result<(), Failed> {
    for kept in kept {
        // In a directory of the task's own they are still to be made.
        if !kept.place.exists() {
            make_all(&kept.place)?;
        }
        bind(&kept.bench, &kept.place)?;
        if !kept.shared {
            restrict(&kept.place, Restriction::READ_ONLY, true)?;
        }
    }
    Ok(())
}

/// `/proc` of the task's own PID namespace; what commands the kernel is read-only.
fn kernel(confined: bool) -> Result<(), Failed> {
    let sys = Path::new("/sys");
    if !confined && sys.is_dir() && restrict(sys, Restriction::READ_ONLY, true).is_err() {
        // It is no mount of its own.
        bind(sys, sys)?;
        restrict(sys, Restriction::READ_ONLY, true)?;
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>).map_err(at("/proc"))?;
    for place in KERNEL {
        let path = Path::new(place.path);
        if path.exists() {
            bind(path, path)?;
            restrict(path, Restriction::READ_ONLY, false)?;
        }
    }
    Ok(())
}

fn places(places: &[Place]) -> Result<Vec<PathBuf>, Failed> {
    let paths: Vec<PathBuf> = places.iter().map(|place| place.path.into()).collect();
    real(&paths)
}

/// Without links, without what is not there.
fn real(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failed> {
    let mut found = Vec::new();
    for path in paths {
        // One call says that there is no link in it, or nothing at all; looking for links takes one for
        // each of its parts.
        match resolve(path) {
            Ok(_there) => {
                found.push(path.components().collect());
                continue;
            }
            Err(Errno::ENOENT | Errno::ENOTDIR) => continue,
            Err(_) => {}
        }
        match fs::canonicalize(path) {
            Ok(real) => found.push(real),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) => {}
            Err(error) => return Err(failed(path)(error)),
        }
    }
    Ok(found)
}

/// What is at a path that leads there without links, and nothing else.
fn resolve(path: &Path) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(AT_FDCWD, path, how)
}

fn inside(path: &Path, directory: &Path) -> bool {
    path != directory && path.starts_with(directory)
}

fn make(path: impl AsRef<Path>, mode: u32) -> Result<(), Failed> {
    let path = path.as_ref();
    fs::create_dir(path).map_err(failed(path))?;
    // Whatever the umask is.
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
        .map_err(failed(path))
}

fn make_all(path: &Path) -> Result<(), Failed> {
    let mut missing: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
    while let Some(next) = missing.pop() {
        DirBuilder::new()
            .mode(0o755)
            .create(next)
            .map_err(failed(next))?;
        fs::set_permissions(next, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .map_err(failed(next))?;
    }
    Ok(())
}

fn bind(from: &Path, to: &Path) -> Result<(), Failed> {
    let none = None::<&str>;
    mount(
        Some(from),
        to,
        none,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        none,
    )
    .map_err(at(to))
}

fn change(path: &str, flags: MsFlags) -> Result<(), Failed> {
    let none = None::<&str>;
    mount(none, path, none, flags, none).map_err(at(path))
}

fn restrict(path: impl AsRef<Path>, restriction: Restriction, all: bool) -> Result<(), Failed> {
    let path = path.as_ref();
    let text = CString::new(path.as_os_str().as_bytes()).map_err(|_| at(path)(Errno::EINVAL))?;
    sandbox_sys::restrict_mount(&text, restriction, all).map_err(failed(path))
}

fn at(path: impl AsRef<Path>) -> impl Fn(Errno) -> Failed {
    let about = path.as_ref().display().to_string();
    move |errno| Failed {
        step: STEP,
        errno,
        about: about.clone(),
    }
}

fn failed(path: impl AsRef<Path>) -> impl Fn(io::Error) -> Failed {
    let about = path.as_ref().display().to_string();
    move |error| Failed {
        about: about.clone(),
        ..Failed::io(STEP)(error)
    }
}
