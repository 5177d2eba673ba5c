//! The native document as a JSON Schema, for editors that complete and check while one types.
//!
//! Printed by `holdshort policy schema`. It says what a document may look like; what it means, and whether its conditions
//! and patterns are right, only the reader knows. Tests hold the two together, key by key and limit by limit.

/// The schema of the native document: JSON Schema 2020-12.
pub fn schema() -> &'static str {
    include_str!("schema.json")
}
