//! String tokens: finding their end, checking their escapes, decoding them.
//!
//! Used by the scanner (which checks) and by the walkers (which only decode what was checked).

use std::borrow::Cow;

use memchr::memchr2_iter;
use wide::u8x16;

use super::Profile;
use crate::jsonrpc::fault::Fault;

/// Why a string token is refused.
pub(super) enum StringFault {
    /// It breaks the grammar at this offset.
    Syntax(usize),
    /// It is grammatical, but not read alike by all.
    Is(Fault),
}

/// Bytes that are looked at together.
const BLOCK: usize = 64;

/// One byte of each lane of a word.
const LANES: u64 = 0x0101_0101_0101_0101;
/// The highest bit of each lane.
const HIGH_BITS: u64 = LANES * 0x80;

/// The offset after the closing quote of the string token that begins (with its quote) at `start`, if it is short and simple, as keys
/// and most values are. `None` says nothing.
#[inline]
pub(super) fn end_of_short(bytes: &[u8], start: usize) -> Option<usize> {
    let hits = hits_in(u8x16::new(*chunk_at(bytes, start + 1)?));
    let end = start + 1 + hits.trailing_zeros() as usize;
    (hits != 0 && bytes.get(end) == Some(&b'"')).then_some(end + 1)
}

/// Skips the string token that begins (with its quote) at `start`. Answers with the offset after the closing quote, and
/// whether the token holds escapes.
pub(super) fn skip(bytes: &[u8], start: usize, profile: Profile) -> Result<(usize, bool), StringFault> {
    let mut at = start + 1;
    let mut has_escapes = false;
    'blocks: while let Some(block) = chunk_at::<BLOCK>(bytes, at) {
        let start = at;
        let hits = Hits::in_block(block);
        if hits.is_empty() {
            at = after_plain(bytes, at + BLOCK);
            continue;
        }
        let Hits { ends, backslashes } = hits;
        let escapes = escapes_of(backslashes);
        // What an escape is made of ends nothing.
        let end = ends & !(escapes << 1);
        let inside = bits_below(end);
        has_escapes |= escapes & inside != 0;
        let mut escaped = (escapes << 1) & inside;
        while escaped != 0 {
            let at_escaped = escaped.trailing_zeros() as usize;
            if is_simple_escape(block[at_escaped]) {
                escaped &= escaped - 1;
                continue;
            }
            let after = skip_escape(bytes, start + at_escaped - 1, profile)?;
            if after >= start + BLOCK {
                at = after;
                continue 'blocks;
            }
            escaped &= u64::MAX << (after - start);
        }
        if end != 0 {
            let hit = start + end.trailing_zeros() as usize;
            return if bytes[hit] == b'"' {
                Ok((hit + 1, has_escapes))
            } else {
                Err(StringFault::Syntax(hit))
            };
        }
        // The last byte may begin an escape, of which nothing has been seen.
        at += BLOCK - (escapes >> (BLOCK - 1)) as usize;
    }
    loop {
        while let Some(chunk) = chunk_at(bytes, at) {
            match first_hit(*chunk) {
                Some(hit) => {
                    at += hit;
                    break;
                }
                None => at += 8,
            }
        }
        match bytes.get(at) {
            Some(b'"') => return Ok((at + 1, has_escapes)),
            Some(b'\\') => {
                has_escapes = true;
                at = skip_escape(bytes, at, profile)?;
            }
            Some(0x20..) => at += 1,
            // A control character, or the end of the text.
            _ => return Err(StringFault::Syntax(at)),
        }
    }
}

#[inline]
fn chunk_at<const N: usize>(bytes: &[u8], at: usize) -> Option<&[u8; N]> {
    bytes.get(at..)?.first_chunk()
}

