//! What the profile `standard` must leave to a task: the ordinary administration of a host, done by the
//! real programs.

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;

use sandbox::{Outcome, Profile};

use crate::bed::{Run, skip};
use crate::host::{Host, SUPPORT};

/// Runs the script on a host, with what must be there installed; it must end well and print this.
fn works(needs: &[&str], script: &str, printed: &str) {
    for program in needs {
        let found = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];
        if !found
            .iter()
            .any(|dir| Path::new(dir).join(program).exists())
        {
            return skip("programs", &format!("{program} is not installed"));
        }
    }
    let Some(host) = Host::set_up() else { return };
    let script = format!("set -eu\nname=pxp-ordinary-$AGENT\n{script}");
    let run = host.of(Profile::Standard, Run::sh(&SUPPORT, &script));
    let run = run.with(|run| {
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        run.environment.retain(|(name, _)| name != "PATH");
        let more = [("PATH", path), ("HOME", "/root"), ("LANG", "C.UTF-8")];
        run.environment
            .extend(more.map(|(name, value)| (name.to_owned(), value.to_owned())));
    });
    let result = run.finish();
    assert_eq!(
        (result.stdout(), &result.report.outcome),
        (printed, &Outcome::Exited { code: 0 }),
        "{}",
        result.stderr()
    );
}

/// A package that leads its own list of packages, so that nobody else's lock is in the way.
const PACKAGE: &str = r#"
    work=$(mktemp -d)
    mkdir -p "$work/tree/DEBIAN" "$work/tree$FREE/installed" "$work/db/updates" "$work/db/info"
    printf 'Package: pxp-ordinary\nVersion: 1\nArchitecture: all\nMaintainer: n <n@example.com>\nDescription: x\n' \
        >"$work/tree/DEBIAN/control"
    printf '#!/bin/sh\nid -un >%s/configured\n' "$FREE" >"$work/tree/DEBIAN/postinst"
    chmod 755 "$work" "$work/tree/DEBIAN/postinst"
    echo content >"$work/tree$FREE/installed/file"
    chown -R nobody "$work/tree$FREE/installed"
    : >"$work/db/status"
    dpkg-deb --build "$work/tree" "$work/new.deb" >&2
"#;

#[test]
fn a_package_is_installed_and_removed_by_dpkg() {
    let script = format!(
        "{PACKAGE}
        dpkg --admindir=\"$work/db\" --install \"$work/new.deb\" >&2
        cat \"$FREE/configured\" \"$FREE/installed/file\"
        stat -c %U \"$FREE/installed/file\"
        dpkg --admindir=\"$work/db\" --remove pxp-ordinary >&2
        test -e \"$FREE/installed/file\" || echo removed"
    );
    works(
        &["dpkg", "dpkg-deb"],
        &script,
        "root\ncontent\nnobody\nremoved\n",
    );
}

#[test]
fn a_package_is_installed_by_apt() {
    let script = format!(
        "{PACKAGE}
        mkdir -p \"$work/lists/partial\" \"$work/cache/archives/partial\"
        DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dir::State=\"$work\" \
            -o Dir::State::lists=\"$work/lists\" -o Dir::State::status=\"$work/db/status\" \
            -o Dir::Cache=\"$work/cache\" -o Dir::Log=\"$work\" -o Dir::Etc=\"$work\" \
            -o DPkg::Options::=\"--admindir=$work/db\" install \"$work/new.deb\" >&2
        cat \"$FREE/configured\""
    );
    works(&["apt-get", "dpkg-deb"], &script, "root\n");
}

#[test]
fn a_user_is_added_logs_in_and_is_removed() {
    let script = r#"
        user=pxpo$AGENT
        useradd --create-home --home-dir "$FREE/home" --shell /bin/sh "$user"
        trap 'userdel --remove "$user" 2>/dev/null' EXIT
        su - "$user" -c 'test "$(id -un)" = "$USER" && pwd' | sed "s,$FREE,,"
        echo "$user:$(mktemp -u XXXXXXXX)" | chpasswd
        usermod --append --groups nogroup "$user"
        id -Gn "$user" | grep -o nogroup"#;
    works(
        &["useradd", "userdel", "usermod", "su", "chpasswd"],
        script,
        "/home\nnogroup\n",
    );
}

#[test]
fn another_user_uses_a_set_user_id_program() {
    let script = r#"su -s /bin/sh nobody -c 'id -u; "$SETUID_ID" -u'"#;
    works(&["su"], script, "65534\n0\n");
}

