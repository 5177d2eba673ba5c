//! The arguments of a call as values that a condition can read: raw JSON to CEL, without losing or guessing anything.
//!
//! Called by `condition`, at most once for each decision and only if some condition reads `args`. Strings are borrowed from
//! the call. `serde_json::Value` is never used: with its raw-value feature on it gives a meaning to certain keys, and it
//! keeps the last of two equal keys.
//!
//! Numbers: a value that is an integer and fits 64 bits becomes a CEL `int` however it was spelled (`100`, `1e2`, `100.0`);
//! any other becomes a `double` if the shortest text of that double is the number that was written. What is left
//! (`100.0000000000000001`, `12345678901234567890`) becomes a value with which nothing can be computed: a condition that
//! reads it fails, instead of judging a rounded number. Comparing two numbers that came through here is exact.

use std::{any::Any, borrow::Cow, cmp::Ordering, collections::HashMap, fmt};

use cel::common::{
    types::{CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, Type},
    value::{StaticVal, Val},
};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// The longest arguments that conditions look at, in bytes. Longer ones count as unreadable.
pub(super) const ARGUMENTS_BYTES_MAX: usize = 1 << 20;

/// The longest list, or largest mapping, that conditions look at, in elements.
pub(super) const ELEMENTS_MAX: usize = 10_000;

/// The longest number, in characters.
const NUMBER_CHARS_MAX: usize = 400;

/// The arguments, converted.
pub(super) struct Arguments<'a> {
    pub(super) value: Box<dyn Val + 'a>,
    /// Elements of the largest list or mapping in it: how often one loop can go round.
    pub(super) largest: usize,
    pub(super) bytes: usize,
}

/// Why the arguments cannot be read. The text says nothing of what is in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("the arguments are longer than {} KiB", ARGUMENTS_BYTES_MAX >> 10)]
    Bytes,
    #[error("a list or object in the arguments has more than {ELEMENTS_MAX} elements")]
    Elements,
    #[error("an object in the arguments has a key twice")]
    DuplicateKey,
    #[error("the arguments are not readable JSON")]
    Syntax,
}

/// Reads `raw`, a JSON text.
pub(super) fn read(raw: &str) -> Result<Arguments<'_>, Unreadable> {
    if raw.len() > ARGUMENTS_BYTES_MAX {
        return Err(Unreadable::Bytes);
    }
    let mut state = State { rest: raw, largest: 0, failure: None };
    let mut deserializer = serde_json::Deserializer::from_str(raw);
    let value = Reader(&mut state).deserialize(&mut deserializer);
    match value.and_then(|value| deserializer.end().map(|()| value)) {
        Ok(value) => Ok(Arguments { value, largest: state.largest, bytes: raw.len() }),
        Err(_) => Err(state.failure.unwrap_or(Unreadable::Syntax)),
    }
}

struct State<'a> {
    /// What is not yet searched for the text of the next number. Values are visited in the order of the text, so the next
    /// number visited is the next number token outside a string.
    rest: &'a str,
    largest: usize,
    failure: Option<Unreadable>,
}

impl<'a> State<'a> {
    /// The text of the next number.
    fn number(&mut self) -> &'a str {
        let bytes = self.rest.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            match bytes[at] {
                b'"' => {
                    at += 1;
                    while at < bytes.len() && bytes[at] != b'"' {
                        at += if bytes[at] == b'\\' { 2 } else { 1 };
                    }
                    at += 1;
                }
                b'-' | b'0'..=b'9' => {
                    let is_part = |byte: &&u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
                    let end = at + bytes[at..].iter().take_while(is_part).count();
                    let text = &self.rest[at..end];
                    self.rest = &self.rest[end..];
                    return text;
                }
                _ => at += 1,
            }
        }
        self.rest = "";
        ""
    }

    fn count<E: Error>(&mut self, elements: usize) -> Result<(), E> {
        self.largest = self.largest.max(elements);
        if elements > ELEMENTS_MAX { Err(self.fail(Unreadable::Elements)) } else { Ok(()) }
    }

    fn fail<E: Error>(&mut self, failure: Unreadable) -> E {
        self.failure = Some(failure);
        E::custom(failure)
    }
}

struct Reader<'s, 'a>(&'s mut State<'a>);