/// The index of the first quote, backslash or control character in a word.
#[inline]
fn first_hit(chunk: [u8; 8]) -> Option<usize> {
    // A lane's high bit is set where the byte is one of those looked for. A borrow can set bits above a hit, never below
    // it, so the lowest bit is right.
    let word = u64::from_le_bytes(chunk);
    let quote = word ^ (LANES * 0x22);
    let backslash = word ^ (LANES * 0x5c);
    let hits = (quote.wrapping_sub(LANES) & !quote)
        | (backslash.wrapping_sub(LANES) & !backslash)
        | (word.wrapping_sub(LANES * 0x20) & !word);
    let hits = hits & HIGH_BITS;
    (hits != 0).then(|| (hits.trailing_zeros() / 8) as usize)
}

/// What stands in a block: a bit for each byte, the first the lowest.
struct Hits {
    /// Quotes and control characters.
    ends: u64,
    backslashes: u64,
}

impl Hits {
    #[inline]
    fn in_block(block: &[u8; BLOCK]) -> Self {
        let (parts, _) = block.as_chunks::<16>();
        let mut hits = Self { ends: 0, backslashes: 0 };
        for part in parts.iter().rev() {
            let part = u8x16::new(*part);
            hits.ends = hits.ends << 16 | u64::from(ends_in(part).to_bitmask());
            hits.backslashes = hits.backslashes << 16 | u64::from(backslashes_in(part).to_bitmask());
        }
        hits
    }

    fn is_empty(&self) -> bool {
        self.ends | self.backslashes == 0
    }
}

/// The offset behind the blocks from `at` on that hold none of either. Asked where one was so: plain text and encoded data go on like
/// that, and a block that is not so is looked at twice.
fn after_plain(bytes: &[u8], mut at: usize) -> usize {
    while let Some(block) = chunk_at::<BLOCK>(bytes, at) {
        let (parts, _) = block.as_chunks::<16>();
        let hits = parts.iter().fold(u8x16::ZERO, |hits, part| {
            let part = u8x16::new(*part);
            hits | ends_in(part) | backslashes_in(part)
        });
        if hits.to_bitmask() != 0 {
            break;
        }
        at += BLOCK;
    }
    at
}

/// The quotes, backslashes and control characters of sixteen bytes, in the same way.
#[inline]
fn hits_in(bytes: u8x16) -> u32 {
    (ends_in(bytes) | backslashes_in(bytes)).to_bitmask()
}

#[inline]
fn ends_in(bytes: u8x16) -> u8x16 {
    bytes.simd_eq(u8x16::splat(b'"')) | bytes.min(u8x16::splat(0x1f)).simd_eq(bytes)
}

#[inline]
fn backslashes_in(bytes: u8x16) -> u8x16 {
    bytes.simd_eq(u8x16::splat(b'\\'))
}

/// The backslashes that begin an escape: of those that stand side by side, the first and every second one after it.
#[inline]
fn escapes_of(backslashes: u64) -> u64 {
    // Nearly always.
    if backslashes & (backslashes << 1) == 0 {
        return backslashes;
    }
    let (mut rest, mut escapes) = (backslashes, 0);
    while rest != 0 {
        let first = rest & rest.wrapping_neg();
        escapes |= first;
        rest &= !(first | first << 1);
    }
    escapes
}

/// The bits below the lowest one of `bits`; all, where there is none.
#[inline]
fn bits_below(bits: u64) -> u64 {
    !bits & bits.wrapping_sub(1)
}

/// Whether a backslash and this byte are an escape by themselves (RFC 8259 section 7).
#[inline]
fn is_simple_escape(byte: u8) -> bool {
    matches!(byte, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't')
}

