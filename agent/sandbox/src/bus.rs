//! A filter between a task and the system's message bus (D-Bus): what the task sends is read, and passed
//! on only if [`crate::profile::bus`] allows it; what the bus sends goes through as it is. Pure: bytes in,
//! bytes out.
//!
//! Deny by default, and stricter than the specification: no descriptors, no words at the login that are not
//! known, no byte order but ours, no header field that is unknown or there twice. Whatever is not understood
//! ends the connection, so that nothing can mean one thing here and another to the bus.

mod login;
mod message;

use login::{Answers, Line};
use message::{Call, Head, Kind, PREFIX};

pub use message::MAX_HEADER;

use crate::profile::bus::allows;

/// The longest body that a task may send, in bytes: all that is allowed has small ones.
pub const MAX_BODY: u32 = 256 * 1024;

/// How many refusals may wait for the end of the message that the bus is sending, before the task is told
/// no more: who goes on asking without reading the answers is no ordinary task.
pub const MAX_WAITING: usize = 64;

/// Why a connection is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The login has a word that is not known or too long.
    #[error("the login is not one that is understood")]
    Login,
    /// A message is not of the form that is understood.
    #[error("a message is not of the form that is understood")]
    Message,
    /// A message is longer than may be.
    #[error("a message is longer than a task may send")]
    Length,
    /// Too many refused calls, and none of the answers read.
    #[error("too many calls were refused at once")]
    Waiting,
}

/// One connection. What cannot be decided yet is kept: a line or a message's header.
#[derive(Debug, Default)]
pub struct Filter {
    task: Stream,
    bus: Stream,
    /// What the bus still owes the task before the login is over.
    answers: Answers,
    /// Made, and waiting for a gap between two messages of the bus.
    refusals: Vec<Vec<u8>>,
}

/// How far one direction is.
#[derive(Debug, Default)]
struct Stream {
    place: Place,
    kept: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The byte before the login, from the task alone.
    #[default]
    Start,
    Login,
    /// At the beginning of a message, or in its header.
    Header,
    /// In a body of which so many bytes are to come.
    Body {
        rest: u32,
        passed_on: bool,
    },
}

impl Filter {
    /// Takes bytes that the task has sent, and appends to `on` what the bus is to get.
    ///
    /// # Errors
    /// When the connection is to be ended. What is in `on` then is not to be sent.
    pub fn of_task(&mut self, bytes: &[u8], on: &mut Vec<u8>) -> Result<(), Malformed> {
        self.task.kept.extend_from_slice(bytes);
        loop {
            match self.task.place {
                Place::Start => match self.task.take(1).as_deref() {
                    Some([0]) => {
                        on.push(0);
                        self.task.place = Place::Login;
                    }
                    Some(_) => return Err(Malformed::Login),
                    None => return Ok(()),
                },
                Place::Login => {
                    let Some(line) = self.task.take_line()? else {
                        return Ok(());
                    };
                    let line = Line::read(&line).ok_or(Malformed::Login)?;
                    line.write(on);
                    self.answers.expect(&line);
                    if matches!(line, Line::Begin) {
                        self.task.place = Place::Header;
                    }
                }
                Place::Header => {
                    let Some((head, header)) = self.task.take_header()? else {
                        return Ok(());
                    };
                    if head.body > MAX_BODY {
                        return Err(Malformed::Length);
                    }
                    let passed_on = self.decide(&head, &header)?;
                    if passed_on {
                        on.extend_from_slice(&header);
                    }
                    let rest = head.body;
                    self.task.place = Place::Body { rest, passed_on };
                }
                Place::Body { rest: 0, .. } => self.task.place = Place::Header,
                Place::Body { rest, passed_on } => {
                    let part = self.task.take_up_to(rest);
                    if part.is_empty() {
                        return Ok(());
                    }
                    if passed_on {
                        on.extend_from_slice(&part);
                    }
                    let rest = rest - u32::try_from(part.len()).unwrap_or(rest);
                    self.task.place = Place::Body { rest, passed_on };
                }
            }
        }
    }

