//! What goes through the filter, and what does not, however it is cut into pieces.

use proptest::prelude::*;

use super::*;
use crate::profile::bus::BUS;

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
/// As systemd's library sends it: all at once.
const LOGIN: &[u8] = b"\0AUTH EXTERNAL\r\nDATA\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n";
const LOGIN_PASSED_ON: &[u8] = b"\0AUTH EXTERNAL\r\nDATA\r\nNO_UNIX_FD\r\nBEGIN\r\n";
const ANSWERS: &[u8] = b"DATA\r\nOK 0123456789abcdef\r\nERROR\r\n";

/// A message as a client makes it.
fn message(kind: u8, flags: u8, serial: u32, fields: &[(u8, &str, &str)], body: &[u8]) -> Vec<u8> {
    let mut array = Vec::new();
    for (code, signature, text) in fields {
        array.resize(array.len().next_multiple_of(8), 0);
        array.extend([*code, 1]);
        array.extend(signature.bytes());
        array.push(0);
        match *signature {
            "u" => {
                array.resize(array.len().next_multiple_of(4), 0);
                array.extend(text.parse::<u32>().unwrap().to_le_bytes());
            }
            "g" => {
                array.push(u8::try_from(text.len()).unwrap());
                array.extend(text.bytes());
                array.push(0);
            }
            _ => {
                array.resize(array.len().next_multiple_of(4), 0);
                array.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
                array.extend(text.bytes());
                array.push(0);
            }
        }
    }
    let mut message = vec![b'l', kind, flags, 1];
    for number in [body.len(), usize::try_from(serial).unwrap(), array.len()] {
        message.extend(u32::try_from(number).unwrap().to_le_bytes());
    }
    message.extend(array);
    message.resize(message.len().next_multiple_of(8), 0);
    message.extend(body);
    message
}

fn call(serial: u32, destination: &str, interface: &str, member: &str) -> Vec<u8> {
    let fields = [
        (1, "o", "/org/freedesktop/systemd1"),
        (2, "s", interface),
        (3, "s", member),
        (6, "s", destination),
        (8, "g", "ss"),
    ];
    message(1, 0, serial, &fields, b"some body, not looked at")
}

fn restart(serial: u32) -> Vec<u8> {
    call(serial, SYSTEMD, MANAGER, "RestartUnit")
}

fn run_something(serial: u32) -> Vec<u8> {
    call(serial, SYSTEMD, MANAGER, "StartTransientUnit")
}

/// A filter behind the login, the bus's answers to which were given.
fn after_login() -> Filter {
    let mut filter = Filter::default();
    let mut on = Vec::new();
    filter.of_task(LOGIN, &mut on).unwrap();
    assert_eq!(on, LOGIN_PASSED_ON);
    on.clear();
    filter.of_bus(ANSWERS, &mut on).unwrap();
    assert_eq!(on, ANSWERS);
    filter
}

fn of_task(filter: &mut Filter, bytes: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut on = Vec::new();
    filter.of_task(bytes, &mut on).map(|()| on)
}

fn of_bus(filter: &mut Filter, bytes: &[u8]) -> Vec<u8> {
    let mut on = Vec::new();
    filter.of_bus(bytes, &mut on).unwrap();
    on
}

#[test]
fn what_is_allowed_is_passed_on_byte_by_byte() {
    let mut filter = after_login();
    let hello = call(1, BUS, BUS, "Hello");
    for bytes in [
        hello,
        restart(2),
        call(3, SYSTEMD, "org.freedesktop.DBus.Properties", "Get"),
    ] {
        assert_eq!(of_task(&mut filter, &bytes).unwrap(), bytes);
    }
    let answer = message(2, 1, 9, &[(5, "u", "2")], b"body");
    assert_eq!(of_bus(&mut filter, &answer), answer);
}