/// Skips the escape whose backslash stands at `at`.
fn skip_escape(bytes: &[u8], at: usize, profile: Profile) -> Result<usize, StringFault> {
    match bytes.get(at + 1) {
        Some(&byte) if is_simple_escape(byte) => Ok(at + 2),
        Some(b'u') => {
            let Some(unit) = hex4(bytes, at + 2) else { return Err(StringFault::Syntax(at)) };
            if profile == Profile::Loose {
                return Ok(at + 6);
            }
            let (code, end) = match unit {
                0xd800..=0xdbff => {
                    // A high surrogate must be followed by the escape of a low one.
                    if bytes.get(at + 6..at + 8) != Some(b"\\u") {
                        return Err(StringFault::Is(Fault::LoneSurrogate));
                    }
                    match hex4(bytes, at + 8) {
                        Some(low @ 0xdc00..=0xdfff) => (combine(unit, low), at + 12),
                        Some(_) => return Err(StringFault::Is(Fault::LoneSurrogate)),
                        None => return Err(StringFault::Syntax(at + 6)),
                    }
                }
                0xdc00..=0xdfff => return Err(StringFault::Is(Fault::LoneSurrogate)),
                _ => (unit, at + 6),
            };
            if is_noncharacter(code) { Err(StringFault::Is(Fault::Noncharacter)) } else { Ok(end) }
        }
        _ => Err(StringFault::Syntax(at)),
    }
}

/// The four hexadecimal digits at `at`.
fn hex4(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.iter().try_fold(0, |unit, &byte| Some(unit * 16 + char::from(byte).to_digit(16)?))
}

/// The code point of a surrogate pair (RFC 8259 section 7).
fn combine(high: u32, low: u32) -> u32 {
    0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00)
}

/// The 66 code points that Unicode guarantees never to assign.
fn is_noncharacter(code: u32) -> bool {
    code & 0xfffe == 0xfffe || (0xfdd0..=0xfdef).contains(&code)
}

/// Whether `text` holds a noncharacter as itself (not as an escape).
pub(super) fn has_noncharacter(text: &str) -> bool {
    // In UTF-8 their last two bytes are BF BE or BF BF, or (U+FDD0 to U+FDEF) B7 90 to B7 AF.
    !text.is_ascii()
        && memchr2_iter(0xb7, 0xbf, text.as_bytes()).any(|at| {
            let start = text.floor_char_boundary(at);
            text.get(start..)
                .and_then(|rest| rest.chars().next())
                .is_some_and(|c| is_noncharacter(u32::from(c)))
        })
}

/// The decoded inside of a string token. Borrows where there is no escape. A lone surrogate, which only a loosely scanned
/// text can hold, becomes U+FFFD; so does an escape that is none.
pub(super) fn decode(inside: &str) -> Cow<'_, str> {
    let Some(first) = memchr::memchr(b'\\', inside.as_bytes()) else { return Cow::Borrowed(inside) };
    let mut decoded = String::with_capacity(inside.len());
    let mut rest = inside;
    let mut next = Some(first);
    while let Some(at) = next {
        decoded.push_str(&rest[..at]);
        let (c, length) = decode_escape(&rest.as_bytes()[at..]);
        decoded.push(c);
        rest = rest.get(at + length..).unwrap_or_default();
        next = memchr::memchr(b'\\', rest.as_bytes());
    }
    decoded.push_str(rest);
    Cow::Owned(decoded)
}

/// The character of the escape at the beginning of `escape`, and the escape's length in bytes.
fn decode_escape(escape: &[u8]) -> (char, usize) {
    let simple = match escape.get(1) {
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => {
            let Some(unit) = hex4(escape, 2) else { return (char::REPLACEMENT_CHARACTER, 2) };
            let low = (0xd800..=0xdbff)
                .contains(&unit)
                .then(|| (escape.get(6..8) == Some(b"\\u")).then(|| hex4(escape, 8)).flatten())
                .flatten()
                .filter(|low| (0xdc00..=0xdfff).contains(low));
            let (code, length) = low.map_or((unit, 6), |low| (combine(unit, low), 12));
            return (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), length);
        }
        Some(&byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
        _ => return (char::REPLACEMENT_CHARACTER, 1),
    };
    (simple, 2)
}
