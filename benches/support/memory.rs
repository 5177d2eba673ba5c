//! The resident memory of a process, as the kernel counts it.
//!
//! Used by the benches. Reads `/proc`, so it runs on Linux only.

use std::{collections::BTreeMap, fs};

use anyhow::Context as _;

/// Resident memory of one process, in KiB.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// All of it.
    pub(crate) resident: u64,
    /// What is its own: heap, stacks. The rest is mapped from files, mostly the program itself.
    pub(crate) anonymous: u64,
}

/// The resident memory of `pid`.
pub(crate) fn of(pid: u32) -> anyhow::Result<Memory> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("process {pid} is gone"))?;
    let values: BTreeMap<&str, u64> = text
        .lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name, value.trim().strip_suffix(" kB")?.parse().ok()?))
        })
        .collect();
    let value =
        |name: &str| values.get(name).copied().with_context(|| format!("no `{name}` for process {pid}"));
    Ok(Memory { resident: value("VmRSS")?, anonymous: value("RssAnon")? })
}
