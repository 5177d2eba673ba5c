//! `==`, `!=` and `in` between values of different kinds are errors here, not `false`.
//!
//! The language definition makes `"100" == 100` false. For a gate that is a hole: `args.force == true` would let a call with
//! `"force": "true"` by, and many servers take the text for the value. As an error it holds (and does not allow). Only
//! `null` may be compared with everything, because that is how one asks for it. `condition` puts these functions in the
//! place of the three operators; an author cannot call them.

use cel::{
    ExecutionError,
    common::{
        types::{CelBool, CelList, CelMap, CelString, DYN_TYPE, Kind},
        value::{CowVal, Val},
    },
};

use super::functions;

/// Stands for `==`.
pub(super) const EQUAL: &str = "@equal";
/// Stands for `!=`.
pub(super) const UNEQUAL: &str = "@unequal";
/// Stands for `in`.
pub(super) const ELEMENT: &str = "@element";

/// Adds the three functions.
pub(super) fn declare(env: &mut cel::Env) -> Result<(), cel::DeclarationError> {
    env.add_overload(EQUAL, EQUAL, vec![DYN_TYPE, DYN_TYPE], equal)?;
    env.add_overload(UNEQUAL, UNEQUAL, vec![DYN_TYPE, DYN_TYPE], unequal)?;
    env.add_overload(ELEMENT, ELEMENT, vec![DYN_TYPE, DYN_TYPE], element)
}

fn equal<'b, 'v>(values: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let [left, right] = two(&values)?;
    same(left, right).map(|same| CowVal::owned(CelBool::from(same)))
}

fn unequal<'b, 'v>(values: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let [left, right] = two(&values)?;
    same(left, right).map(|same| CowVal::owned(CelBool::from(!same)))
}

fn element<'b, 'v>(values: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let [needle, container] = two(&values)?;
    let found = if let Some(list) = container.downcast_ref::<CelList<'_>>() {
        among(needle, list.inner())?
    } else if container.downcast_ref::<CelMap<'_>>().is_some()
        && needle.downcast_ref::<CelString<'_>>().is_some()
    {
        let keys = container.as_container().ok_or_else(|| mismatch("in", needle, container))?;
        keys.contains(needle)?
    } else {
        return Err(mismatch("in", needle, container));
    };
    Ok(CowVal::owned(CelBool::from(found)))
}

fn two<'c, 'b, 'v>(values: &'c [CowVal<'b, 'v>]) -> Result<[&'c (dyn Val + 'v); 2], ExecutionError> {
    match values {
        [left, right] => Ok([left.as_ref(), right.as_ref()]),
        _ => Err(ExecutionError::invalid_argument_count(2, values.len())),
    }
}

/// Whether `needle` is one of `list`. Elements of another kind are not it; a list of nothing else is a mistake or a trick.
fn among<'v>(needle: &(dyn Val + 'v), list: &[Box<dyn Val + 'v>]) -> Result<bool, ExecutionError> {
    let mut comparable = list.is_empty() && !matches!(Sort::of(needle), Sort::Other);
    for item in list {
        match same(needle, item.as_ref()) {
            Ok(true) => return Ok(true),
            Ok(false) => comparable = true,
            // A number that cannot be compared might be the one that is looked for.
            Err(error) if matches!(Sort::of(item.as_ref()), Sort::Other) => return Err(error),
            Err(_) => {}
        }
    }
    if comparable { Ok(false) } else { Err(ExecutionError::no_such_overload("in", kinds(needle, "list"))) }
}

/// Equality of values of one kind.
fn same<'v>(left: &(dyn Val + 'v), right: &(dyn Val + 'v)) -> Result<bool, ExecutionError> {
    if functions::is_decimal(left) || functions::is_decimal(right) {
        return match (functions::decimal_of(left), functions::decimal_of(right)) {
            (Some(left), Some(right)) => Ok(left == right),
            _ => Err(mismatch("==", left, right)),
        };
    }
    match (Sort::of(left), Sort::of(right)) {
        (Sort::Null, Sort::Null) => Ok(true),
        (Sort::Null, _) | (_, Sort::Null) => Ok(false),
        (Sort::List, Sort::List) => {
            let (Some(a), Some(b)) =
                (left.downcast_ref::<CelList<'_>>(), right.downcast_ref::<CelList<'_>>())
            else {
                return Err(mismatch("==", left, right));
            };
            let (a, b) = (a.inner(), b.inner());
            if a.len() != b.len() {
                return Ok(false);
            }
            all(a.iter().zip(b.iter()).map(|(a, b)| same(a.as_ref(), b.as_ref())))
        }
        (Sort::Map, Sort::Map) => {
            let (Some(a), Some(b)) = (left.downcast_ref::<CelMap<'_>>(), right.downcast_ref::<CelMap<'_>>())
            else {
                return Err(mismatch("==", left, right));
            };
            let (a, b) = (a.inner(), b.inner());
            if a.len() != b.len() || !a.keys().all(|key| b.contains_key(key)) {
                return Ok(false);
            }
            all(a.iter().filter_map(|(key, a)| b.get(key).map(|b| same(a.as_ref(), b.as_ref()))))
        }
        (Sort::Other, _) | (_, Sort::Other) => Err(mismatch("==", left, right)),
        (a, b) if a == b => Ok(left.equals(right)),
        _ => Err(mismatch("==", left, right)),
    }
}

/// Conjunction as CEL has it: one `false` decides, whatever fails beside it.
fn all(results: impl Iterator<Item = Result<bool, ExecutionError>>) -> Result<bool, ExecutionError> {
    let mut error = None;
    for result in results {
        match result {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(failed) => error = Some(failed),
        }
    }
    error.map_or(Ok(true), Err)
}

/// The kinds that equality tells apart: all numbers are one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Null,
    Bool,
    Number,
    Text,
    Bytes,
    List,
    Map,
    Type,
    Other,
}

impl Sort {
    fn of(value: &dyn Val) -> Self {
        match value.get_type().kind() {
            Kind::NullType => Self::Null,
            Kind::Boolean => Self::Bool,
            Kind::Int | Kind::UInt | Kind::Double => Self::Number,
            Kind::String => Self::Text,
            Kind::Bytes => Self::Bytes,
            Kind::List => Self::List,
            Kind::Map => Self::Map,
            Kind::Type => Self::Type,
            _ => Self::Other,
        }
    }
}

fn kinds(left: &dyn Val, right: &str) -> Vec<String> {
    vec![left.get_type().name().to_owned(), right.to_owned()]
}

fn mismatch(operator: &str, left: &dyn Val, right: &dyn Val) -> ExecutionError {
    ExecutionError::no_such_overload(operator, kinds(left, right.get_type().name()))
}