#[test]
fn what_is_not_allowed_is_answered_and_not_passed_on() {
    let mut filter = after_login();
    assert_eq!(of_task(&mut filter, &run_something(7)).unwrap(), b"");
    let answer = of_bus(&mut filter, b"");
    let head = Head::read(answer.first_chunk().unwrap()).unwrap();
    assert_eq!(
        answer.len(),
        head.header + usize::try_from(head.body).unwrap()
    );
    let text = String::from_utf8_lossy(&answer);
    assert!(
        text.contains("org.freedesktop.DBus.Error.AccessDenied"),
        "{text}"
    );
    assert!(text.contains("StartTransientUnit"), "{text}");
    // The call that it answers: the field of the kind 5.
    let serial = [5, 1, b'u', 0, 7, 0, 0, 0];
    assert!(answer.windows(8).any(|bytes| bytes == serial), "{answer:?}");
    // And what comes next is passed on as before.
    assert_eq!(of_task(&mut filter, &restart(8)).unwrap(), restart(8));
}

#[test]
fn a_refusal_waits_for_the_end_of_what_the_bus_is_sending() {
    let mut filter = after_login();
    let answer = message(2, 1, 9, &[(5, "u", "2")], b"a long body");
    let (first, second) = answer.split_at(answer.len() - 4);
    let mut told = of_bus(&mut filter, first);
    of_task(&mut filter, &run_something(7)).unwrap();
    assert_eq!(of_bus(&mut filter, b""), b"");
    told.extend(of_bus(&mut filter, second));
    assert_eq!(told[..answer.len()], answer);
    assert!(told.len() > answer.len());
}

#[test]
fn who_wants_no_answer_gets_none_and_signals_and_answers_of_a_task_go_nowhere() {
    let mut filter = after_login();
    let fields = [
        (2, "s", MANAGER),
        (3, "s", "StartTransientUnit"),
        (6, "s", SYSTEMD),
    ];
    for (kind, flags) in [(1, 1), (4, 0), (2, 0), (3, 0)] {
        let bytes = message(kind, flags, 5, &fields, b"");
        assert_eq!(of_task(&mut filter, &bytes).unwrap(), b"", "kind {kind}");
        assert_eq!(of_bus(&mut filter, b""), b"", "kind {kind}");
    }
}

#[test]
fn what_could_mean_something_else_to_the_bus_ends_the_connection() {
    let named = [(3, "s", "RestartUnit"), (6, "s", SYSTEMD)];
    let with = |more: &[(u8, &'static str, &'static str)]| {
        let fields: Vec<_> = [(2, "s", MANAGER)]
            .iter()
            .chain(&named)
            .chain(more)
            .copied()
            .collect();
        message(1, 0, 5, &fields, b"")
    };
    assert!(of_task(&mut after_login(), &with(&[])).is_ok());
    let changed = |at: usize, byte: u8| {
        let mut bytes = with(&[]);
        bytes[at] = byte;
        bytes
    };
    let padded = {
        let mut bytes = message(1, 0, 5, &[(3, "s", "ab")], b"");
        *bytes.last_mut().unwrap() = 1;
        bytes
    };
    for (what, bytes) in [
        ("the interface twice", with(&[(2, "s", MANAGER)])),
        ("a field that is not known", with(&[(10, "s", "x")])),
        ("a field of another type", with(&[(1, "s", "/x")])),
        ("descriptors", with(&[(9, "u", "1")])),
        ("another byte order", changed(0, b'B')),
        ("another version", changed(3, 2)),
        ("no kind", changed(1, 0)),
        ("another kind", changed(1, 5)),
        ("the serial number 0", message(1, 0, 0, &named, b"")),
        ("padding that is not empty", padded),
    ] {
        assert_eq!(
            of_task(&mut after_login(), &bytes),
            Err(Malformed::Message),
            "{what}"
        );
    }
}

#[test]
fn lengths_are_refused_before_anything_is_kept() {
    for (at, length) in [
        (4, MAX_BODY + 1),
        (12, 1 << 20),
        (4, u32::MAX),
        (12, u32::MAX),
    ] {
        let mut bytes = restart(5);
        bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
        let found = of_task(&mut after_login(), &bytes);
        assert!(
            matches!(found, Err(Malformed::Length | Malformed::Message)),
            "{found:?}"
        );
    }
}

