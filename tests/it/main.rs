//! The one integration binary: a module per feature.

mod canary;
mod real_peers;
mod support;
