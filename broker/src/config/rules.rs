//! An operator's rules as they are written: our own list `pcp-broker.rules`, or the original's
//! section `authorization` as far as it maps.
//!
//! What of the original's does not map is told. An `allow` that we cannot understand allows nobody; a
//! `deny` that we cannot understand is a fault, for leaving it out would let somebody in.

use std::collections::BTreeMap;
use std::fmt;

use regex::Regex;
use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Check;
use crate::authorize::rules::{About, Origin, PATH, Pattern, Rule, RuleSet};

/// The place of a rule that does not say: the middle of what the original gives operators.
const SORT_ORDER: u16 = 500;

/// A rule of `pcp-broker.rules`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct OwnRule {
    name: Option<String>,
    message_type: Texts,
    sender: Texts,
    target: Texts,
    allow: Texts,
    deny: Texts,
}

/// The original's section `authorization`. Other services have rules there too, with keys of their
/// own, so unknown ones are no fault here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct Authorization {
    version: Option<u32>,
    rules: Vec<OriginalRule>,
    allow_header_cert_info: Option<bool>,
    #[serde(flatten)]
    _others: BTreeMap<String, IgnoredAny>,
}

/// One of its rules.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct OriginalRule {
    name: Option<String>,
    sort_order: Option<u16>,
    match_request: MatchRequest,
    allow: Option<Entries>,
    deny: Option<Entries>,
    allow_unauthenticated: Option<bool>,
    #[serde(flatten)]
    _others: BTreeMap<String, IgnoredAny>,
}

/// Which requests it is about.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct MatchRequest {
    path: Option<String>,
    r#type: Option<String>,
    method: Texts,
    query_params: BTreeMap<String, Texts>,
    #[serde(flatten)]
    _others: BTreeMap<String, IgnoredAny>,
}

/// One text or several.
#[derive(Debug, Default)]
struct Texts(Vec<String>);

/// One entry of `allow` or `deny`, or several.
#[derive(Debug, Default)]
struct Entries(Vec<Entry>);

#[derive(Debug)]
enum Entry {
    Certname(String),
    /// By extensions of the certificate, which a message that comes over a link does not show.
    Unmapped,
}

