//! Filters, run by a small machine of their own.

use super::*;
use crate::policy::Profile;
use crate::profile::{self, calls};

/// What the kernel would do with a call.
fn run(program: &[Instruction], architecture: u32, number: u32, arguments: [u32; 2]) -> u32 {
    let mut accumulator = 0;
    let mut at = 0;
    loop {
        let step = program[at];
        at += 1;
        let holds = match step.code {
            LOAD => {
                accumulator = match step.operand {
                    NUMBER => number,
                    ARCHITECTURE => architecture,
                    operand if operand == argument(0) => arguments[0],
                    operand if operand == argument(1) => arguments[1],
                    operand => panic!("nothing is loaded from {operand}"),
                };
                continue;
            }
            RETURN => return step.operand,
            JUMP => {
                at += step.operand as usize;
                continue;
            }
            JUMP_EQUAL => accumulator == step.operand,
            JUMP_GREATER_OR_EQUAL => accumulator >= step.operand,
            JUMP_ANY_BIT => accumulator & step.operand != 0,
            code => panic!("an instruction of no use here: {code}"),
        };
        at += usize::from(if holds { step.if_true } else { step.if_false });
    }
}

fn result(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Refuse => REFUSED.operand,
        Verdict::Unknown => UNKNOWN.operand,
        _ => ALLOW,
    }
}

#[test]
fn every_number_gets_its_verdict() {
    for profile in [Profile::Standard, Profile::Confined] {
        let program = profile::filter(profile).unwrap();
        for number in 0..600 {
            let found = run(&program, NATIVE, number, [0, 0]);
            let call = libc::c_long::from(number);
            let expected = if profile == Profile::Standard {
                let rule = calls::REFUSED.iter().find(|rule| rule.call == call);
                rule.map_or(ALLOW, |rule| result(rule.verdict))
            } else {
                let named = calls::CONFINED
                    .iter()
                    .any(|group| group.calls.contains(&call));
                let conditional = calls::CONDITIONAL.iter().find(|(other, _)| *other == call);
                match (named, conditional) {
                    (true, _) => ALLOW,
                    (false, Some((_, verdict))) => result(*verdict),
                    (false, None) => REFUSED.operand,
                }
            };
            assert_eq!(found, expected, "{profile:?} {number}");
        }
    }
}

#[test]
fn calls_of_another_abi_are_unknown() {
    let program = profile::filter(Profile::Standard).unwrap();
    // AUDIT_ARCH_I386: 39 is getpid for us and mkdir there.
    assert_eq!(run(&program, 0x4000_0003, 39, [0, 0]), UNKNOWN.operand);
    assert_eq!(
        run(&program, NATIVE, FOREIGN_NUMBERS + 39, [0, 0]),
        UNKNOWN.operand
    );
    assert_eq!(run(&program, NATIVE, u32::MAX, [0, 0]), UNKNOWN.operand);
}

#[test]
fn arguments_decide_where_the_call_alone_does_not() {
    let number = |call: libc::c_long| u32::try_from(call).unwrap();
    for profile in [Profile::Standard, Profile::Confined] {
        let program = profile::filter(profile).unwrap();
        let clone = |flags| run(&program, NATIVE, number(libc::SYS_clone), [flags, 0]);
        // What glibc's fork and pthread_create ask for.
        assert_eq!(clone(0x0120_0011), ALLOW);
        assert_eq!(clone(0x003d_0f00), ALLOW);
        for namespace in [
            0x0002_0000,
            0x0200_0000,
            0x0400_0000,
            0x0800_0000,
            0x1000_0000,
            0x2000_0000,
            0x4000_0000,
        ] {
            assert_eq!(clone(namespace | 0x11), REFUSED.operand, "{namespace:x}");
        }
        let ioctl = |request| run(&program, NATIVE, number(libc::SYS_ioctl), [0, request]);
        assert_eq!(ioctl(TIOCSTI), REFUSED.operand);
        assert_eq!(ioctl(TIOCLINUX), REFUSED.operand);
        assert_eq!(ioctl(0x5401), ALLOW);
    }
    let standard = profile::filter(Profile::Standard).unwrap();
    let unshare = |flags| run(&standard, NATIVE, number(libc::SYS_unshare), [flags, 0]);
    assert_eq!(unshare(0x400), ALLOW, "CLONE_FILES");
    assert_eq!(unshare(NEW_TIME), REFUSED.operand);
}

#[test]
fn every_branch_of_a_program_ends_in_a_verdict() {
    for profile in [Profile::Standard, Profile::Confined] {
        let program = profile::filter(profile).unwrap();
        assert!(program.len() < 1000, "{}", program.len());
        for number in (0..0x1_0000).chain([FOREIGN_NUMBERS - 1, FOREIGN_NUMBERS, u32::MAX]) {
            run(&program, NATIVE, number, [u32::MAX, u32::MAX]);
        }
    }
}
