//! The functions of conditions that CEL itself does not have: hosts, mail domains, addresses, paths, patterns, times, decimals.
//!
//! Declared by `condition`, their written-out arguments checked by `lint`. Each reads a text one way only: what two programs
//! could take differently (a URL with a user in it, a path with backslashes) is an error, and an error never widens.
//! Nothing here touches the world; no message repeats anything of a call.

use std::{any::Any, cmp::Ordering, net::IpAddr};

use cel::{
    ExecutionError,
    common::{
        traits::Comparer,
        types::{CelBool, CelDouble, CelInt, CelString, CelUInt, DYN_TYPE, Type},
        value::{CowVal, StaticVal, Val},
    },
};
use jiff::Timestamp;

use super::{
    arguments::{Decimal, InexactNumber},
    hours::Hours,
    yaml,
};

/// Functions on a text or a time, as they are written, with whether their argument has to be written out.
pub(super) const METHODS: [&str; 7] =
    ["glob", "host", "emailDomain", "within", "inCidr", "underPath", "during"];

/// The one that is called alone.
pub(super) const DECIMAL: &str = "decimal";

/// The longest URL, path or address that is looked at, in bytes.
const TEXT_BYTES_MAX: usize = 16 << 10;

/// Adds the functions.
pub(super) fn declare(env: &mut cel::Env) -> Result<(), cel::DeclarationError> {
    env.add_overload(DECIMAL, DECIMAL, vec![DYN_TYPE], decimal)?;
    let member = |env: &mut cel::Env, name: &str, arguments: usize, op| {
        env.add_member_overload(name, name, DYN_TYPE, (0..arguments).map(|_| DYN_TYPE).collect(), op)
    };
    member(env, "glob", 1, |values| with_literal("glob", &values, |text, pattern| Ok(glob(text, pattern))))?;
    member(env, "within", 1, |values| with_literal("within", &values, within))?;
    member(env, "inCidr", 1, |values| with_literal("inCidr", &values, in_cidr))?;
    member(env, "underPath", 1, |values| with_literal("underPath", &values, under_path))?;
    member(env, "host", 0, |values| on_text("host", &values, host))?;
    member(env, "emailDomain", 0, |values| on_text("emailDomain", &values, email_domain))?;
    member(env, "during", 1, during)
}

/// Whether the function is one of these.
pub(super) fn is_ours(function: &str) -> bool {
    function == DECIMAL || METHODS.contains(&function)
}

/// Whether `literal` can be the argument of `method`; if not, why, for the policy's author.
pub(super) fn check_literal(method: &str, literal: &str) -> Result<(), String> {
    match method {
        "glob" if literal.is_empty() => Err("the pattern is empty".to_owned()),
        "glob" if literal.contains(['[', ']', '{', '}', '\\']) => {
            Err("here `*` and `?` are all that a pattern has".to_owned())
        }
        "within" => match plain_domain(literal) {
            Some(domain) if domain == literal => Ok(()),
            _ => Err("not the name of a domain in lower case, such as `example.com` (others as `xn--…`)"
                .to_owned()),
        },
        "inCidr" => Cidr::parse(literal).map(drop),
        "underPath" => match normal_path(literal) {
            Ok(steps) if steps.is_empty() => Err("every path is under `/`".to_owned()),
            Ok(_) => Ok(()),
            Err(told) => Err(told.to_owned()),
        },
        "during" => Hours::parse(literal).map(drop),
        _ => Ok(()),
    }
}

/// What is wrong with a value of the call. Told to people, so it says nothing of the value.
type Told = &'static str;

fn failed(function: &str, told: Told) -> ExecutionError {
    ExecutionError::FunctionError { function: function.to_owned(), message: told.to_owned() }
}

fn text_of<'c>(function: &str, value: &'c CowVal<'_, '_>) -> Result<&'c str, ExecutionError> {
    let text = value.downcast_ref::<CelString<'_>>().map(CelString::inner);
    let text = text.ok_or_else(|| failed(function, "it works on text"))?;
    if text.len() > TEXT_BYTES_MAX { Err(failed(function, "the text is too long")) } else { Ok(text) }
}

fn with_literal<'b, 'v>(
    function: &str,
    values: &[CowVal<'b, 'v>],
    judge: fn(&str, &str) -> Result<bool, Told>,
) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let [text, literal] = values else { return Err(failed(function, "it takes one argument")) };
    let (text, literal) = (text_of(function, text)?, text_of(function, literal)?);
    judge(text, literal).map(|met| CowVal::owned(CelBool::from(met))).map_err(|told| failed(function, told))
}

fn on_text<'b, 'v>(
    function: &str,
    values: &[CowVal<'b, 'v>],
    read: fn(&str) -> Result<String, Told>,
) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let [text] = values else { return Err(failed(function, "it takes no argument")) };
    let found = read(text_of(function, text)?).map_err(|told| failed(function, told))?;
    Ok(CowVal::owned(CelString::from(found)))
}