#[test]
fn files_below_etc_var_and_usr_are_written() {
    let script = r#"
        for dir in /etc /etc/cron.d /var/log /var/lib /usr/local/bin /opt /root; do
            echo '# nothing' >"$dir/$name"
            chown nobody:nogroup "$dir/$name"
            chmod 4711 "$dir/$name"
            mv "$dir/$name" "$dir/$name.moved"
            rm "$dir/$name.moved"
            echo "$dir"
        done"#;
    works(
        &[],
        script,
        "/etc\n/etc/cron.d\n/var/log\n/var/lib\n/usr/local/bin\n/opt\n/root\n",
    );
}

#[test]
fn temporary_files_are_made_in_every_place_for_them() {
    let script = r#"
        for dir in /tmp /var/tmp /dev/shm; do
            file=$(mktemp -p "$dir"); echo x >"$file"; rm "$file"; echo "$dir"
        done"#;
    works(&[], script, "/tmp\n/var/tmp\n/dev/shm\n");
}

#[test]
fn the_network_and_names_are_reached() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let greeter = std::thread::spawn(move || {
        let (mut client, _) = server.accept().unwrap();
        client.write_all(b"hello\n").unwrap();
    });
    let script = format!(
        "perl -MIO::Socket::INET -e '
            print IO::Socket::INET->new(\"127.0.0.1:{port}\")->getline'
        getent hosts localhost | grep -o localhost | head -n 1"
    );
    let here = Host::set_up().is_some();
    works(&["getent"], &script, "hello\nlocalhost\n");
    if here {
        greeter.join().unwrap();
    }
}

#[test]
fn tasks_in_every_language_run() {
    for (program, script, printed) in [
        (
            "bash",
            "bash -c 'a=(1 2); echo ${#a[@]} <(:)' | cut -c1-11",
            "2 /dev/fd/6",
        ),
        (
            "python3",
            "/usr/bin/python3 -c 'import subprocess as s; print(s.check_output([\"id\", \"-un\"], text=True), end=\"\")'",
            "root",
        ),
        (
            "python3",
            "/usr/bin/python3 -c 'import multiprocessing as m; print(m.Pool(2).map(abs, [-1, -2]))'",
            "[1, 2]",
        ),
        (
            "ruby",
            "ruby -rjson -e 'puts JSON.generate(uid: Process.uid, out: `id -un`.chomp)'",
            "{\"uid\":0,\"out\":\"root\"}",
        ),
        (
            "perl",
            "perl -MPOSIX -e 'print strftime(\"%Y\", gmtime 0), \"\\n\"'",
            "1970",
        ),
    ] {
        works(&[program], script, &format!("{printed}\n"));
    }
}

#[test]
fn puppet_manages_a_resource() {
    let script = r#"
        puppet resource file "$FREE/managed" ensure=file content=managed mode=0640 >&2
        stat -c '%a %s' "$FREE/managed"
        puppet resource user root | grep -o present"#;
    works(&["puppet"], script, "640 7\npresent\n");
}

#[test]
fn the_host_is_looked_at() {
    let script = r#"
        test "$(grep -c . /proc/mounts)" -gt 3
        df -P / | tail -n 1 | grep -o '/$'
        uname -s
        test "$(cat /proc/sys/kernel/hostname)" = "$(uname -n)"
        test -r /sys/class/net && test -r /proc/meminfo
        getent passwd root | cut -d: -f1"#;
    works(&[], script, "/\nLinux\nroot\n");
}

#[test]
fn children_in_the_background_end_in_time() {
    let script = r#"
        (read -r line <"$FREE/fifo"; echo "$line" >"$FREE/out") &
        child=$!
        mkfifo "$FREE/other"; rm "$FREE/other"
        echo word >"$FREE/fifo"
        wait "$child"
        cat "$FREE/out"
        timeout 0.1 sleep 100 || echo $?
        nohup true; nice -n 5 true; echo 1 2 | xargs -n 1 -P 2 true
        echo end"#;
    let script = format!("mkfifo \"$FREE/fifo\"\n{script}");
    works(&[], &script, "word\n124\nend\n");
}

#[test]
fn programs_that_want_a_terminal_or_a_locale_have_one() {
    let script = r#"
        script -qc 'test -t 0 && tty' /dev/null | tr -d '\r' | grep -o '/dev/pts/'
        printf 'é' | wc -m
        locale charmap"#;
    works(&["script", "locale"], script, "/dev/pts/\n1\nUTF-8\n");
}
