//! The lines by which a client says who it is, before the first message (D-Bus specification,
//! "Authentication Protocol"). Only the way that the system's bus takes: the kernel says who it is.

/// The longest line, in bytes without its end: a user id in hexadecimal digits is far shorter.
pub(super) const MAX_LINE: usize = 256;

/// A line of the client that is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// Which ways are there?
    Ways,
    /// By what the kernel says, as this user (hexadecimal digits) if one is named.
    External(Option<&'a str>),
    /// As this user.
    Data(&'a str),
    /// Whether descriptors may be sent. They may not.
    Descriptors,
    /// Another way.
    Cancel,
    /// From here on messages.
    Begin,
}

impl<'a> Line<'a> {
    pub(super) fn read(line: &'a [u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?;
        let user = |text: &'a str| {
            let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
            (digits && !text.is_empty()).then_some(text)
        };
        match line {
            "AUTH" => Some(Self::Ways),
            "AUTH EXTERNAL" => Some(Self::External(None)),
            "DATA" => Some(Self::Data("")),
            "NEGOTIATE_UNIX_FD" => Some(Self::Descriptors),
            "CANCEL" => Some(Self::Cancel),
            "BEGIN" => Some(Self::Begin),
            line => {
                if let Some(text) = line.strip_prefix("AUTH EXTERNAL ") {
                    user(text).map(|user| Self::External(Some(user)))
                } else {
                    user(line.strip_prefix("DATA ")?).map(Self::Data)
                }
            }
        }
    }

    /// What the bus gets in its place.
    pub(super) fn write(&self, on: &mut Vec<u8>) {
        let text = match self {
            Self::Ways => "AUTH".to_owned(),
            Self::External(None) => "AUTH EXTERNAL".to_owned(),
            Self::External(Some(user)) => format!("AUTH EXTERNAL {user}"),
            Self::Data("") => "DATA".to_owned(),
            Self::Data(user) => format!("DATA {user}"),
            // A word that no bus knows: it answers with an error in its turn, and the client goes on
            // without descriptors.
            Self::Descriptors => "NO_UNIX_FD".to_owned(),
            Self::Cancel => "CANCEL".to_owned(),
            Self::Begin => "BEGIN".to_owned(),
        };
        on.extend_from_slice(text.as_bytes());
        on.extend_from_slice(b"\r\n");
    }
}

/// Which answers of the bus are still lines, not messages. Each line of the client has one, but the last.
#[derive(Debug, Default)]
pub(super) struct Answers {
    owed: u32,
    begun: bool,
}

impl Answers {
    pub(super) fn expect(&mut self, line: &Line<'_>) {
        match line {
            Line::Begin => self.begun = true,
            _ => self.owed = self.owed.saturating_add(1),
        }
    }

    /// A line came. Whether one was owed.
    pub(super) fn came(&mut self) -> bool {
        let owed = self.owed > 0;
        self.owed = self.owed.saturating_sub(1);
        owed
    }

    /// Whether what comes next is a message.
    pub(super) fn complete(&self) -> bool {
        self.begun && self.owed == 0
    }
}