/// `*` stands for any characters, `?` for one; in time proportional to the product of the lengths, without recursion.
fn glob(text: &str, pattern: &str) -> bool {
    let (text, pattern): (Vec<char>, Vec<char>) = (text.chars().collect(), pattern.chars().collect());
    let (mut at, mut in_pattern) = (0, 0);
    // Where the last `*` was, and how much of the text it has taken.
    let mut star: Option<(usize, usize)> = None;
    while at < text.len() {
        match pattern.get(in_pattern) {
            Some('*') => {
                star = Some((in_pattern, at));
                in_pattern += 1;
            }
            Some(&letter) if letter == '?' || letter == text[at] => {
                at += 1;
                in_pattern += 1;
            }
            _ => {
                let Some((place, taken)) = star else { return false };
                star = Some((place, taken + 1));
                (at, in_pattern) = (taken + 1, place + 1);
            }
        }
    }
    pattern[in_pattern..].iter().all(|&letter| letter == '*')
}

/// The host of a URL, in the form in which hosts are compared: lower case, `xn--`, addresses in their usual form and
/// without brackets, no dot at the end.
fn host(text: &str) -> Result<String, Told> {
    let odd = |letter: char| letter == '\\' || letter.is_whitespace() || letter.is_control();
    if text.contains(odd) {
        return Err("programs read this URL differently: it has a backslash, a space or a control character");
    }
    let url = url::Url::parse(text).map_err(|_| "this is not a whole URL")?;
    if !url.username().is_empty() || url.password().is_some() || has_user(text) {
        return Err("the URL has a user in it, which hides its host");
    }
    if !matches!(url.scheme(), "http" | "https" | "ws" | "wss" | "ftp") {
        return Err("hosts are read from http, https, ws, wss and ftp URLs");
    }
    match url.host() {
        Some(url::Host::Domain(domain)) => {
            plain_domain(domain.trim_end_matches('.')).ok_or("the host is no name")
        }
        Some(url::Host::Ipv4(address)) => Ok(address.to_string()),
        Some(url::Host::Ipv6(address)) => Ok(IpAddr::V6(address).to_canonical().to_string()),
        None => Err("the URL has no host"),
    }
}

/// Whether there is an `@` before the path: also an empty user is one.
fn has_user(url: &str) -> bool {
    let rest = url.split_once(':').map_or(url, |(_, rest)| rest).trim_start_matches('/');
    rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())].contains('@')
}

/// The domain of one plain mail address, in the form in which domains are compared.
fn email_domain(text: &str) -> Result<String, Told> {
    let (local, domain) = text.split_once('@').ok_or("this is not a mail address")?;
    let odd =
        |letter: char| letter.is_whitespace() || letter.is_control() || "@,;:<>()[]\"\\%!".contains(letter);
    if local.is_empty() || text.contains(odd_outside_at(odd)) || domain.contains('@') {
        return Err("this is not one plain mail address");
    }
    match url::Host::parse(domain) {
        Ok(url::Host::Domain(domain)) => plain_domain(&domain).ok_or("the domain is no name"),
        _ => Err("the address has no domain"),
    }
}

/// `odd`, except for the one sign that every address has.
fn odd_outside_at(odd: impl Fn(char) -> bool) -> impl Fn(char) -> bool {
    move |letter| letter != '@' && odd(letter)
}

/// A domain's name in lower case, if it is one.
fn plain_domain(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    (lower.len() <= 253 && lower.split('.').all(is_label)).then_some(lower)
}

fn within(text: &str, domain: &str) -> Result<bool, Told> {
    let name =
        plain_domain(text.strip_suffix('.').unwrap_or(text)).ok_or("this is not the name of a host")?;
    Ok(name.strip_suffix(domain).is_some_and(|before| before.is_empty() || before.ends_with('.')))
}

/// A block of addresses.
struct Cidr {
    /// As an IPv6 address; IPv4 mapped into it.
    network: u128,
    bits: u32,
    v4: bool,
}

impl Cidr {
    fn parse(text: &str) -> Result<Self, String> {
        let (address, bits) =
            text.split_once('/').ok_or("write a block of addresses, such as `10.0.0.0/8`")?;
        let address: IpAddr = address.parse().map_err(|_| "the part before `/` is not an address")?;
        let v4 = address.is_ipv4();
        let most = if v4 { 32 } else { 128 };
        let known = |bits: &u32| *bits <= most && !text.ends_with("/+");
        let bits: u32 = bits
            .parse()
            .ok()
            .filter(known)
            .ok_or_else(|| format!("the part after `/` is a number up to {most}"))?;
        let bits = if v4 { bits + 96 } else { bits };
        let network = number(address);
        if network & !mask(bits) != 0 {
            return Err("the address has bits behind the length of the block".to_owned());
        }
        Ok(Self { network, bits, v4 })
    }
}

