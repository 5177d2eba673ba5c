//! Numbers by name, for names that come from a configuration: found without a lock, and only so many of them.

use std::sync::{
    OnceLock,
    atomic::{AtomicUsize, Ordering},
};

/// Names that have numbers of their own; all further ones share those of [`OTHER`].
pub const NAMES_MAX: usize = 100;

/// The name of those that are too many.
pub const OTHER: &str = "other";

/// Places; more than names, so that one is soon found.
const PLACES: usize = 256;

/// A name and what it has. In a box of its own: most places stay empty.
type Taken<T> = Box<(Box<str>, T)>;

/// A `T` for each name.
#[derive(Debug)]
pub(super) struct Named<T> {
    places: Box<[OnceLock<Taken<T>>]>,
    taken: AtomicUsize,
    other: OnceLock<Box<T>>,
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self {
            places: std::iter::repeat_with(OnceLock::new).take(PLACES).collect(),
            taken: AtomicUsize::new(0),
            other: OnceLock::new(),
        }
    }
}

impl<T: Default> Named<T> {
    /// That of `name`. The first of a name takes a place for it; after that it is only found.
    pub(super) fn of(&self, name: &str) -> &T {
        let mut at = place_of(name);
        for _ in 0..PLACES {
            let found = match self.places[at].get() {
                Some(found) => found,
                None if self.taken.fetch_add(1, Ordering::Relaxed) < NAMES_MAX => {
                    let mut is_ours = false;
                    let found = self.places[at].get_or_init(|| {
                        is_ours = true;
                        Box::new((name.into(), T::default()))
                    });
                    if !is_ours {
                        self.taken.fetch_sub(1, Ordering::Relaxed);
                    }
                    found
                }
                None => {
                    self.taken.fetch_sub(1, Ordering::Relaxed);
                    break;
                }
            };
            if *found.0 == *name {
                return &found.1;
            }
            at = (at + 1) % PLACES;
        }
        self.other.get_or_init(Box::default)
    }

    /// What `map` makes of each, and of the others where there are any.
    pub(super) fn map<R>(&self, map: impl Fn(&str, &T) -> R) -> Vec<R> {
        let named = self.places.iter().filter_map(OnceLock::get).map(|named| map(&named.0, &named.1));
        named.chain(self.other.get().map(|other| map(OTHER, other))).collect()
    }
}

/// Where a name is looked for first (FNV-1a). Names are an operator's: nobody gains by making them collide.
fn place_of(name: &str) -> usize {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    usize::try_from(hash % PLACES as u64).unwrap_or_default()
}
