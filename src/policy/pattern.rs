//! Which rules speak of a name: patterns for tools, servers and methods, and the index that finds them quickly.
//!
//! Called by `document` (to read patterns) and by the policy (to find rules). A pattern stands for the whole name, and case
//! counts. `*` and `?` match any characters, `.` and `/` too; `[ab]` and `{a,b}` choose.

use std::{
    collections::HashMap,
    fmt,
    sync::{OnceLock, PoisonError, RwLock},
};

use globset::{Glob, GlobBuilder, GlobMatcher, GlobSet, GlobSetBuilder};
use smallvec::SmallVec;

/// The longest pattern, in bytes.
pub(super) const PATTERN_BYTES_MAX: usize = 256;

/// A name, or a pattern of names.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    text: String,
    /// The matcher is compiled when it is first needed: tools are found by the index, which has its own.
    glob: Option<(Glob, OnceLock<GlobMatcher>)>,
}

impl Pattern {
    /// Reads a pattern; the error says what is wrong, for people.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a pattern cannot be empty; `*` matches every name".to_owned());
        }
        if text.len() > PATTERN_BYTES_MAX {
            return Err(format!("a pattern has at most {PATTERN_BYTES_MAX} bytes"));
        }
        if let Some(odd) = text.chars().find(|letter| letter.is_whitespace() || letter.is_control()) {
            return Err(format!("names have no spaces or control characters, this has {odd:?}"));
        }
        if !text.contains(['*', '?', '[', ']', '{', '}', '\\']) {
            return Ok(Self { text: text.to_owned(), glob: None });
        }
        let build = |text: &str| {
            let built = GlobBuilder::new(text).literal_separator(false).backslash_escape(true).build();
            built.map_err(|error| format!("not a pattern: {}", error.kind()))
        };
        build(text)?;
        let glob = build(&framed(text))?;
        Ok(Self { text: text.to_owned(), glob: Some((glob, OnceLock::new())) })
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        match &self.glob {
            Some((glob, matcher)) => matcher.get_or_init(|| glob.compile_matcher()).is_match(framed(name)),
            None => self.text == name,
        }
    }

    /// The same pattern for names in lower case.
    pub(super) fn lower_case(&self) -> Self {
        // What was a pattern is one in lower case too; were it not, the pattern itself would do.
        Self::parse(&self.text.to_lowercase()).unwrap_or_else(|_| self.clone())
    }

    /// Whether it stands for one name alone.
    pub(super) fn is_name(&self) -> bool {
        self.glob.is_none()
    }

    /// As it was written.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// A name, or a pattern, between two signs. The automaton is made for paths: it looks at a file's name and extension, where
/// names such as `..` and `a/` have none, and it would miss patterns that match them. Between signs nothing is special.
fn framed(text: &str) -> String {
    format!("<{text}>")
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Names whose rules an index remembers. A server has fewer tools; a client that makes names up gains nothing by it.
const REMEMBERED_NAMES_MAX: usize = 1024;

/// Rules that are remembered for one name.
const REMEMBERED_RULES_MAX: usize = 256;

/// Places of rules in a policy. Few rules are about one call.
pub(super) type Places = SmallVec<[u32; 16]>;

/// From a tool's name to the rules with a pattern for it: names by hash, patterns by one automaton. The answer is always
/// the same, so it is remembered for the first so many names.
#[derive(Debug)]
pub(super) struct Index {
    names: HashMap<Box<str>, Vec<u32>>,
    globs: GlobSet,
    /// For each pattern of `globs`, the rules that use it.
    glob_rules: Vec<Vec<u32>>,
    remembered: RwLock<HashMap<Box<str>, Box<[u32]>>>,
}

impl Index {
    /// Builds it from pairs of a pattern and the rule that has it.
    pub(super) fn new<'a>(
        patterns: impl IntoIterator<Item = (&'a Pattern, u32)>,
    ) -> Result<Self, globset::Error> {
        let mut names: HashMap<Box<str>, Vec<u32>> = HashMap::new();
        let mut known: HashMap<&str, usize> = HashMap::new();
        let mut builder = GlobSetBuilder::new();
        let mut glob_rules: Vec<Vec<u32>> = Vec::new();
        for (pattern, rule) in patterns {
            match &pattern.glob {
                None => names.entry(pattern.text.as_str().into()).or_default().push(rule),
                Some((glob, _)) => {
                    let at = *known.entry(pattern.text.as_str()).or_insert_with(|| {
                        builder.add(glob.clone());
                        glob_rules.push(Vec::new());
                        glob_rules.len() - 1
                    });
                    glob_rules[at].push(rule);
                }
            }
        }
        Ok(Self { names, globs: builder.build()?, glob_rules, remembered: RwLock::default() })
    }

    /// Adds the rules with a pattern for `name` to `rules`, some of them perhaps twice.
    pub(super) fn find(&self, name: &str, rules: &mut Places) {
        if self.glob_rules.is_empty() {
            return rules.extend_from_slice(self.names.get(name).map_or(&[], Vec::as_slice));
        }
        // What is remembered is whole even if a thread has panicked while it held the lock.
        if let Some(found) = self.remembered.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return rules.extend_from_slice(found);
        }
        let found = self.search(name);
        rules.extend_from_slice(&found);
        let mut remembered = self.remembered.write().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() < REMEMBERED_NAMES_MAX && found.len() <= REMEMBERED_RULES_MAX {
            remembered.insert(name.into(), found.into());
        }
    }

    fn search(&self, name: &str) -> Vec<u32> {
        let mut found = self.names.get(name).cloned().unwrap_or_default();
        for at in self.globs.matches(framed(name)) {
            found.extend_from_slice(&self.glob_rules[at]);
        }
        found
    }
}
