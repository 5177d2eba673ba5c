//! Internet names in a call that are not written as the network reads them: shown to the approver in both forms.
//!
//! A part of `view`. `xn--` hides letters, and letters hide which host is meant: `аpple.com` with a Cyrillic letter is another host
//! than the one it looks like. Names are looked for in URLs and in addresses of mail; nothing is looked up.

use std::collections::BTreeSet;

use url::Host;

use crate::sanitize;

/// Names that one call is warned of; more of them are one warning more.
const NAMES_MAX: usize = 10;

/// The longest name of a host (RFC 1035, section 2.3.4), in bytes; of one in letters, what can become that.
const NAME_BYTES_MAX: usize = 253 * 4;

/// Adds the names in `text` that have two forms: as letters, and as the network reads them.
pub(super) fn find(text: &str, found: &mut BTreeSet<(String, String)>) {
    for (at, mark) in text.match_indices("://").chain(text.match_indices('@')) {
        if found.len() > NAMES_MAX {
            return;
        }
        let rest = &text[at + mark.len()..];
        let end = rest.find(|c: char| c.is_whitespace() || "/?#\\\"'<>()[]{},;".contains(c));
        let authority = &rest[..end.unwrap_or(rest.len())];
        // What stands before an `@` is a user, and what stands behind a colon is a port.
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let host = host.split_once(':').map_or(host, |(host, _)| host);
        found.extend(both_forms(host));
    }
}

/// A name in letters and as the network reads it, where the two differ.
fn both_forms(name: &str) -> Option<(String, String)> {
    let has_two =
        !name.is_ascii() || name.to_ascii_lowercase().split('.').any(|part| part.starts_with("xn--"));
    if !has_two || name.len() > NAME_BYTES_MAX {
        return None;
    }
    let Ok(Host::Domain(ascii)) = Host::parse(name) else { return None };
    let (letters, _) = idna::domain_to_unicode(&ascii);
    (letters != ascii).then_some((letters, ascii))
}

/// What an approver is told of the names that were found.
pub(super) fn warnings(found: &BTreeSet<(String, String)>) -> Vec<String> {
    let names = found.iter().take(NAMES_MAX).map(|(letters, ascii)| {
        let (letters, ascii) = (sanitize::render(letters), sanitize::render(ascii));
        format!("names the internet host {letters}, which is {ascii} to the network")
    });
    let more = found.len().saturating_sub(NAMES_MAX);
    let more = (more > 0).then(|| "names more hosts with letters of other alphabets".to_owned());
    names.chain(more).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Vec<String> {
        let mut found = BTreeSet::new();
        find(text, &mut found);
        warnings(&found)
    }

    #[test]
    fn a_host_in_other_letters_is_named_in_both_forms() {
        for text in [
            "see https://\u{430}pple.com/login",
            "https://XN--pple-43d.com:443/",
            "mail bob@\u{430}pple.com, please",
            "ftp://user:secret@\u{430}pple.com/x",
        ] {
            let told = told(text);
            assert_eq!(told.len(), 1, "{text}: {told:?}");
            assert!(told[0].contains("\u{430}pple.com") && told[0].contains("xn--pple-43d.com"), "{told:?}");
        }
        assert_eq!(told("https://b\u{fc}cher.example").len(), 1);
    }

    #[test]
    fn what_has_one_form_or_is_no_host_is_not_named() {
        for text in [
            "https://example.com/\u{430}",
            "a@b.example",
            "@",
            "://",
            "https://[::1]/",
            "x@\u{202e}",
            "\u{430}://",
        ] {
            assert_eq!(told(text), Vec::<String>::new(), "{text}");
        }
        let many: String = (0..40).map(|n| format!("https://\u{430}{n}.example ")).collect();
        let told = told(&many);
        assert_eq!(told.len(), NAMES_MAX + 1);
        assert!(told[NAMES_MAX].contains("more hosts"));
    }
}