impl Check<'_> {
    /// The operator's rules; nothing when there are none.
    pub(super) fn rules(
        &mut self,
        own: Option<Vec<OwnRule>>,
        original: Option<Authorization>,
    ) -> Option<RuleSet> {
        match (own, original) {
            (Some(_), Some(_)) => {
                self.wrong(
                    "rules",
                    "rules stand here and in `authorization`; keep one of the two",
                );
                None
            }
            (Some(own), None) => {
                let rules = own.into_iter().enumerate();
                let rules = rules.map(|(index, rule)| self.own(index, rule)).collect();
                Some(RuleSet::new(rules, Origin::Ours))
            }
            (None, Some(original)) => self.original(original),
            (None, None) => None,
        }
    }

    fn own(&mut self, index: usize, rule: OwnRule) -> Rule {
        let key = format!("pcp-broker.rules.{index}");
        if rule.allow.0.is_empty() && rule.deny.0.is_empty() {
            self.fault(
                &key,
                "names nobody: it needs `allow` or `deny` with certnames",
            );
        }
        Rule {
            name: rule.name.unwrap_or_else(|| format!("rule {}", index + 1)),
            about: About {
                message_type: self.patterns(&format!("{key}.message-type"), rule.message_type.0),
                sender: self.patterns(&format!("{key}.sender"), rule.sender.0),
                target: self.patterns(&format!("{key}.target"), rule.target.0),
            },
            allow: self.patterns(&format!("{key}.allow"), rule.allow.0),
            deny: self.patterns(&format!("{key}.deny"), rule.deny.0),
        }
    }

    /// Nothing when none of the rules is about PCP: those of another service stand there.
    fn original(&mut self, section: Authorization) -> Option<RuleSet> {
        if section.version.is_some_and(|version| version != 1) {
            self.fault("authorization.version", "only version 1 is known");
        }
        if section.allow_header_cert_info == Some(true) {
            self.fault(
                "authorization.allow-header-cert-info",
                "a broker knows its peers by their certificates only; set it to false",
            );
        }
        let mut rules: Vec<(u16, Rule)> = Vec::new();
        for (index, rule) in section.rules.into_iter().enumerate() {
            let key = format!("authorization.rules.{index}");
            let order = rule.sort_order.unwrap_or(SORT_ORDER);
            if let Some(rule) = self.original_rule(&key, rule) {
                rules.push((order, rule));
            }
        }
        if rules.is_empty() {
            return None;
        }
        rules.sort_by(|(a, x), (b, y)| (a, &x.name).cmp(&(b, &y.name)));
        let rules = rules.into_iter().map(|(_, rule)| rule).collect();
        Some(RuleSet::new(rules, Origin::Original))
    }

    fn original_rule(&mut self, key: &str, rule: OriginalRule) -> Option<Rule> {
        if !self.is_about_pcp(key, &rule.match_request) {
            return None;
        }
        let mut about = About::default();
        for (parameter, texts) in rule.match_request.query_params {
            let values = || texts.0.iter().cloned().map(Pattern::Exact).collect();
            match parameter.as_str() {
                "message_type" => about.message_type = values(),
                "sender" => about.sender = values(),
                "target" => about.target = values(),
                _ => {
                    // The original's broker has not sent such a parameter since 1.0.
                    self.note(
                        &format!("{key}.match-request.query-params.{parameter}"),
                        "no message has this parameter: the rule never fits",
                    );
                    return None;
                }
            }
        }
        let mut allow = Vec::new();
        for entry in rule.allow.unwrap_or_default().0 {
            let key = format!("{key}.allow");
            match entry {
                Entry::Certname(text) => allow.extend(self.certnames(&key, &text)),
                Entry::Unmapped => self.note(
                    &key,
                    "extensions of certificates are not looked at: this entry allows nobody",
                ),
            }
        }
        if rule.allow_unauthenticated == Some(true) {
            // Nobody gets here without a certificate.
            allow.push(Pattern::Glob("*".to_owned()));
        }
        let mut deny = Vec::new();
        for entry in rule.deny.unwrap_or_default().0 {
            let key = format!("{key}.deny");
            match entry {
                Entry::Certname(text) => deny.extend(self.certnames(&key, &text)),
                Entry::Unmapped => self.fault(
                    &key,
                    "extensions of certificates are not looked at, and a deny must not be left \
                     out: name certnames",
                ),
            }
        }
        Some(Rule {
            name: rule.name.unwrap_or_else(|| key.to_owned()),
            about,
            allow,
            deny,
        })
    }

    /// Whether a rule is about messages, and not about another service that reads the same files.
    fn is_about_pcp(&mut self, key: &str, request: &MatchRequest) -> bool {
        let post = |method: &String| method.eq_ignore_ascii_case("post");
        if !request.method.0.is_empty() && !request.method.0.iter().any(post) {
            return false;
        }
        let path = request.path.as_deref().unwrap_or_default();
        match request.r#type.as_deref() {
            Some("regex") => match Regex::new(path) {
                Ok(regex) => regex.is_match(PATH),
                Err(error) => {
                    self.fault(&format!("{key}.match-request.path"), error);
                    false
                }
            },
            _ => PATH
                .strip_prefix(path.trim_end_matches('/'))
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        }
    }

    /// An entry of the original: a certname, one with `*` in front, or a regular expression.
    fn certnames(&mut self, key: &str, text: &str) -> Option<Pattern> {
        if text.contains('$') && !text.starts_with('/') {
            self.fault(
                key,
                format_args!("{text:?} refers back to a path, and messages have none"),
            );
            return None;
        }
        self.patterns(key, vec![text.to_owned()]).pop()
    }

    fn patterns(&mut self, key: &str, texts: Vec<String>) -> Vec<Pattern> {
        let mut patterns = Vec::with_capacity(texts.len());
        for text in texts {
            match text.parse() {
                Ok(pattern) => patterns.push(pattern),
                Err(error) => self.fault(key, format_args!("{text:?}: {error}")),
            }
        }
        patterns
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Texts, E> {
                Ok(Texts(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Texts, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = list.next_element()? {
                    texts.push(text);
                }
                Ok(Texts(texts))
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a certname, an object with one, or a list of these")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Entries, E> {
                Ok(Entries(vec![Entry::Certname(text.to_owned())]))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Entries, A::Error> {
                let mut certname = None;
                let mut more = false;
                while let Some(key) = object.next_key::<String>()? {
                    if key == "certname" {
                        certname = Some(object.next_value::<String>()?);
                    } else {
                        object.next_value::<IgnoredAny>()?;
                        more = true;
                    }
                }
                let entry = match certname {
                    Some(certname) if !more => Entry::Certname(certname),
                    _ => Entry::Unmapped,
                };
                Ok(Entries(vec![entry]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(Entries(inner)) = list.next_element()? {
                    entries.extend(inner);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}
