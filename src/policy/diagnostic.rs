//! What is wrong, or doubtful, in a policy file, with the place and a way out.
//!
//! Made by every reader of a policy, rendered by the command line and by whoever refuses to start. Never contains anything
//! of a call: only the policy author's own text.

use std::{fmt, ops::Range, sync::Arc};

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet, renderer::DecorStyle};

/// A policy file, or any text that is read like one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The name in messages: usually the path as it was given.
    pub name: String,
    /// What is in it.
    pub text: String,
}

impl Source {
    /// Where line and column (both from 1, the column in characters) are in the text, in bytes.
    pub(crate) fn offset(&self, line: u64, column: u64) -> usize {
        let (line, column) = (usize::try_from(line).unwrap_or(0), usize::try_from(column).unwrap_or(0));
        let start = self.text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum::<usize>();
        let rest = self.text.get(start..).unwrap_or_default();
        start + rest.char_indices().nth(column.saturating_sub(1)).map_or(rest.len(), |(at, _)| at)
    }
}

/// Counts lines along files: rules come in the order of their files, so that each part of one is looked through once.
#[derive(Default)]
pub(super) struct Lines {
    source: Option<Arc<Source>>,
    at: usize,
    line: usize,
}

impl Lines {
    /// The line, from 1, of the byte `at` of `source`.
    pub(super) fn line(&mut self, source: &Arc<Source>, at: usize) -> usize {
        let at = source.text.floor_char_boundary(at);
        let is_further =
            self.at <= at && self.source.as_ref().is_some_and(|known| Arc::ptr_eq(known, source));
        if !is_further {
            *self = Self { source: Some(Arc::clone(source)), at: 0, line: 1 };
        }
        self.line += source.text[self.at..at].matches('\n').count();
        self.at = at;
        self.line
    }
}

/// Whether a [`Diagnostic`] stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The policy works as written, perhaps not as meant.
    Warning,
    /// The policy is refused.
    Error,
}

/// One finding in a policy file.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    pub(super) severity: Severity,
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) label: String,
    pub(super) hint: Option<String>,
    pub(super) source: Arc<Source>,
    pub(super) span: Range<usize>,
}

impl Diagnostic {
    /// An error at `span` (bytes of the source's text).
    pub(crate) fn error(
        code: &'static str,
        source: &Arc<Source>,
        span: Range<usize>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            label: String::new(),
            hint: None,
            source: Arc::clone(source),
            span,
        }
    }

    /// A warning at `span` (bytes of the source's text).
    pub(super) fn warning(
        code: &'static str,
        source: &Arc<Source>,
        span: Range<usize>,
        message: impl Into<String>,
    ) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, source, span, message) }
    }

    /// The words beside the caret.
    pub(super) fn label(self, label: impl Into<String>) -> Self {
        Self { label: label.into(), ..self }
    }

    /// What to do about it.
    pub(crate) fn hint(self, hint: impl Into<Option<String>>) -> Self {
        Self { hint: hint.into(), ..self }
    }

    /// Whether it stands in the way.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// The stable code, such as `P0103`.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// What is wrong, in one line.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it, if that is known.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The name of the file.
    pub fn source_name(&self) -> &str {
        &self.source.name
    }

    /// Line and column (both from 1, the column in characters) where it begins.
    pub fn position(&self) -> (usize, usize) {
        let before = &self.source.text[..self.start()];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// The start of the span, moved back to where a character begins.
    fn start(&self) -> usize {
        self.source.text.floor_char_boundary(self.span.start)
    }

    /// Message, place, the lines concerned with a caret, and the hint. Several lines, no line feed at the end.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let text = &self.source.text;
        let start = self.start();
        let end = text.ceil_char_boundary(self.span.end.max(start));
        // A span over a whole rule would print the whole rule: its first line is enough to find it.
        let end = text[start..end].find('\n').map_or(end, |at| start + at);
        let annotation = AnnotationKind::Primary.span(start..end);
        let annotation =
            if self.label.is_empty() { annotation } else { annotation.label(self.label.as_str()) };
        let title = level.primary_title(self.message.as_str()).id(self.code);
        let mut groups = vec![if text.is_empty() {
            title.element(annotate_snippets::Origin::path(self.source.name.as_str()))
        } else {
            title.element(
                Snippet::source(text.as_str()).path(self.source.name.as_str()).annotation(annotation),
            )
        }];
        if let Some(hint) = &self.hint {
            let group = groups.remove(0).element(Level::HELP.with_name(Some("hint")).message(hint.as_str()));
            groups.push(group);
        }
        renderer.decor_style(DecorStyle::Ascii).render(&groups)
    }
}

/// Why a policy is refused: all errors found, in the order of the files, never empty. Warnings found beside them follow.
#[derive(Debug)]
pub struct PolicyErrors {
    diagnostics: Vec<Diagnostic>,
}

impl PolicyErrors {
    pub(crate) fn new(mut diagnostics: Vec<Diagnostic>) -> Self {
        diagnostics.sort_by_key(|diagnostic| std::cmp::Reverse(diagnostic.severity));
        Self { diagnostics }
    }

    /// Errors first, then warnings.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// Everything, rendered, with an empty line between findings.
    pub fn render(&self, color: bool) -> String {
        let rendered: Vec<String> =
            self.diagnostics.iter().map(|diagnostic| diagnostic.render(color)).collect();
        rendered.join("\n\n")
    }
}

impl fmt::Display for PolicyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for PolicyErrors {}

/// The known word that `word` was probably meant to be.
pub(super) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = |text: &str| text.to_lowercase().replace(['-', ' '], "_");
    known
        .into_iter()
        .map(|candidate| (distance(&folded(word), &folded(candidate)), candidate))
        .filter(|&(distance, candidate)| distance <= (candidate.len() / 3).max(1))
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// The Levenshtein distance; words longer than 64 characters count as far from everything.
fn distance(a: &str, b: &str) -> usize {
    const CHARS_MAX: usize = 64;
    let b: Vec<char> = b.chars().take(CHARS_MAX + 1).collect();
    if b.len() > CHARS_MAX || a.chars().count() > CHARS_MAX {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &right) in b.iter().enumerate() {
            let changed = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