impl<'a> DeserializeSeed<'a> for Reader<'_, 'a> {
    type Value = Box<dyn Val + 'a>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Reader<'_, 'a> {
    type Value = Box<dyn Val + 'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Box::new(CelNull))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Box::new(CelBool::from(value)))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(number(self.0.number()))
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        Ok(number(self.0.number()))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(number(self.0.number()))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Box::new(CelString::from(text.to_owned())))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'a str) -> Result<Self::Value, E> {
        Ok(Box::new(CelString::from(text)))
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(Reader(self.0))? {
            items.push(item);
            self.0.count(items.len())?;
        }
        Ok(Box::new(CelList::from(items)))
    }

    fn visit_map<A: MapAccess<'a>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut entries: HashMap<CelMapKey<'a>, Box<dyn Val + 'a>> = HashMap::new();
        while let Some(key) = access.next_key_seed(Key)? {
            let key = match key {
                Cow::Borrowed(key) => CelMapKey::from(key),
                Cow::Owned(key) => CelMapKey::from(key),
            };
            let value = access.next_value_seed(Reader(self.0))?;
            if entries.insert(key, value).is_some() {
                return Err(self.0.fail(Unreadable::DuplicateKey));
            }
            self.0.count(entries.len())?;
        }
        Ok(Box::new(CelMap::from(entries)))
    }
}

/// A key, borrowed where it has no escapes.
struct Key;

impl<'a> DeserializeSeed<'a> for Key {
    type Value = Cow<'a, str>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'a> for Key {
    type Value = Cow<'a, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E: Error>(self, key: &'a str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}

fn number<'a>(text: &str) -> Box<dyn Val + 'a> {
    match Number::of(text) {
        Number::Int(value) => Box::new(CelInt::from(value)),
        Number::Double(value) => Box::new(CelDouble::from(value)),
        Number::Inexact => Box::new(InexactNumber::of(text)),
    }
}

/// What a number's text becomes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Int(i64),
    /// Not an integer of 64 bits, and the shortest text of this double is the number.
    Double(f64),
    /// Nothing that could be compared without rounding.
    Inexact,
}

impl Number {
    /// `text` is a number of RFC 8259 §6; anything else is [`Number::Inexact`].
    pub(super) fn of(text: &str) -> Self {
        if text.len() > NUMBER_CHARS_MAX {
            return Self::Inexact;
        }
        if let Ok(value) = text.parse::<i64>() {
            return Self::Int(value);
        }
        let Some(decimal) = Decimal::of(text) else { return Self::Inexact };
        if let Some(value) = decimal.to_i64() {
            return Self::Int(value);
        }
        match text.parse::<f64>() {
            Ok(value)
                if value.is_finite() && Decimal::of(&format!("{value:e}")).as_ref() == Some(&decimal) =>
            {
                Self::Double(value)
            }
            _ => Self::Inexact,
        }
    }
}

/// A decimal number in one form for each value: no zeros at either end of the digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl Decimal {
    /// `text` is a number of RFC 8259 §6, at most [`NUMBER_CHARS_MAX`] long.
    pub(super) fn of(text: &str) -> Option<Self> {
        if text.len() > NUMBER_CHARS_MAX {
            return None;
        }
        let (negative, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let digits = all.trim_start_matches('0');
        let trimmed = digits.trim_end_matches('0');
        if trimmed.is_empty() {
            return Some(Self { negative: false, digits: String::new(), exponent: 0 });
        }
        let shift = i64::try_from(digits.len() - trimmed.len()).ok()? - i64::try_from(fraction.len()).ok()?;
        Some(Self { negative, digits: trimmed.to_owned(), exponent: exponent.checked_add(shift)? })
    }

    /// The exact order of two numbers.
    pub(super) fn compare(&self, other: &Self) -> Ordering {
        let sign = |number: &Self| match (number.digits.is_empty(), number.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        };
        // The place of the first digit, and then the digits: neither has zeros in front or behind.
        let size = |number: &Self| i128::from(number.exponent) + number.digits.len() as i128;
        sign(self).cmp(&sign(other)).then_with(|| {
            let larger = size(self).cmp(&size(other)).then_with(|| self.digits.cmp(&other.digits));
            if self.negative { larger.reverse() } else { larger }
        })
    }

    fn to_i64(&self) -> Option<i64> {
        if self.digits.is_empty() {
            return Some(0);
        }
        let zeros = usize::try_from(self.exponent).ok().filter(|&zeros| zeros < 19)?;
        let sign = if self.negative { "-" } else { "" };
        format!("{sign}{}{}", self.digits, "0".repeat(zeros)).parse().ok()
    }
}

/// Stands for a number that no CEL number is equal to. It has no operators, so whatever reads it fails, except `decimal`.
#[derive(Clone, Debug)]
pub(super) struct InexactNumber(Option<Decimal>);

impl InexactNumber {
    fn of(text: &str) -> Self {
        Self(Decimal::of(text))
    }

    /// The exact number; none where it is too long.
    pub(super) fn decimal(&self) -> Option<Decimal> {
        self.0.clone()
    }
}

static INEXACT: Type = Type::new_unspecified_type("number too precise to compare");

impl Val for InexactNumber {
    fn get_type(&self) -> &Type {
        &INEXACT
    }

    fn cel_type() -> &'static Type {
        &INEXACT
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for InexactNumber {}