    /// Takes bytes that the bus has sent, and appends to `on` what the task is to get: those, and between
    /// two messages the refusals that wait.
    ///
    /// # Errors
    /// When the connection is to be ended.
    pub fn of_bus(&mut self, bytes: &[u8], on: &mut Vec<u8>) -> Result<(), Malformed> {
        self.bus.kept.extend_from_slice(bytes);
        loop {
            self.refuse(on);
            match self.bus.place {
                Place::Start => self.bus.place = Place::Login,
                Place::Login if self.answers.complete() => self.bus.place = Place::Header,
                Place::Login => {
                    let Some(line) = self.bus.take_line()? else {
                        return Ok(());
                    };
                    if !self.answers.came() {
                        return Err(Malformed::Login);
                    }
                    on.extend_from_slice(&line);
                    on.extend_from_slice(b"\r\n");
                }
                Place::Header => {
                    let Some((head, header)) = self.bus.take_header()? else {
                        return Ok(());
                    };
                    on.extend_from_slice(&header);
                    self.bus.place = Place::Body {
                        rest: head.body,
                        passed_on: true,
                    };
                }
                Place::Body { rest: 0, .. } => self.bus.place = Place::Header,
                Place::Body { rest, passed_on } => {
                    let part = self.bus.take_up_to(rest);
                    if part.is_empty() {
                        return Ok(());
                    }
                    on.extend_from_slice(&part);
                    let rest = rest - u32::try_from(part.len()).unwrap_or(rest);
                    self.bus.place = Place::Body { rest, passed_on };
                }
            }
        }
    }

    /// Whether this message is passed on; else its sender is to be told, if it waits for an answer.
    fn decide(&mut self, head: &Head, header: &[u8]) -> Result<bool, Malformed> {
        let call = Call::read(head, header).ok_or(Malformed::Message)?;
        let allowed =
            head.kind == Kind::MethodCall && allows(call.destination, call.interface, call.member);
        if !allowed && head.kind == Kind::MethodCall && head.wants_reply {
            if self.refusals.len() == MAX_WAITING {
                return Err(Malformed::Waiting);
            }
            self.refusals.push(message::refusal(head.serial, &call));
        }
        Ok(allowed)
    }

    /// Puts in what waits, where one message has ended and nothing of the next was passed on.
    fn refuse(&mut self, on: &mut Vec<u8>) {
        let between = matches!(self.bus.place, Place::Header | Place::Body { rest: 0, .. });
        if between {
            for refusal in self.refusals.drain(..) {
                on.extend_from_slice(&refusal);
            }
        }
    }
}

impl Stream {
    fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        (self.kept.len() >= count).then(|| self.kept.drain(..count).collect())
    }

    fn take_up_to(&mut self, count: u32) -> Vec<u8> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        self.kept.drain(..count.min(self.kept.len())).collect()
    }

    /// The next line, without its end.
    fn take_line(&mut self) -> Result<Option<Vec<u8>>, Malformed> {
        let end = self.kept.windows(2).position(|two| two == b"\r\n");
        match end {
            Some(length) if length <= login::MAX_LINE => {
                let line = self.kept.drain(..length).collect();
                self.kept.drain(..2);
                Ok(Some(line))
            }
            None if self.kept.len() <= login::MAX_LINE + 1 => Ok(None),
            Some(_) | None => Err(Malformed::Login),
        }
    }

    /// The next message, up to its body.
    fn take_header(&mut self) -> Result<Option<(Head, Vec<u8>)>, Malformed> {
        let Some(prefix) = self.kept.first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let head = Head::read(prefix).ok_or(Malformed::Message)?;
        if head.header > MAX_HEADER {
            return Err(Malformed::Length);
        }
        Ok(self.take(head.header).map(|header| (head, header)))
    }
}

#[cfg(test)]
mod tests;
