//! From rules about system calls to a program that the kernel runs before each of them. The calls are
//! found by halving, so that the program's length costs little: the kernel tries it for every number
//! when it is installed.

use std::collections::BTreeMap;

use nix::libc;
use sandbox_sys::Instruction;

/// What becomes of a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is made.
    Allow,
    /// It fails with `EPERM`.
    Refuse,
    /// It fails with `ENOSYS`, as on a kernel that lacks it: programs know what to do then.
    Unknown,
    /// `EPERM` if it is to make a namespace by the flags of `clone`.
    UnlessNewNamespace,
    /// The same for those of `unshare`, which has one more.
    UnlessNewNamespaceOfUnshare,
    /// `EPERM` if it is an `ioctl` that types on a terminal.
    UnlessTerminalInput,
}

/// Rules about system calls, by their numbers.
#[derive(Debug, Clone)]
pub struct Rules {
    /// For every call that is not named.
    pub otherwise: Verdict,
    /// For those that are.
    pub calls: BTreeMap<libc::c_long, Verdict>,
}

// Of linux/bpf_common.h and linux/filter.h.
const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_GREATER_OR_EQUAL: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const JUMP_ANY_BIT: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

// Of linux/seccomp.h: what is returned, and where things lie in `struct seccomp_data`.
const ALLOW: u32 = 0x7fff_0000;
const ERROR: u32 = 0x0005_0000;
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
/// The lower half of argument `n`: both architectures are little-endian.
const fn argument(n: u32) -> u32 {
    16 + 8 * n
}

// Of linux/audit.h.
#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0xc000_00b7;

/// From here on the numbers are x32's, an ABI of its own on x86-64; no other architecture has any.
const FOREIGN_NUMBERS: u32 = 0x4000_0000;

/// `CLONE_NEWNS`, `…CGROUP`, `…UTS`, `…IPC`, `…USER`, `…PID`, `…NET`.
const NEW_NAMESPACE: u32 = 0x7e02_0000;
/// `CLONE_NEWTIME`, which `clone` has no room for.
const NEW_TIME: u32 = 0x80;

/// Puts characters into a terminal's input.
const TIOCSTI: u32 = 0x5412;
/// The same by way of a console's clipboard.
const TIOCLINUX: u32 = 0x541c;

const fn instruction(code: u16, if_true: u8, if_false: u8, operand: u32) -> Instruction {
    Instruction {
        code,
        if_true,
        if_false,
        operand,
    }
}

const fn give(result: u32) -> Instruction {
    instruction(RETURN, 0, 0, result)
}

const REFUSED: Instruction = give(ERROR | libc::EPERM.cast_unsigned());
const UNKNOWN: Instruction = give(ERROR | libc::ENOSYS.cast_unsigned());
const ALLOWED: Instruction = give(ALLOW);

/// The program for these rules. Calls by a foreign ABI, whose numbers mean others, are unknown.
#[must_use]
pub fn compile(rules: &Rules) -> Vec<Instruction> {
    let mut program = vec![
        instruction(LOAD, 0, 0, ARCHITECTURE),
        instruction(JUMP_EQUAL, 1, 0, NATIVE),
        UNKNOWN,
        instruction(LOAD, 0, 0, NUMBER),
    ];
    program.extend(halve(&intervals(rules)));
    program
}

/// Where a verdict begins to hold, in ascending order, the first at 0.
fn intervals(rules: &Rules) -> Vec<(u32, Option<Verdict>)> {
    let mut points: BTreeMap<u32, Option<Verdict>> = BTreeMap::new();
    points.insert(0, Some(rules.otherwise));
    points.insert(FOREIGN_NUMBERS, None);
    for (call, verdict) in &rules.calls {
        let Ok(number) = u32::try_from(*call) else {
            continue;
        };
        points.insert(number, Some(*verdict));
        points.entry(number + 1).or_insert(Some(rules.otherwise));
    }
    let mut merged: Vec<(u32, Option<Verdict>)> = Vec::new();
    for (start, verdict) in points {
        if merged.last().is_none_or(|last| last.1 != verdict) {
            merged.push((start, verdict));
        }
    }
    merged
}

fn halve(intervals: &[(u32, Option<Verdict>)]) -> Vec<Instruction> {
    if let [(_, verdict)] = intervals {
        return leaf(*verdict);
    }
    let (lower, upper) = intervals.split_at(intervals.len() / 2);
    let Some((start, _)) = upper.first() else {
        return vec![REFUSED];
    };
    let lower = halve(lower);
    let mut program = match u8::try_from(lower.len()) {
        Ok(distance) => vec![instruction(JUMP_GREATER_OR_EQUAL, distance, 0, *start)],
        // Conditions reach 255 instructions far; a plain jump reaches any.
        Err(_) => vec![
            instruction(JUMP_GREATER_OR_EQUAL, 0, 1, *start),
            instruction(JUMP, 0, 0, u32::try_from(lower.len()).unwrap_or(u32::MAX)),
        ],
    };
    program.extend(lower);
    program.extend(halve(upper));
    program
}

fn leaf(verdict: Option<Verdict>) -> Vec<Instruction> {
    let unless_any_bit = |bits| {
        vec![
            instruction(LOAD, 0, 0, argument(0)),
            instruction(JUMP_ANY_BIT, 0, 1, bits),
            REFUSED,
            ALLOWED,
        ]
    };
    match verdict {
        None | Some(Verdict::Unknown) => vec![UNKNOWN],
        Some(Verdict::Allow) => vec![ALLOWED],
        Some(Verdict::Refuse) => vec![REFUSED],
        Some(Verdict::UnlessNewNamespace) => unless_any_bit(NEW_NAMESPACE),
        Some(Verdict::UnlessNewNamespaceOfUnshare) => unless_any_bit(NEW_NAMESPACE | NEW_TIME),
        Some(Verdict::UnlessTerminalInput) => vec![
            instruction(LOAD, 0, 0, argument(1)),
            instruction(JUMP_EQUAL, 1, 0, TIOCSTI),
            instruction(JUMP_EQUAL, 0, 1, TIOCLINUX),
            REFUSED,
            ALLOWED,
        ],
    }
}

#[cfg(test)]
mod tests;
