//! An operator's own rules: which certname may send which message to whom. They narrow what the
//! broker's structure allows (agents answer controllers, controllers command agents) and never widen
//! it.
//!
//! The shape is that of the original's `authorization` section: rules in an order, each with a
//! pattern of messages and a list of certnames; the first rule whose pattern fits decides, `deny`
//! beats `allow` inside it, and what no rule fits is denied. Rules that were written for the original
//! also say who may connect, and as a controller: there they are all there is ([`Origin`]).

use std::fmt;

use pcp::{Certname, Envelope, Target, Uri};
use regex::Regex;

/// The prefix of all message types of PCP and PXP.
const PREFIX: &str = "http://puppetlabs.com/";

/// The message by which we acknowledge an outcome, and the type of the request that it follows.
const ACKNOWLEDGEMENT: &str = "rpc_outcome_acknowledgement";
const ACKNOWLEDGED: &str = "http://puppetlabs.com/rpc_non_blocking_request";

/// What the original's rules are about: the path of a request that it makes of each message.
pub const PATH: &str = "/pcp-broker/send";

/// How the broker that one is connected to is named as a target.
const BROKER: &str = "pcp:///server";

/// Rules in their order.
#[derive(Debug, Clone, Default)]
pub struct RuleSet {
    rules: Vec<Rule>,
    origin: Origin,
}

/// For whom rules were written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Origin {
    /// For this broker, which knows controllers by its key `controllers`.
    #[default]
    Ours,
    /// For the original, which has nothing but its rules: who may send `associate_request` may
    /// connect, and who may send requests is a controller.
    Original,
}

/// One rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// What it is called, for logs and for `pcp-broker explain`.
    pub name: String,
    /// Which messages it is about; all, when every part is empty.
    pub about: About,
    /// Whose messages pass.
    pub allow: Vec<Pattern>,
    /// Whose messages do not, even if `allow` names them.
    pub deny: Vec<Pattern>,
}

/// Which messages a rule is about: all that fit one pattern of each list. An empty list fits
/// everything.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// Full message types, or the part behind `http://puppetlabs.com/`.
    pub message_type: Vec<Pattern>,
    /// Addresses of senders.
    pub sender: Vec<Pattern>,
    /// Addresses of targets; the broker itself is `pcp:///server`.
    pub target: Vec<Pattern>,
}

/// A text, a text with `*` for any number of characters, or a regular expression between slashes.
#[derive(Debug, Clone)]
pub enum Pattern {
    /// This very text.
    Exact(String),
    /// A text with `*` in it.
    Glob(String),
    /// Found anywhere in the text, unless it is anchored.
    Regex(Regex),
}

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It would match nothing.
    #[error("a pattern cannot be empty")]
    Empty,
    /// The part between the slashes is no regular expression.
    #[error("not a regular expression: {0}")]
    Regex(String),
}

/// What is asked of the rules.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Whose certificate it is.
    pub certname: &'a Certname,
    /// The sender's address.
    pub sender: &'a str,
    /// The target's address.
    pub target: &'a str,
    /// The full message type.
    pub message_type: &'a str,
}

