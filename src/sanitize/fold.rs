//! What a lenient parser may take a name for.
//!
//! Used to find keys and methods that are not a known one but would be read as it. Folding is for comparing only; a folded
//! text is never shown or sent.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;

use super::classes::is_invisible;

/// `name` as the most lenient reader would have it: compatibility characters replaced (NFKC; so `ſ` is `s` and the Kelvin
/// sign is `k`), lower case, without control and invisible characters, without white space around it.
pub fn fold(name: &str) -> Cow<'_, str> {
    if name.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase()) {
        return Cow::Borrowed(name);
    }
    if name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Cow::Owned(name.to_ascii_lowercase());
    }
    let visible = |c: &char| !c.is_control() && !is_invisible(*c);
    // Lower-casing can leave a form that is not normalised (`İ`), hence the second round.
    let lower: String = name.nfkc().filter(visible).flat_map(char::to_lowercase).collect();
    let folded: String = lower.nfkc().filter(visible).collect();
    Cow::Owned(folded.trim().to_owned())
}