#[test]
fn only_the_known_login_is_one() {
    for login in [
        &b"AUTH EXTERNAL\r\n"[..],
        b"\0AUTH ANONYMOUS\r\n",
        b"\0AUTH DBUS_COOKIE_SHA1 30\r\n",
        b"\0AUTH EXTERNAL 30 30\r\n",
        b"\0AUTH EXTERNAL zz\r\n",
        b"\0AUTH  EXTERNAL\r\n",
        b"\0BEGIN \r\n",
        b"\0auth\r\n",
        b"\0\r\n",
        b"\0AUTH\nBEGIN\r\n",
        &[&b"\0"[..], &[b'A'; 300]].concat(),
    ] {
        assert_eq!(
            of_task(&mut Filter::default(), login),
            Err(Malformed::Login)
        );
    }
}

#[test]
fn refusals_that_nobody_reads_are_bounded() {
    let mut filter = after_login();
    // The bus is in the middle of a message, so none of them can be told.
    let answer = message(2, 1, 9, &[(5, "u", "2")], b"a long body");
    of_bus(&mut filter, &answer[..answer.len() - 4]);
    for serial in 1..=64 {
        of_task(&mut filter, &run_something(serial)).unwrap();
    }
    assert_eq!(
        of_task(&mut filter, &run_something(65)),
        Err(Malformed::Waiting)
    );
}

/// What the bus gets of these bytes in these pieces, up to the end of the connection.
fn in_pieces(bytes: &[u8], cuts: &[usize]) -> (Vec<u8>, Option<Malformed>) {
    let mut filter = Filter::default();
    let mut on = Vec::new();
    let mut rest = bytes;
    let mut cuts = cuts.iter().cycle();
    while !rest.is_empty() {
        let cut = cuts.next().copied().unwrap_or(1).clamp(1, rest.len());
        let (piece, later) = rest.split_at(cut);
        let length = on.len();
        if let Err(error) = filter.of_task(piece, &mut on) {
            on.truncate(length);
            return (on, Some(error));
        }
        rest = later;
    }
    (on, None)
}

proptest! {
    #[test]
    fn any_bytes_are_taken_without_harm(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        behind_the_login in any::<bool>(),
    ) {
        let mut filter = if behind_the_login { after_login() } else { Filter::default() };
        let mut on = Vec::new();
        if filter.of_task(&bytes, &mut on).is_ok() {
            // Nothing is made up: a login may lose a word, and never grows by more than its ends.
            prop_assert!(on.len() <= bytes.len());
        }
        filter.of_bus(&bytes, &mut Vec::new()).ok();
    }

    #[test]
    fn pieces_make_no_difference(
        calls in prop::collection::vec((any::<bool>(), 1_u32..100), 0..8),
        cuts in prop::collection::vec(1_usize..60, 1..20),
    ) {
        let mut sent = LOGIN.to_vec();
        let mut allowed = LOGIN_PASSED_ON.to_vec();
        for (good, serial) in calls {
            if good {
                sent.extend(restart(serial));
                allowed.extend(restart(serial));
            } else {
                sent.extend(run_something(serial));
            }
        }
        prop_assert_eq!(in_pieces(&sent, &cuts), (allowed, None));
    }

    #[test]
    fn a_message_with_one_bit_changed_is_passed_on_as_it_was_judged_or_not_at_all(
        at in 0_usize..1000, bit in 0_u8..8,
    ) {
        let mut bytes = restart(5);
        let at = at % (bytes.len() - 24);
        bytes[at] ^= 1 << bit;
        let mut filter = after_login();
        if let Ok(on) = of_task(&mut filter, &bytes) {
            prop_assert!(bytes.starts_with(&on), "{on:?}");
            if !on.is_empty() {
                let text = String::from_utf8_lossy(&on).into_owned();
                prop_assert!(text.contains("RestartUnit") && text.contains(MANAGER), "{text}");
            }
        }
    }
}