/// What the rules say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision<'a> {
    /// This rule allows it.
    Allowed(&'a str),
    /// This rule fits, and does not allow it.
    Denied(&'a str),
    /// No rule fits, which denies it.
    NoRule,
}

impl RuleSet {
    /// Rules, the first one first.
    #[must_use]
    pub fn new(rules: Vec<Rule>, origin: Origin) -> Self {
        Self { rules, origin }
    }

    /// For whom they were written.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The rules in their order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// What the first rule that fits says.
    #[must_use]
    pub fn decide(&self, question: &Question<'_>) -> Decision<'_> {
        let Some(rule) = self.rules.iter().find(|rule| rule.about.fits(question)) else {
            return Decision::NoRule;
        };
        let named = |list: &[Pattern]| {
            let certname = question.certname.as_str();
            list.iter().any(|pattern| pattern.matches(certname))
        };
        if named(&rule.allow) && !named(&rule.deny) {
            Decision::Allowed(&rule.name)
        } else {
            Decision::Denied(&rule.name)
        }
    }

    /// What they say about a message. Its sender is the certificate's own: that is checked before.
    #[must_use]
    pub fn message(&self, envelope: &Envelope) -> Decision<'_> {
        let target = match &envelope.target {
            Target::Broker => BROKER.to_owned(),
            Target::Client(uri) => uri.to_string(),
        };
        let message_type = match envelope.message_type.name() {
            // An addition of ours, which no rule for the original names: it follows a request.
            Some(ACKNOWLEDGEMENT) => ACKNOWLEDGED,
            _ => envelope.message_type.as_str(),
        };
        self.decide(&Question {
            certname: envelope.sender.certname(),
            sender: &envelope.sender.to_string(),
            target: &target,
            message_type,
        })
    }

    /// Whether they let a client connect; rules of ours leave that to the broker's other keys.
    #[must_use]
    pub fn lets_connect(&self, client: &Uri) -> bool {
        self.origin == Origin::Ours
            || self.allows(client, BROKER, "http://puppetlabs.com/associate_request")
    }

    /// Whether they make a client a controller, by letting it send requests to agents.
    #[must_use]
    pub fn make_controller(&self, client: &Uri) -> bool {
        // Which agent it will be is not known yet; a rule may be about some of them.
        let requests = [ACKNOWLEDGED, "http://puppetlabs.com/rpc_blocking_request"];
        self.origin == Origin::Original
            && requests
                .iter()
                .any(|request| self.allows(client, "pcp://*/agent", request))
    }

    fn allows(&self, client: &Uri, target: &str, message_type: &str) -> bool {
        let decision = self.decide(&Question {
            certname: client.certname(),
            sender: &client.to_string(),
            target,
            message_type,
        });
        matches!(decision, Decision::Allowed(_))
    }
}

impl About {
    fn fits(&self, question: &Question<'_>) -> bool {
        let one = |list: &[Pattern], text: &str| {
            list.is_empty() || list.iter().any(|pattern| pattern.matches(text))
        };
        let short = question.message_type.strip_prefix(PREFIX);
        (one(&self.message_type, question.message_type)
            || short.is_some_and(|short| one(&self.message_type, short)))
            && one(&self.sender, question.sender)
            && one(&self.target, question.target)
    }
}

impl Pattern {
    /// Whether a text is one of those meant.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == text,
            Self::Glob(glob) => glob_matches(glob, text),
            Self::Regex(regex) => regex.is_match(text),
        }
    }
}

impl std::str::FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        let inner = text.strip_prefix('/').and_then(|t| t.strip_suffix('/'));
        if let Some(inner) = inner.filter(|inner| !inner.is_empty()) {
            return Regex::new(inner)
                .map(Self::Regex)
                .map_err(|error| PatternError::Regex(last_line(&error.to_string())));
        }
        Ok(if text.contains('*') {
            Self::Glob(text.to_owned())
        } else {
            Self::Exact(text.to_owned())
        })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) | Self::Glob(text) => f.write_str(text),
            Self::Regex(regex) => write!(f, "/{regex}/"),
        }
    }
}

/// What is wrong, without the picture of where, which takes several lines.
fn last_line(text: &str) -> String {
    text.lines().last().unwrap_or_default().to_owned()
}

/// Whether the parts between the stars are in the text, in order, the first at its beginning and the
/// last at its end. Linear: each part is taken where it first occurs.
fn glob_matches(glob: &str, text: &str) -> bool {
    let mut parts = glob.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// The list as it is written in a configuration of its origin, one line a rule.
impl fmt::Display for RuleSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[")?;
        for (order, rule) in (1..).zip(&self.rules) {
            write!(f, "    {{ name: {:?},", rule.name)?;
            match self.origin {
                Origin::Ours => rule.about.write(f, ["message-type", "sender", "target"])?,
                Origin::Original => {
                    write!(f, " sort-order: {order}, match-request: {{ path: {PATH:?},")?;
                    write!(f, " type: path, method: post, query-params: {{")?;
                    rule.about.write(f, ["message_type", "sender", "target"])?;
                    write!(f, " }} }},")?;
                }
            }
            write_list(f, "allow", &rule.allow)?;
            write_list(f, "deny", &rule.deny)?;
            writeln!(f, " }}")?;
        }
        write!(f, "  ]")
    }
}

impl About {
    fn write(&self, f: &mut fmt::Formatter<'_>, keys: [&str; 3]) -> fmt::Result {
        let lists = [&self.message_type, &self.sender, &self.target];
        keys.into_iter()
            .zip(lists)
            .try_for_each(|(key, list)| write_list(f, key, list))
    }
}

fn write_list(f: &mut fmt::Formatter<'_>, key: &str, list: &[Pattern]) -> fmt::Result {
    if list.is_empty() {
        return Ok(());
    }
    let texts: Vec<_> = list.iter().map(ToString::to_string).collect();
    // HOCON takes a comma after the last element, and none before the first.
    write!(f, " {key}: {texts:?},")
}

#[cfg(test)]
mod tests;
