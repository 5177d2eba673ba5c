//! The keys of the objects that are open: found twice, or found to look like a key that decides.
//!
//! Used by the scanner only. Parsers disagree on a repeated key (most take the last, some the first), and some match keys
//! without regard to case or after Unicode normalisation (CVE-2026-27896); where a key decides what will run, such a text
//! has no one meaning.

use std::hash::{DefaultHasher, Hasher};

use smallvec::SmallVec;

use super::{MEMBER_NAMES, Member, Profile, Span};
use crate::{jsonrpc::fault::Fault, sanitize};

/// Keys of one object that are compared each with each. Above, they are sorted by hash.
const PAIRWISE_KEYS: usize = 16;

/// Members of `params` that decide what a request does: a key that some parser would take for one of them must be it.
const PARAMS_NAMES: [&str; 11] = [
    "_meta",
    "argument",
    "arguments",
    "inputResponses",
    "name",
    "ref",
    "requestId",
    "requestState",
    "task",
    "taskId",
    "uri",
];

/// Marks a key whose text is in `decoded`, not in the scanned text. Offsets are below 2^31.
const IN_DECODED: u32 = 1 << 31;

/// The keys of all open objects, innermost last. Eight bytes a key: a frame of the largest size has millions of them.
pub(super) struct Keys<'a> {
    text: &'a str,
    /// The keys that hold escapes, decoded, one after the other.
    decoded: String,
    keys: SmallVec<[Span; PAIRWISE_KEYS]>,
}

impl<'a> Keys<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, decoded: String::new(), keys: SmallVec::new() }
    }

    /// How many there are. Each is at least four bytes of a text of less than 2^31.
    pub(super) fn len(&self) -> u32 {
        super::offset(self.keys.len())
    }

    /// Adds the key whose token's inside is `raw`.
    pub(super) fn push(&mut self, raw: Span, has_escapes: bool) {
        let key = if has_escapes {
            let start = self.decoded.len();
            self.decoded.push_str(&super::decode(raw.of(self.text)));
            let mark = |at| super::offset(at) | IN_DECODED;
            Span { start: mark(start), end: mark(self.decoded.len()) }
        } else {
            raw
        };
        self.keys.push(key);
    }

    /// The key added last.
    pub(super) fn last(&self) -> &str {
        self.keys.last().map_or("", |&key| self.name(key))
    }

    /// Forgets the keys of an object that has ended.
    pub(super) fn truncate(&mut self, first: usize) {
        self.keys.truncate(first);
    }

    fn name(&self, key: Span) -> &str {
        if key.start & IN_DECODED == 0 {
            key.of(self.text)
        } else {
            Span { start: key.start & !IN_DECODED, end: key.end & !IN_DECODED }.of(&self.decoded)
        }
    }

    fn names(&self, first: usize) -> impl ExactSizeIterator<Item = &str> + Clone {
        self.keys[first..].iter().map(|&key| self.name(key))
    }

    /// Whether two keys from `first` on are the same text once decoded.
    fn has_duplicate(&self, first: usize) -> bool {
        if self.keys.len() - first <= PAIRWISE_KEYS {
            return self.has_equal_pair(&self.keys[first..]);
        }
        let names = self.names(first);
        // Equal keys have equal hashes. Sorting hashes is fast, and whoever makes hashes collide gets only the exact
        // comparison below, never quadratic time.
        let mut hashes: Vec<u64> = names.clone().map(hash).collect();
        hashes.sort_unstable();
        if hashes.windows(2).all(|pair| pair[0] != pair[1]) {
            return false;
        }
        let mut names: Vec<&str> = names.collect();
        names.sort_unstable();
        names.windows(2).any(|pair| pair[0] == pair[1])
    }

    fn has_equal_pair(&self, mut keys: &[Span]) -> bool {
        while let [key, rest @ ..] = keys {
            // Length first, so that few names are looked at.
            let length = key.end - key.start;
            let is_same =
                |other: &Span| other.end - other.start == length && self.name(*other) == self.name(*key);
            if rest.iter().any(is_same) {
                return true;
            }
            keys = rest;
        }
        false
    }

    /// What is wrong with the envelope's member names, which begin at `first`.
    pub(super) fn judge_envelope(&self, first: usize, profile: Profile) -> Option<Fault> {
        if self.has_duplicate(first) {
            return Some(Fault::DuplicateMember);
        }
        let mut fault = None;
        for name in self.names(first).filter(|name| Member::named(name).is_none()) {
            if is_one_of(&sanitize::fold(name), &MEMBER_NAMES) {
                return Some(Fault::LookAlikeMember);
            }
            // A server may add members that its client ignores.
            if profile == Profile::Strict {
                fault = Some(Fault::UnknownMember);
            }
        }
        fault
    }

    /// What is wrong with the keys of an object inside the message, which begin at `first`.
    pub(super) fn judge_inner(&self, first: usize, is_params: bool) -> Option<Fault> {
        if self.has_duplicate(first) {
            return Some(Fault::DuplicateKey);
        }
        if is_params { self.judge_params(first) } else { None }
    }

    fn judge_params(&self, first: usize) -> Option<Fault> {
        // Different known names are never taken for each other.
        if self.names(first).all(|name| PARAMS_NAMES.contains(&name)) {
            return None;
        }
        let mut folded = Vec::with_capacity(self.keys.len() - first);
        for name in self.names(first) {
            let fold = sanitize::fold(name);
            if !PARAMS_NAMES.contains(&name) && is_one_of(&fold, &PARAMS_NAMES) {
                return Some(Fault::LookAlikeKey);
            }
            folded.push(fold);
        }
        folded.sort_unstable();
        folded.windows(2).any(|pair| pair[0] == pair[1]).then_some(Fault::TwinKeys)
    }
}

fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(name.as_bytes());
    hasher.finish()
}

/// Whether a folded name is one of the known ones, folded.
fn is_one_of(folded: &str, known: &[&str]) -> bool {
    known.iter().any(|known| known.eq_ignore_ascii_case(folded))
}