fn mask(bits: u32) -> u128 {
    u128::MAX.checked_shl(128 - bits).unwrap_or(0)
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_ipv6_mapped()),
        IpAddr::V6(address) => u128::from(address),
    }
}

fn in_cidr(text: &str, block: &str) -> Result<bool, Told> {
    let block = Cidr::parse(block).map_err(|_| "the block of addresses is none")?;
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address: IpAddr = inner.parse().map_err(|_| "this is not an address")?;
    let address = address.to_canonical();
    // A block of IPv6 that is wide enough has all of IPv4 in it, but nobody who writes `::/0` means so.
    Ok(address.is_ipv4() == block.v4 && number(address) & mask(block.bits) == block.network)
}

/// The steps of an absolute path, without `.`, `..` and empty ones.
fn normal_path(text: &str) -> Result<Vec<&str>, Told> {
    if !text.starts_with('/') {
        return Err("only paths from `/` on can be compared");
    }
    if text.contains(['\\', '\0']) {
        return Err("programs read this path differently: it has a backslash or a NUL");
    }
    let mut steps = Vec::new();
    for step in text.split('/') {
        match step {
            "" | "." => {}
            ".." => drop(steps.pop()),
            step => steps.push(step),
        }
    }
    Ok(steps)
}

fn under_path(text: &str, prefix: &str) -> Result<bool, Told> {
    Ok(normal_path(text)?.starts_with(&normal_path(prefix)?))
}

/// The moment of the decision, as a value that only `during` reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment(pub(super) Timestamp);

static MOMENT: Type = Type::new_unspecified_type("moment");

impl Val for Moment {
    fn get_type(&self) -> &Type {
        &MOMENT
    }

    fn cel_type() -> &'static Type {
        &MOMENT
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(*self)
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Moment {}

fn during<'b, 'v>(values: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let [moment, hours] = values.as_slice() else { return Err(failed("during", "it takes one argument")) };
    let moment = moment.downcast_ref::<Moment>().ok_or_else(|| failed("during", "it works on `now`"))?;
    let hours = Hours::parse(text_of("during", hours)?).map_err(|_| failed("during", "not hours"))?;
    Ok(CowVal::owned(CelBool::from(hours.contain(moment.0))))
}

/// A number of any size and precision. It compares with every number, exactly.
#[derive(Clone, Debug)]
pub(super) struct DecimalValue(Decimal);

static DECIMAL_TYPE: Type = Type::new_unspecified_type("decimal");

impl Val for DecimalValue {
    fn get_type(&self) -> &Type {
        &DECIMAL_TYPE
    }

    fn cel_type() -> &'static Type {
        &DECIMAL_TYPE
    }

    fn as_comparer(&self) -> Option<&dyn Comparer> {
        Some(self)
    }

    fn equals(&self, other: &dyn Val) -> bool {
        decimal_of(other).is_some_and(|other| other == self.0)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for DecimalValue {}

impl Comparer for DecimalValue {
    fn compare(&self, other: &dyn Val) -> Result<Ordering, ExecutionError> {
        let other = decimal_of(other).ok_or_else(|| failed(DECIMAL, "it compares with numbers"))?;
        Ok(self.0.compare(&other))
    }
}

/// The exact value of a number; none for anything else, text too.
pub(super) fn decimal_of(value: &dyn Val) -> Option<Decimal> {
    if let Some(value) = value.downcast_ref::<DecimalValue>() {
        Some(value.0.clone())
    } else if let Some(value) = value.downcast_ref::<CelInt>() {
        Decimal::of(&value.inner().to_string())
    } else if let Some(value) = value.downcast_ref::<CelUInt>() {
        Decimal::of(&value.inner().to_string())
    } else if let Some(value) = value.downcast_ref::<CelDouble>() {
        Decimal::of(&format!("{:e}", value.inner()))
    } else {
        value.downcast_ref::<InexactNumber>().and_then(InexactNumber::decimal)
    }
}

/// Whether equality with this value is that of decimals.
pub(super) fn is_decimal(value: &dyn Val) -> bool {
    value.downcast_ref::<DecimalValue>().is_some()
}

fn decimal<'b, 'v>(values: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let [value] = values.as_slice() else { return Err(failed(DECIMAL, "it takes one argument")) };
    let found = match value.downcast_ref::<CelString<'_>>() {
        Some(text) => Some(text.inner()).filter(|text| yaml::is_json_number(text)).and_then(Decimal::of),
        None => decimal_of(value.as_ref()),
    };
    found
        .map(|found| CowVal::owned(DecimalValue(found)))
        .ok_or_else(|| failed(DECIMAL, "this is not a number"))
}
