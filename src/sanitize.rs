//! Text of a peer, made fit to be shown to a person who decides by it.
//!
//! Used wherever a tool name, an argument or a reason reaches a terminal, a page or a message, and by `jsonrpc` and `mcp`
//! for the classes of characters. What cannot be seen, or would change how its neighbours are seen, is shown as an escape;
//! nothing is dropped: [`render()`] can be undone, so two different texts never look the same because of it.

mod classes;
mod fold;
mod json;
mod render;
mod width;

pub use classes::{Flag, flags, is_bidi_control, is_invisible, is_mixed_script, is_plain};
pub use fold::fold;
pub use json::plain_json;
pub use render::{ROW_GOES_ON, Shown, render, render_cut, unrender};
pub use width::{columns, cut_columns, split_columns};

#[cfg(test)]
pub(crate) mod tests;
