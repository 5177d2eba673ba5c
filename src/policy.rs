//! Stand-in until the real one is merged.
#![allow(missing_docs)]
use crate::{
    digest::Digest,
    hold::{HoldTerms, OnRejection},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
pub struct Call<'a> {
    pub server: &'a str,
    pub method: &'a str,
    pub tool: Option<&'a str>,
    pub arguments: &'a str,
    pub client: &'a str,
    pub principal: &'a str,
}
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    Allow,
    Hold,
    Deny,
}
#[derive(Debug, Clone)]
pub struct Decision {
    pub effect: Effect,
    pub rules: Vec<Arc<str>>,
    pub reason: Arc<str>,
    pub terms: Option<Arc<HoldTerms>>,
    pub on_rejection: OnRejection,
    pub notes: Vec<String>,
}
pub struct Policy;
pub struct PolicyErrors;
pub struct Diagnostic;
pub struct TestReport;
impl std::fmt::Display for TestReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("")
    }
}
impl TestReport {
    pub fn passed(&self) -> bool {
        true
    }
}
impl PolicyErrors {
    pub fn render(&self, _: bool) -> String {
        String::new()
    }
}
impl Diagnostic {
    pub fn render(&self, _: bool) -> String {
        String::new()
    }
}
impl Policy {
    pub fn load(_: &[PathBuf]) -> Result<Policy, PolicyErrors> {
        Ok(Policy)
    }
    pub fn hold_everything() -> Policy {
        Policy
    }
    pub fn decide(&self, call: &Call<'_>) -> Decision {
        let effect = match call.tool {
            Some(t) if t.contains("danger") => Effect::Hold,
            Some(t) if t.contains("deny") => Effect::Deny,
            _ => Effect::Allow,
        };
        Decision {
            effect,
            rules: vec!["r".into()],
            reason: "because".into(),
            terms: Some(Arc::new(HoldTerms {
                timeout: Duration::from_secs(300),
                hold_message: None,
                on_rejection: OnRejection::Continue,
            })),
            on_rejection: OnRejection::Continue,
            notes: vec![],
        }
    }
    pub fn digest(&self) -> Digest {
        Digest::of(b"")
    }
    pub fn rules_len(&self) -> usize {
        0
    }
    pub fn warnings(&self) -> &[Diagnostic] {
        &[]
    }
    pub fn gates_methods(&self) -> bool {
        false
    }
    pub fn gates_method(&self, _: &str, _: &str) -> bool {
        false
    }
    pub fn gated_methods(&self) -> impl Iterator<Item = &str> {
        std::iter::empty()
    }
}
pub fn test_files_beside(_: &[PathBuf]) -> Vec<PathBuf> {
    vec![]
}
pub fn run_tests(_: &[PathBuf], _: &Path) -> Result<TestReport, PolicyErrors> {
    Ok(TestReport)
}
