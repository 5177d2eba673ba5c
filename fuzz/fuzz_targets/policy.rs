//! The loader of policies: no text makes it panic or run away, and what loads always answers and can be written natively.
//!
//! Input: a policy file.
#![no_main]

use holdshort::policy::{Call, Policy, Source, convert};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let source = Source { name: "fuzz.yaml".to_owned(), text: text.to_owned() };
    match Policy::parse(vec![source.clone()]) {
        Ok(policy) => {
            let arguments = r#"{"amount": 5, "to": ["a@example.com"], "path": "/x", "url": "https://example.com"}"#;
            let call = Call { server: "s", tool: Some("t"), arguments, ..Call::default() };
            let decision = policy.decide(&call);
            assert_eq!(policy.explain(&call).decision.effect, decision.effect);
            let native = convert(source).expect("what loads can be converted");
            let again = Policy::parse(vec![Source { name: "native.yaml".to_owned(), text: native.text }]);
            assert_eq!(again.expect("what is converted loads").decide(&call).effect, decision.effect);
        }
        Err(errors) => assert!(!errors.to_string().is_empty(), "a refusal says why"),
    }
});
